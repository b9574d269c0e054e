"""Two seeds draw different movies: do the hyperparameters found give the same trajectories?"""
from __future__ import annotations

from pathlib import Path

from comparison.report import markdown_table

from .data import data_set
from .errors import aligned_errors
from .search import as_numbers, searched

CASES = {"bursts": 500, "exponential": 200, "steps": 200, "gentle": 120}      # target particles: about half of each set
BOUND = 0.02


def run(out: Path, scored_movies: int, say, seeds=(0, 1)) -> tuple[str, dict]:
    """Table and numbers."""
    rows, data = [], {}
    for name, target in CASES.items():
        folder, found = data_set(out, name), {}
        for seed in seeds:
            movies, of, job, one, seconds = searched(folder, target, seed)
            found[f"seed {seed}"] = one
        errors = aligned_errors(folder, movies[:scored_movies], of, job, {"default": job.hyperparameters,
                                                                          **{s: f.hyperparameters for s, f in found.items()}})
        pairs = [errors[f"seed {seed}"] for seed in seeds]
        apart = [max(v) / min(v) - 1 for v in zip(*pairs)]
        common = len(set.intersection(*(set(f.movies) for f in found.values())))
        both = lambda pair: f"{pair[0]:.3f}, {pair[1]:.3f}"
        rows.append([name, f"{found['seed 0'].particles} ({common} of {len(found['seed 0'].movies)} movies in common)", both(errors["default"]),
                     *map(both, pairs), *apart, "yes" if apart[0] < BOUND else "NO"])
        data[name] = {"errors": errors, "searches": {s: as_numbers(f) for s, f in found.items()}}
        say(f"{name}: {errors}")
    header = ["data", "particles searched", "default", *(f"seed {s}" for s in seeds), "apart, all", "first five", f"< {BOUND}, all"]
    return markdown_table(header, rows), data
