"""True shakes of whole movies that the input's rigid motion has followed: are they taken for its errors?"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from comparison.report import markdown_table
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS as DEFAULT
from refmotion_plugin.engine.stages import calibrate

from .data import data_set, open_project
from .errors import kept_error, kept_movies

CASES = ("bursts", "gentle", "jitter")
# name: (frames, generator) -> (frame, 2) A, added to the truth and to the input alike: the particles' data stay as they are
SHAKES = {"none": lambda n, rng: np.zeros((n, 2)),
          "white, 0.3 Å": lambda n, rng: 0.3 * rng.normal(size=(n, 2)),
          "white, 1 Å": lambda n, rng: rng.normal(size=(n, 2)),
          "random walk, 0.3 Å a frame": lambda n, rng: 0.3 * rng.normal(size=(n, 2)).cumsum(0),
          "random walk, 1 Å a frame": lambda n, rng: rng.normal(size=(n, 2)).cumsum(0),
          "one jump of 3 Å": lambda n, rng: np.outer(np.arange(n) > n // 2, [3.0, 0.0]),
          "one frame off by 2 Å": lambda n, rng: np.outer(np.arange(n) == n // 2, [2.0, 0.0])}


def run(out: Path, scored_movies: int, say) -> tuple[str, dict]:
    """Table and numbers: errors under the default prior, with the input's course taken as it is and as a measurement."""
    rows, data = [], {}
    for name in CASES:
        folder = data_set(out, name)
        movies, of, job = open_project(folder)
        kept = kept_movies(folder, movies[:scored_movies], of, calibrate.calibrate(movies, of, job))
        for shake, make in SHAKES.items():
            rng = np.random.default_rng(1)
            shaken = [_shaken(one, make(one.truth.shape[1], rng)) for one in kept]
            plain, found = (kept_error(shaken, hyper) for hyper in (replace(DEFAULT, common_sigma=0.0), DEFAULT))
            data[f"{name}, {shake}"] = {"as it is": plain, "measured": found}
            rows.append([name, shake, *plain, *found, found[0] / plain[0]])
        say(f"{name}: {rows[-len(SHAKES):]}")
    header = ["data", "shake per axis", "input as it is: all, Å", "first five", "input as a measurement: all", "first five", "ratio, all"]
    return markdown_table(header, rows), data


def _shaken(movie, shake):
    return replace(movie, initial=movie.initial + shake, truth=movie.truth + shake)
