#!/usr/bin/env python3
"""What a movie costs: RELION, this engine and the floor over threads, particles per movie and boxes, and how our cost grows.

One command simulates the data sets it needs, runs both programs and the floor on the same files, and prints the tables. Finished steps are
kept in OUT/steps.json: the same command goes on where it was stopped, --redo does steps again. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison import cost, relion  # noqa: E402
from comparison.project import Journal  # noqa: E402
from comparison.report import write_results  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing, print and write the tables."""
    options = _parser().parse_args(argv)
    relion.require_relion()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    journal = Journal(options.out.resolve() / "steps.json", tuple(options.redo))
    settings = {"frames": options.frames, "counts": options.counts, **{k: list(v) if isinstance(v, tuple) else v for k, v in cost.BASE.items()}}
    if journal.step("settings", lambda: settings) != settings:
        raise SystemExit(f"{options.out} holds results of other settings: give another working folder")
    cases = tuple(dict.fromkeys((cost.PLAIN, *options.cases)))
    measured = cost.Cost(folder=options.out.resolve(), journal=journal, threads=tuple(options.threads), frames=options.frames,
                         counts=tuple(options.counts), relion_counts=tuple(options.relion_counts), cases=cases, turns=options.turns, say=_say)
    rows, growth = measured.rows(), measured.growth()
    sections = [("Each further movie", cost.movie_table(rows)), ("Whole jobs", cost.job_table(rows)),
                *((f"Growth with {unit}, ours, one thread", cost.growth_table(points, unit)) for unit, points in growth.items())]
    path = write_results(options.results, options.name, "Cost per movie", sections,
                         {"settings": settings, "relion_counts": options.relion_counts, "turns": options.turns, "rows": rows, "growth": growth})
    cost.plot(path.with_suffix(".png"), rows, growth)
    _say(path.read_text())
    _say(f"written: {path}, {path.with_suffix('.json').name} and {path.with_suffix('.png').name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="working folder")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of all programs (default 1 2)")
    parser.add_argument("--cases", nargs="*", choices=list(cost.CASES), default=list(cost.CASES), help="besides %s (default: all)" % cost.PLAIN)
    parser.add_argument("--frames", type=int, default=16, help="frames of the movies (default %(default)s)")
    parser.add_argument("--counts", type=int, nargs=2, default=[4, 8], help="movies of our runs (default 4 8)")
    parser.add_argument("--relion-counts", type=int, nargs=2, default=[2, 8], help="movies of RELION's runs (default 2 8: the slope between one and two is smaller than its error)")
    parser.add_argument("--turns", type=int, default=1, help="how often all programs are run, by turns; medians are printed (default %(default)s)")
    parser.add_argument("--redo", nargs="+", default=[], metavar="STEP", help="steps to do again: ours relion floor, or 'ours box 400' …")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files")
    parser.add_argument("--name", default="cost", help="name of the result files (default %(default)s)")
    return parser


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
