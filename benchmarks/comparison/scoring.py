"""Scores of both programs against the truth: trajectories, weights, maps."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.star import read_tracks_star
from refmotion_plugin.engine.simulate.score import TrajectoryError, damage_weights, trajectory_error, true_amplitude, weight_agreement

from . import relion
from .maps import mean_over_band, read_map, shell_correlation, smoothed_crossing_angstrom
from .project import Project


def score_tracks(project: Project, folder: str, movies: list[str], suffix: str = "") -> dict:
    """Errors (A) of the ``*_tracks.star`` below a folder against the truth: rms over movies, and per movie."""
    errors = [_error(project, movie, find_tracks(project.folder / folder, movie), suffix) for movie in movies]
    return _summary(errors)


def score_rigid(project: Project, movies: list[str], suffix: str = "") -> dict:
    """Errors of the input motion (rigid frame shifts) alone."""
    errors = []
    for movie in movies:
        with np.load(project.truth / f"{movie}{suffix}.npz") as truth:
            rigid, shape = -truth["shift_yx_px"] * project.spec.pixel_angstrom, truth["displacement_yx_angstrom"].shape
        errors.append(_error(project, movie, np.broadcast_to(rigid, shape), suffix))
    return _summary(errors)


def find_tracks(folder: Path, movie: str) -> np.ndarray:
    """Displacements (particle, frame, 2) of a movie in a tracks file anywhere below a folder."""
    found = sorted(folder.glob(f"**/*{movie}_tracks.star"))
    if len(found) != 1:
        raise FileNotFoundError(f"{len(found)} files *{movie}_tracks.star below {folder} where one was expected")
    return read_tracks_star(found[0])


def _error(project, movie, displacement, suffix) -> TrajectoryError:
    with np.load(project.truth / f"{movie}{suffix}.npz") as truth:
        return trajectory_error(displacement, truth["displacement_yx_angstrom"], damage_weights(project.truth))


def _summary(errors: list[TrajectoryError]) -> dict:
    def rms(values):
        return np.sqrt(np.mean(np.square(values), axis=0))

    return {"all": float(rms([e.all_frames for e in errors])), "early": float(rms([e.first_five for e in errors])),
            "per_frame": rms([e.per_frame for e in errors]).round(4).tolist(),
            "per_movie_all": [e.all_frames for e in errors], "per_movie_early": [e.first_five for e in errors]}


def score_weights(project: Project, weights: dict[str, np.ndarray]) -> dict:
    """Agreement of weights (frame, shell of the truth's table) with both definitions of the true relative amplitude.

    ``damage``: what radiation leaves; ``damage and blur``: what radiation and the motion inside frames leave, which is what
    optimal weights follow.
    """
    k, damage, amplitude = true_tables(project)
    scores = {}
    for name, values in weights.items():
        scores[name] = {truth: dict(zip(("correlation", "snr_kept"), weight_agreement(values, true, k)))
                        for truth, true in (("damage", damage), ("damage and blur", amplitude))}
    return scores


def true_tables(project: Project) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies (shell,), damage and damage with blur (frame, shell)."""
    with np.load(project.truth / "damage.npz") as file:
        return file["frequency_per_angstrom"], file["amplitude"], true_amplitude(project.truth)


def plain_weights(project: Project) -> dict[str, np.ndarray]:
    """Weights that know nothing of the data: all the same, and the published exposure curve."""
    with np.load(project.truth / "damage.npz") as file:
        k, dose = file["frequency_per_angstrom"], file["dose_e_per_A2"]
    return {"even weights": np.ones((len(dose), len(k))), "exposure curve": exposure_amplitude(dose, k, project.spec.voltage)}


def resample_weights(weight: np.ndarray, frequency: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights (frame, shell) at other frequencies."""
    return np.stack([np.interp(wanted, frequency, row) for row in weight])


def score_maps(project: Project, particles: str, name: str, symmetry: str, mask: str) -> dict:
    """Reconstruct both halves of particles: resolution (A) and half-map FSC by relion_postprocess, FSC with the true map."""
    halves = relion.reconstruct(project, particles, f"maps/{name}", symmetry)
    pixel, length = project.spec.pixel_angstrom, project.spec.box * project.spec.pixel_angstrom
    star = relion.postprocess(project, halves[0], mask, f"maps/{name}", pixel)
    curve = relion.postprocess_fsc(project.folder / star)
    volumes = [read_map(project.folder / half)[0] for half in halves]
    inside, true = read_map(project.folder / mask)[0], read_map(project.truth / "map.mrc")[0]
    fsc = shell_correlation(0.5 * (volumes[0] + volumes[1]) * inside, true * inside)
    return {"resolution_printed_angstrom": relion.postprocess_resolution(project.folder / star),
            "resolution_angstrom": smoothed_crossing_angstrom(curve, length), "true_fsc_5_3": mean_over_band(fsc, length),
            "true_fsc": fsc.round(4).tolist(), "half_map_fsc": curve.round(4).tolist()}
