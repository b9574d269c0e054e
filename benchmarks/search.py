#!/usr/bin/env python3
"""What the search for hyperparameters is worth, on simulated movies whose truth is known.

    python benchmarks/search.py grid OUT     found hyperparameters against the best of a dense grid scored with the truth
    python benchmarks/search.py kinds OUT    six kinds of motion and bursts: rigid, RELION, constant prior, default, found
    python benchmarks/search.py cost OUT     time of the search against polishing and against RELION's --params3
    python benchmarks/search.py seeds OUT    two seeds that draw different movies
    python benchmarks/search.py shakes OUT   true shakes of whole movies: are they taken for errors of the input?

OUT keeps the data sets (simulated once) and RELION's runs. ``kinds`` and ``cost`` need RELION. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.relion import require_relion  # noqa: E402
from comparison.report import write_results  # noqa: E402
from searching import cost, grid, kinds, seeds, shakes  # noqa: E402

TITLES = {"grid": "Search: found against the best of a dense grid", "kinds": "Search: kinds of motion", "cost": "Search: what it costs",
          "seeds": "Search: two seeds", "shakes": "Prior: shakes of whole movies"}


def main(argv: list[str] | None = None) -> int:
    """Run one case; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.case != "kinds" and (options.draw or options.only):
        parser.error("--draw and --only go with kinds alone")
    torch.set_num_threads(options.threads)
    if options.case == "kinds" or (options.case == "cost" and options.training_limit):
        require_relion()
    table, data = _run(options)
    drawn = f"-draw-{options.draw}" if options.draw else ""
    name = "-".join(["search", options.case, *(options.only or ())]) + drawn        # the file of all kinds stays
    path = write_results(options.results, name, TITLES[options.case], [("Errors in Å, bounds as named", table)], data)
    say(path.read_text())
    return 0


def _run(options):
    if options.case == "cost":
        return cost.run(options.out, options.training_movies, options.training_limit, say)
    if options.case == "kinds":
        return kinds.run(options.out, options.movies, say, options.only or (*kinds.KINDS, "bursts"), options.draw)
    return {"grid": grid, "seeds": seeds, "shakes": shakes}[options.case].run(options.out, options.movies, say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=sorted(TITLES))
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the data sets and of RELION's runs")
    parser.add_argument("--movies", type=int, default=3, help="movies of each data set that are scored (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=(*kinds.KINDS, "bursts"), metavar="MOTION",
                        help="kinds: these only, of %(choices)s; their names go into the name of the result files")
    parser.add_argument("--draw", type=int, default=0, metavar="N",
                        help="kinds: other draws of the same kinds of motion: added to the data sets' seeds; needs an OUT of its own (default: %(default)s)")
    parser.add_argument("--training-movies", type=int, default=6, help="cost: movies RELION trains on (default: %(default)s)")
    parser.add_argument("--training-limit", type=int, default=3600, metavar="S", help="cost: CPU seconds RELION may train; 0: not at all (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
    return parser


def say(text: str) -> None:
    """One line to the terminal or log, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
