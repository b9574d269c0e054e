"""Found hyperparameters against the best of a dense grid that is scored with the truth."""
from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from comparison.report import markdown_table
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS as DEFAULT

from .data import data_set
from .errors import kept_error, kept_movies
from .search import as_numbers, searched

CASES = ("bursts", "gentle", "none")
VELOCITY, ACCELERATION = (0.02, 0.1, 0.25, 0.5, 1.0), (0.004, 0.016, 0.064, 0.25)
DISTANCE = (800.0, 2000.0, 5000.0)
# from the best point on, the truth walks along every parameter by these factors
STEPS = (0.7, 1.4)
WALKED = ("velocity_sigma", "acceleration_sigma", "correlation_distance_angstrom", "early_factor", "early_dose_e_per_A2", "jitter_angstrom",
          "global_angstrom", "common_sigma")
BOUND = 1.03
LEAST_GAIN = 1e-4               # of the error, for a step of the walk
NO_ERROR_ANGSTROM = 0.001       # smaller errors are none: where nothing moves, a quotient of two of them says nothing


def run(out: Path, scored_movies: int, say) -> tuple[str, dict]:
    """Table and numbers of all data sets."""
    rows, data = [], {}
    for name in CASES:
        case = data[name] = one_case(data_set(out, name), scored_movies)
        ratio = excess(case["found"][0], case["best"][0])
        rows.append([name, *case["default"], *case["found"], *case["best"], case["points"], ratio, "yes" if ratio <= BOUND else "NO"])
        say(f"{name}: found {case['found'][0]:.3f}, best {case['best'][0]:.3f}")
    header = ["data", "default: all, Å", "first five", "found: all", "first five", "best of the grid: all", "first five", "points", "found / best, all",
              f"≤ {BOUND}"]
    return markdown_table(header, rows), data


def excess(found: float, best: float) -> float:
    """Found error over the best one, both at least the smallest that counts."""
    return max(found, NO_ERROR_ANGSTROM) / max(best, NO_ERROR_ANGSTROM)


def one_case(folder: Path, scored_movies: int) -> dict:
    """Search on all movies; grid and walk on the first ones."""
    movies, of, job, found, seconds = searched(folder, 1000)
    kept = kept_movies(folder, movies[:scored_movies], of, job)
    scored = {}
    for sigma_v, sigma_a, distance, spread in itertools.product(VELOCITY, ACCELERATION, DISTANCE, (0.0,)):
        hyper = replace(DEFAULT, velocity_sigma=sigma_v, acceleration_sigma=sigma_a, correlation_distance_angstrom=distance, movie_spread=spread)
        scored[hyper] = kept_error(kept, hyper)
    for hyper in (DEFAULT, found.hyperparameters):
        scored[hyper] = kept_error(kept, hyper)
    best = walk(kept, scored, WALKED)
    return {"found": scored[found.hyperparameters], "default": scored[DEFAULT], "best": scored[best], "points": len(scored),
            "best_hyperparameters": best.__dict__, "search": as_numbers(found), "cpu_seconds": seconds}


def walk(kept, scored: dict, parameters):
    """The best point of a walk from the best one so far along each of these parameters while the error falls; all points end up in ``scored``."""
    best = min(scored, key=lambda h: scored[h][0])
    for name in parameters:
        for factor in STEPS:
            while True:
                hyper = replace(best, **{name: getattr(best, name) * factor})
                if hyper not in scored:
                    scored[hyper] = kept_error(kept, hyper)
                if excess(scored[best][0], scored[hyper][0]) <= 1 + LEAST_GAIN:
                    break
                best = hyper
    return min(scored, key=lambda h: scored[h][0])
