"""The simulated data sets of the search's benchmarks: how each differs, and how it is opened."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from comparison.project import holds_data
from refmotion_plugin.contract import star
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.engine.simulate import SimulationSpec, simulate
from refmotion_plugin.engine.stages import prepared

SIZE = dict(size_yx=(1536, 1536), pixel_angstrom=1.5, box=144)
COMMON = dict(**SIZE, movies=4, particles=100, frames=30, dose_per_frame=1.3)
KINDS = ("exponential", "steps", "doming", "drift", "jitter", "gentle")
CASES = {
    "bursts": dict(COMMON, movies=10, motion="burst", seed=21),
    "exponential": dict(COMMON, motion="exponential", seed=31),
    "steps": dict(COMMON, motion="steps", seed=32),
    "doming": dict(COMMON, motion="doming", seed=33),
    "drift": dict(COMMON, motion="drift", seed=34),
    "jitter": dict(COMMON, motion="jitter", seed=35),
    # dose, voltage and Cs of a tutorial data set of beta-galactosidase (EMPIAR-10204); fewer particles
    "gentle": dict(SIZE, movies=4, particles=60, frames=24, dose_per_frame=1.277, voltage=200.0, cs_mm=1.4, motion="gentle", seed=41),
    # many particles of little contrast, few frames of much dose, nothing moves
    "none": dict(SIZE, movies=4, particles=140, frames=20, dose_per_frame=2.0, contrast_scale=0.45, rigid_shift_error_px=0.0,
                 motion="none", seed=42),
}


def data_set(out: Path, name: str, **changes) -> Path:
    """Folder of a data set below ``out``, simulated if it is not there yet and refused if it is another one; ``changes`` to its specification."""
    folder = Path(out).resolve() / name
    spec = SimulationSpec(**{**CASES[name], **changes, "threads": len(os.sched_getaffinity(0))})
    there = holds_data(folder, spec)
    if there is None:
        simulate(folder, spec)
    elif not there:
        raise SystemExit(f"{folder} holds another data set than was asked for (see its truth/spec.json): give another OUT")
    return folder


def open_project(folder: Path, movies: int | None = None, seed: int = 0, **search):
    """Movies, a function that gives their particles and the prepared job of a simulated data set; ``search``: values of its search."""
    part = {name: str(folder / file) for name, file in (("particles", "particles.star"), ("half1", "half1.mrc"), ("half2", "half2.mrc"),
                                                        ("mask", "mask.mrc"))}
    spec = JobSpec.build({"inputs": {"movies": str(folder / "MotionCorr" / "corrected_micrographs.star")}, "references": [part],
                          "search": {"thoroughness": "balanced", **search}, "seed": seed})
    micrographs, _ = star.read_corrected_micrographs(spec.inputs.movies)
    chosen = [star.read_movie_metadata(m.metadata_star, m.name) for m in micrographs][:movies]
    particles = star.read_particles(spec.references[0].particles, 0, chosen[0].original_pixel_angstrom * chosen[0].binning)
    table = particles.table
    job = prepared.prepare(spec, [particles], "cpu")
    return chosen, lambda movie: table[np.flatnonzero(table.micrograph == movie.micrograph)], job
