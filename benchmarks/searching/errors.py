"""Errors of trajectories against the truth of simulated movies: by the whole alignment, or quickly on maps that are kept."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from refmotion_plugin.engine.motion.adapt import adapt_strength
from refmotion_plugin.engine.motion.correlate import CorrelationMaps, Window, correlation_maps
from refmotion_plugin.engine.motion.escape import fit_out_of_false_peaks
from refmotion_plugin.engine.motion.model import SignalModel, motion_inside_frames
from refmotion_plugin.engine.motion.prior import build_prior
from refmotion_plugin.engine.simulate.score import damage_weights, trajectory_error
from refmotion_plugin.engine.stages import align


def rms(rows) -> tuple[float, float]:
    """(all frames, first five) of movies together."""
    return tuple(float(v) for v in np.sqrt(np.square(rows).mean(axis=0)))


def true_displacement(folder: Path, movie) -> np.ndarray:
    """(particle, frame, 2) A."""
    with np.load(folder / "truth" / f"{Path(movie.micrograph).stem}.npz") as file:
        return file["displacement_yx_angstrom"]


def aligned_errors(folder: Path, movies, of, job, hypers: dict) -> dict:
    """{name: (all, first five)} of the alignment as a job does it, for {name: hyperparameters, or None for rigid motion}."""
    weights, rows = damage_weights(folder / "truth"), {name: [] for name in hypers}
    for movie in movies:
        view, truth, known = align.view_movie(movie, of(movie), job), true_displacement(folder, movie), {}
        for name, hyper in hypers.items():
            if hyper not in known:
                fit = None if hyper is None else align.estimate_deviation(view, job.amplitudes, replace(job, hyperparameters=hyper))[0]
                deviation = 0.0 if fit is None else fit.deviation[0].cpu().numpy()
                error = trajectory_error(view.initial_yx_angstrom + deviation, truth, weights)
                known[hyper] = (error.all_frames, error.first_five)
            rows[name].append(known[hyper])
    return {name: rms(values) for name, values in rows.items()}


@dataclass(frozen=True)
class KeptMovie:
    """Correlation maps of the whole band with the blur of a fit under the default prior: a trial costs a fit."""

    maps: CorrelationMaps
    position: torch.Tensor
    dose: torch.Tensor
    initial: np.ndarray
    truth: np.ndarray
    weights: np.ndarray

    @property
    def where(self):
        """What a prior asks of a movie."""
        return self.position, self.dose, torch.from_numpy(self.initial).mean(0)

    def error(self, hyper) -> tuple[float, float]:
        """(all frames, first five) under a set of hyperparameters, with the movie's own strength if the set has a spread."""
        fit = fit_out_of_false_peaks(self.maps, build_prior([hyper], *self.where))
        own = adapt_strength(hyper, fit, self.maps, *self.where)
        fit = fit if own is hyper else fit_out_of_false_peaks(self.maps, build_prior([own], *self.where))
        found = trajectory_error(self.initial + fit.deviation[0].cpu().numpy(), self.truth, self.weights)
        return found.all_frames, found.first_five


def kept_movies(folder: Path, movies, of, job) -> list[KeptMovie]:
    """Maps of movies, ready for many trials."""
    kept = []
    for movie in movies:
        particles = of(movie)
        view = align.view_movie(movie, particles, job)
        first, model = align.estimate_deviation(view, job.amplitudes, job)
        blur = motion_inside_frames(torch.from_numpy(view.initial_yx_angstrom) + first.deviation[0])
        blurred = SignalModel(view.grid, model.prediction, model.amplitude, model.damage, model.noise, blur)
        window = Window.covering(job.spec.alignment.search_radius_angstrom, job.band_per_angstrom(view.grid.pixel_angstrom))
        kept.append(KeptMovie(correlation_maps(view.spectra, blurred, window, view.residual_yx_angstrom),
                              torch.from_numpy(particles.position_yx_angstrom), torch.from_numpy(view.dose_e_per_A2),
                              view.initial_yx_angstrom, true_displacement(folder, movie), damage_weights(folder / "truth")))
    return kept


def kept_error(kept: list[KeptMovie], hyper) -> tuple[float, float]:
    """Error of a set over kept movies."""
    return rms([movie.error(hyper) for movie in kept])
