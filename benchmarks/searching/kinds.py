"""Six kinds of motion: rigid, RELION's best of a grid, the best constant prior, the default and what the search finds."""
from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from comparison.report import markdown_table
from refmotion_plugin.contract.spec import relion_prior

from .data import CASES, KINDS, data_set
from .errors import aligned_errors, kept_error, kept_movies
from .grid import LEAST_GAIN, excess, walk
from .relion_side import RelionSide
from .search import as_numbers, searched

# three constant hyperparameters: sigma velocity, divergence, acceleration in RELION's units
CONSTANT = tuple(itertools.product((0.2, 0.6, 1.2, 2.0), (3000, 8000, 20000), (2, 9)))
WALKED = ("velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma")
BOUND, EARLY_BOUND, ALL_BOUND = 1.02, 0.7, 0.87


def run(out: Path, scored_movies: int, say, kinds=(*KINDS, "bursts"), draw: int = 0) -> tuple[str, dict]:
    """Table and numbers; the bounds for early and all frames are for bursts, the others for every kind."""
    rows, data = [], {}
    for kind in kinds:
        case = data[kind] = one_kind(out, kind, scored_movies, draw)
        e, relion = case["errors"], case["relion"]
        against = [e["found"][0] / e["constant"][0], e["found"][0] / relion["best_all"][0], e["found"][1] / relion["best_all"][1]]
        both = lambda pair: f"{pair[0]:.3f}, {pair[1]:.3f}"
        edge = "" if relion["walked_to_the_end"] else " (further on it may be less)"
        rows.append([kind, both(e["rigid"]), both(relion["best_all"]) + edge, both(relion["least"]), both(e["constant"]), both(e["default"]),
                     both(e["found"]), case["search"]["family"], *against, "yes" if max(against[:2]) <= BOUND else "NO"])
        say(f"{kind}: " + ", ".join(f"{name} {both(pair)}" for name, pair in e.items()) + f", RELION {both(relion['best_all'])}")
    header = ["motion", "rigid", "RELION, best of σ by all frames", "RELION, least of any σ, each", "best constant prior", "default", "found", "prior chosen",
              "found / constant, all", "found / RELION, all", "first five", f"≤ {BOUND} of constant and RELION, all"]
    return markdown_table(header, rows), data


def one_kind(out: Path, kind: str, scored_movies: int, draw: int = 0) -> dict:
    """Errors of every way on the first movies of a data set, its seed raised by ``draw``; the search uses all movies."""
    folder = data_set(out, kind, seed=CASES[kind]["seed"] + draw)
    movies, of, job, found, seconds = searched(folder, 1000)
    movies = movies[:scored_movies]
    kept = kept_movies(folder, movies, of, job)
    constant = best_constant(kept)
    errors = aligned_errors(folder, movies, of, job, {"rigid": None, "constant": constant, "default": job.hyperparameters,
                                                      "found": found.hyperparameters})
    grid, ended = RelionSide(out, folder).grid(scored_movies)
    best = min(grid, key=lambda row: row["all"])
    relion = {"sigmas": best["sigmas"], "best_all": (best["all"], best["early"]),
              "least": (min(r["all"] for r in grid), min(r["early"] for r in grid)), "runs": len(grid), "walked_to_the_end": ended}
    return {"errors": errors, "relion": relion, "constant": constant.__dict__, "search": as_numbers(found), "cpu_seconds": seconds}


def best_constant(kept):
    """The truth's choice of constant hyperparameters: of the triples, and of a walk along each parameter, again and again while the error falls."""
    scored = {hyper: kept_error(kept, hyper) for hyper in (relion_prior(*sigmas) for sigmas in CONSTANT)}
    best, gain = walk(kept, scored, WALKED), np.inf
    while gain > 1 + LEAST_GAIN:
        before, best = best, walk(kept, scored, WALKED)
        gain = excess(scored[before][0], scored[best][0])
    return best
