#!/usr/bin/env python3
"""How honest are the trajectories' standard deviations? Share of true errors within one and two of them: about 68 % and 95 % are right.

    python benchmarks/uncertainty.py OUT             movies of the search's data sets below OUT, with the default prior and with what a search finds
    python benchmarks/uncertainty.py --job JOB TRUTH a finished job on simulated movies and the truth folder of the simulation

Errors are those of whole displacements from the catalogue position, each particle's constant included, as the standard deviations are.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.report import markdown_table, write_results  # noqa: E402
from refmotion_plugin.contract.results import JobResults  # noqa: E402
from refmotion_plugin.engine.stages import align  # noqa: E402
from searching.data import data_set  # noqa: E402
from searching.errors import true_displacement  # noqa: E402
from searching.search import searched  # noqa: E402

SETS = ("bursts", "gentle", "doming", "jitter", "steps", "none")
PARTS = {"all frames": slice(None), "first five": slice(0, 5), "last five": slice(-5, None)}
HEADER = ["frames", "within 1 sd", "within 2 sd", "rms error per axis, Å", "rms sd, Å"]


def coverage(tracks, truths):
    """Rows (frames, share within 1 sd, share within 2 sd, rms error per axis in A, rms sd in A) of Trajectories and the true displacements of all
    particles of their movies. Particles may have been left out; the list has as many of each movie, movie by movie."""
    truths = [true[track.row % len(true)] for track, true in zip(tracks, truths)]
    error = np.concatenate([track.displacement_yx_angstrom - true for track, true in zip(tracks, truths)])
    sd = np.concatenate([np.broadcast_to(track.deviation_sd_angstrom[..., None], true.shape) for track, true in zip(tracks, truths)])
    rms = lambda values: float(np.sqrt(np.mean(np.square(values))))
    return [(name, *(float(np.mean(np.abs(error[:, part]) < n * sd[:, part])) for n in (1, 2)), rms(error[:, part]), rms(sd[:, part]))
            for name, part in PARTS.items()]


def of_job(job, truth: Path):
    """Rows of a finished job."""
    results = JobResults(job)
    tracks = [results.trajectories(key) for key in results.aligned_keys()]
    truths = []
    for track in tracks:
        with np.load(truth / (Path(track.micrograph).stem + ".npz")) as known:
            truths.append(known["displacement_yx_angstrom"])
    return coverage(tracks, truths)


def of_set(out: Path, name: str, movies_scored: int):
    """{prior: rows} of a data set of the search's benchmark."""
    folder = data_set(out, name)
    movies, of, job, found, _ = searched(folder, 1000)
    movies, rows = movies[:movies_scored], {}
    truths = [true_displacement(folder, movie) for movie in movies]
    for prior, hyper in (("default", job.hyperparameters), ("found", found.hyperparameters)):
        tracks = [align.align_movie(movie, of(movie), replace(job, hyperparameters=hyper)).trajectories for movie in movies]
        rows[prior] = coverage(tracks, truths)
    return rows


def main() -> int:
    """Print the table, and write it unless it is one job's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="folder of the data sets, as for search.py")
    parser.add_argument("--job", nargs=2, type=Path, metavar=("JOB", "TRUTH"))
    parser.add_argument("--movies", type=int, default=3, help="movies of each data set that are scored (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
    options = parser.parse_args()
    if (options.job is None) == (options.out is None):
        parser.error("give either OUT or --job JOB TRUTH")
    if options.job:
        print(markdown_table(HEADER, of_job(*options.job)))
        return 0
    torch.set_num_threads(1)
    data = {}
    for name in SETS:
        data[name] = of_set(options.out, name, options.movies)
        print(name, data[name], flush=True)
    table = markdown_table(["motion", "prior", *HEADER], [[name, prior, *row] for name, found in data.items() for prior, rows in found.items() for row in rows])
    print(write_results(options.results, "uncertainty", "Standard deviations of trajectories", [("Share of errors within them", table)], data).read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
