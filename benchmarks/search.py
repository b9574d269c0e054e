#!/usr/bin/env python3
"""What the search for hyperparameters is worth: trajectory errors with rigid motion, the default prior and what was found.

For every simulated data set (a folder with truth/) and every seed: which family of priors was chosen and by what margins, the verdict, the
errors against the truth, and the CPU time. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.report import markdown_table, write_results  # noqa: E402
from refmotion_plugin.contract import star  # noqa: E402
from refmotion_plugin.contract.spec import JobSpec  # noqa: E402
from refmotion_plugin.engine.simulate.score import damage_weights, trajectory_error  # noqa: E402
from refmotion_plugin.engine.stages import align, calibrate, prepared, tune  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Search on every data set; returns the exit code."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    results = {folder.name: search_case(folder, options) for folder in options.data}
    say("")
    table = results_table(results)
    path = write_results(options.results, options.name, "Search for hyperparameters", [("Errors in Å, all and first five frames", table)], results)
    say(path.read_text())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", metavar="DIR", help="simulated data sets")
    parser.add_argument("--thoroughness", default="balanced", choices=("fast", "balanced", "extensive"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the subset of movies (default: 0 1)")
    parser.add_argument("--target-particles", type=int, default=1000, help="movies are drawn until they hold so many (default: %(default)s)")
    parser.add_argument("--movies", type=int, help="movies of each data set that are used and scored (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
    parser.add_argument("--name", default="search", help="name of the result files")
    return parser


def say(text: str) -> None:
    """One line to the terminal or log, at once."""
    print(text, flush=True)


def search_case(folder: Path, options) -> dict:
    """Everything about one data set."""
    movies, of, job = open_project(folder, options)
    job = calibrate.calibrate(movies, of, job)
    found, seconds = {}, {}
    for seed in options.seeds:
        start = time.process_time()
        found[seed] = tune.tune(movies, of, replace(job, spec=job.spec.model_copy(update={"seed": seed})))
        seconds[seed] = time.process_time() - start
        say(f"{folder.name}, seed {seed}: {found[seed].text}; {seconds[seed]:.0f} s of CPU")
    errors = truth_errors(folder, movies, of, job, {f"seed {s}": f.hyperparameters for s, f in found.items()})
    return {"errors_angstrom": errors, "seeds": {s: dict(
        family=f.family, hyperparameters=asdict(f.hyperparameters), gain=f.gain, gain_error=f.gain_error, worth_it=f.worth_it,
        margins=f.margins, particles=f.particles, trials=len(f.journal), cpu_seconds=seconds[s]) for s, f in found.items()}}


def open_project(folder: Path, options):
    """Movies, their particles and the prepared job of a simulated data set."""
    part = {name: str(folder / file) for name, file in (("particles", "particles.star"), ("half1", "half1.mrc"), ("half2", "half2.mrc"),
                                                        ("mask", "mask.mrc"))}
    spec = JobSpec.build({"inputs": {"movies": str(folder / "MotionCorr" / "corrected_micrographs.star")}, "references": [part],
                          "search": {"thoroughness": options.thoroughness, "target_particles": options.target_particles}})
    micrographs, _ = star.read_corrected_micrographs(spec.inputs.movies)
    movies = [star.read_movie_metadata(m.metadata_star, m.name) for m in micrographs][:options.movies]
    particles = star.read_particles(spec.references[0].particles, 0, movies[0].original_pixel_angstrom * movies[0].binning)
    table = particles.table
    job = prepared.prepare(spec, [particles], "cpu")
    return movies, lambda movie: table[np.flatnonzero(table.micrograph == movie.micrograph)], job


def truth_errors(folder: Path, movies, of, job, hypers: dict) -> dict:
    """{variant: (all frames, first five)} rms over the movies, in A; a variant equal to another is not computed twice."""
    variants = {"rigid": None, "default": job.hyperparameters, **hypers}
    weights, rows = damage_weights(folder / "truth"), {name: [] for name in variants}
    for movie in movies:
        view = align.view_movie(movie, of(movie), job)
        with np.load(folder / "truth" / f"{Path(movie.micrograph).stem}.npz") as file:
            truth = file["displacement_yx_angstrom"]
        known = {}
        for name, hyper in variants.items():
            if hyper not in known:
                deviation = 0.0
                if hyper is not None:
                    fit, _ = align.estimate_deviation(view, job.amplitudes, replace(job, hyperparameters=hyper))
                    deviation = fit.deviation[0].cpu().numpy()
                error = trajectory_error(view.initial_yx_angstrom + deviation, truth, weights)
                known[hyper] = (error.all_frames, error.first_five)
            rows[name].append(known[hyper])
    return {name: [float(v) for v in np.sqrt(np.square(values).mean(axis=0))] for name, values in rows.items()}


def results_table(results: dict) -> str:
    """One row per data set and seed."""
    header = ["data", "seed", "rigid", "default", "found", "found / default", "prior chosen", "default's margin", "gain over rigid",
              "verdict", "CPU s"]
    rows = []
    for name, case in results.items():
        errors = case["errors_angstrom"]
        rigid, default = errors["rigid"], errors["default"]
        for seed, one in case["seeds"].items():
            found = errors[f"seed {seed}"]
            both = lambda pair: f"{pair[0]:.3f}, {pair[1]:.3f}"
            rows.append([name, seed, both(rigid), both(default), both(found), both([f / d for f, d in zip(found, default)]), one["family"],
                         "{:.0f} ± {:.0f}".format(*one["margins"]["default prior"]), f"{one['gain']:.0f} ± {one['gain_error']:.0f}",
                         "gain" if one["worth_it"] else "no gain", f"{one['cpu_seconds']:.0f}"])
    return markdown_table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
