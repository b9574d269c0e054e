"""Our program, run by its command line, and polishing along given trajectories (the true ones)."""
from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np

from refmotion_plugin.contract import star, store
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.results import read_status
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.engine.stages.polish import polish_movie
from refmotion_plugin.engine.stages.prepared import prepare

from .measure import Usage, run_measured
from .project import Project

PIECES = ("particles", "half1", "half2", "mask")


def run_engine(project: Project, references: list[dict], out: str, threads: int, extra: tuple[str, ...] = ()) -> Usage:
    """``refmotion run`` with the given references (dicts with particles, half1, half2, mask)."""
    command = [sys.executable, "-m", "refmotion_plugin.engine", "run", out, "--movies", "MotionCorr/corrected_micrographs.star"]
    for piece in PIECES:
        command += [f"--{piece}", references[0][piece]]
    for reference in references[1:]:
        command += ["--reference", ",".join(f"{piece}={reference[piece]}" for piece in PIECES)]
    command += ["--tracks-star", "--device", "cpu", "--threads", threads, *extra]
    shutil.rmtree(project.folder / out, ignore_errors=True)
    return run_measured(command, project.folder, project.folder / "logs" / f"{out.replace('/', '_')}.log", threads)


def movies_wall_s(job: Path) -> float:
    """Seconds from the beginning of the alignment to the last polished movie of a job that was run at once: tracking, weights and recombination,
    without start-up, checks, calibration and report."""
    events = read_status(JobLayout(job).status)
    begin = next(e["time"] for e in events if e["event"] == "movies")
    return max(e["time"] for e in events if e["event"] == "polish") - begin


def polish_along_truth(project: Project, job: str, out: str, true_weights: np.ndarray | None = None) -> str:
    """Particles of a finished job (one reference) polished along the true trajectories; name of their STAR file.

    ``true_weights`` (frame, shell of the truth's damage table) replaces the job's own weights if given.
    """
    layout, spec = JobLayout(project.folder / job), JobSpec.read(project.folder / job / "job.json")
    part = spec.references[0]
    located = part.model_copy(update={name: str(project.folder / getattr(part, name)) for name in PIECES})
    spec = spec.model_copy(update={"references": [located]})
    movies = _movies(project)
    particles = star.read_particles(located.particles, 0, project.spec.pixel_angstrom)
    weights = store.load_weights(layout.weights)
    if true_weights is not None:
        weights = _with_weights(weights, project, true_weights)
    prepared = prepare(spec, [particles], "cpu")
    (project.folder / out).mkdir(parents=True, exist_ok=True)
    names = {}
    for movie in movies:
        table = particles.table[np.flatnonzero(particles.table.micrograph == movie.micrograph)]
        images = _polished(project, layout, movie, table, weights, prepared)
        name = f"{out}/{Path(movie.micrograph).stem}.mrcs"
        _write_stack(project.folder / name, images, project.spec.pixel_angstrom)
        names.update({int(row): f"{i:06d}@{name}" for i, row in enumerate(table.row, 1)})
    return project.with_images(f"{out}/particles.star", names.__getitem__)


def _movies(project):
    micrographs, _ = star.read_corrected_micrographs(project.folder / "MotionCorr" / "corrected_micrographs.star")
    movies = [star.read_movie_metadata(m.metadata_star, m.name) for m in micrographs]
    return [replace(m, movie_file=str(project.folder / "Movies" / Path(m.movie_file).name)) for m in movies]


def _polished(project, layout, movie, table, weights, prepared):
    with np.load(project.truth / f"{Path(movie.micrograph).stem}.npz") as truth:
        displacement = truth["displacement_yx_angstrom"].astype(np.float32)
    trajectories = replace(store.load_trajectories(layout.trajectories(movie.key)), displacement_yx_angstrom=displacement)
    return polish_movie(movie, table, trajectories, weights, prepared).images


def _with_weights(weights: DoseWeights, project, amplitude):
    with np.load(project.truth / "damage.npz") as damage:
        k = damage["frequency_per_angstrom"]
    return replace(weights, weight=(amplitude / amplitude.sum(axis=0))[None], frequency_per_angstrom=k)


def _write_stack(path, images, pixel_angstrom):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(images.astype(np.float32))
        file.set_image_stack()
        file.voxel_size = (pixel_angstrom, pixel_angstrom, 1.0)


def read_stack(path: Path) -> np.ndarray:
    """Images (n, box, box) float32 of an MRC stack."""
    with mrcfile.open(path, permissive=True) as file:
        return file.data.astype(np.float32)
