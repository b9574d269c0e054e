"""One search on a data set, timed."""
from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from refmotion_plugin.engine.stages import calibrate, tune

from .data import open_project


def searched(folder: Path, target_particles: int, seed: int = 0, movies: int | None = None, thoroughness: str = "balanced"):
    """(movies, particles of a movie, calibrated job, Tuning, CPU seconds of the search without the calibration)."""
    chosen, of, job = open_project(folder, movies, seed, target_particles=target_particles, thoroughness=thoroughness)
    job = calibrate.calibrate(chosen, of, job)
    start = time.process_time()
    found = tune.tune(chosen, of, job)
    return chosen, of, job, found, time.process_time() - start


def as_numbers(found) -> dict:
    """What a results file keeps of a search."""
    return {"family": found.family, "hyperparameters": asdict(found.hyperparameters), "gain": found.gain, "gain_error": found.gain_error,
            "worth_it": found.worth_it, "margins": found.margins, "evidence": found.evidence, "errors": found.errors,
            "particles": found.particles, "trials": len(found.journal)}
