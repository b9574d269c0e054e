#!/usr/bin/env python3
"""Compare this engine with RELION's relion_motion_refine on simulated movies with known truth.

One command simulates (or takes) a data set, prepares what RELION needs, runs both programs on the same files with the
same number of threads, scores both against the truth and prints one table. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison import compare, extras, relion  # noqa: E402
from comparison.project import Journal, Project  # noqa: E402
from comparison.references import HALVES  # noqa: E402
from comparison.report import write_results  # noqa: E402

SEED = 7        # of simulations, unless another is asked for


def main(argv: list[str] | None = None) -> int:
    """Run one case; returns the exit code."""
    options = _parser().parse_args(argv)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    return {"compare": _compare, "no-motion": _no_motion, "two-species": _two_species, "memory": _memory}[options.case](options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = parser.add_subparsers(dest="case", required=True, metavar="compare | no-motion | two-species | memory")
    for name, text in (("compare", "errors, maps, weights, time and memory of both programs"),
                       ("no-motion", "movies without motion: none may be found, nothing may get worse"),
                       ("two-species", "two species in the same movies: each as good as when alone"),
                       ("memory", "peak memory against the number of movies")):
        case = cases.add_parser(name, help=text, description=text)
        _common(case)
        if name == "compare":
            case.add_argument("--parts", default=",".join(compare.PARTS), help="what to do, of %(default)s")
            case.add_argument("--grid-movies", type=int, default=compare.GRID_MOVIES, help="movies RELION's sigmas are chosen on (default %(default)s)")
            case.add_argument("--sigmas", type=float, nargs=3, help="RELION's sigmas for the full run instead of the grid's best")
            case.add_argument("--repeats", type=int, default=1, help="full runs of each program, alternately")
        if name in ("compare", "no-motion"):
            case.add_argument("--halves", choices=HALVES, default="regularised", help="half-maps both programs get (default %(default)s)")
        if name == "memory":
            case.add_argument("--counts", type=int, nargs="+", default=[3, 12], help="numbers of movies (default 3 12)")
            case.add_argument("--with-relion", action="store_true", help="RELION's too")
    return parser


def _common(case: argparse.ArgumentParser) -> None:
    case.add_argument("out", type=Path, metavar="OUT", help="working folder; the same command goes on where it was stopped")
    case.add_argument("--data", type=Path, metavar="DIR", help="simulated data set to use; none: OUT/data is made")
    case.add_argument("--movies", type=int, help="movies to simulate")
    case.add_argument("--seed", type=int, help=f"seed of the simulation (default {SEED})")
    case.add_argument("--threads", type=int, default=2, help="threads of both programs (default %(default)s)")
    case.add_argument("--redo", nargs="+", default=[], metavar="STEP", help="steps to do again: reference grid relion ours floor maps …")
    case.add_argument("--option", action="append", default=[], metavar="ARG",
                      help="further argument for our command line, such as --option=--passes --option=1")
    case.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default benchmarks/results)")
    case.add_argument("--name", help="name of the result files (default: the case, and the parts if not all are asked for)")


def _project(options, defaults: dict) -> Project:
    """The project on the data set, which is simulated if it is not there; one that differs from what was asked for is refused."""
    data = options.data or options.out / "data"
    asked = {name: value for name, value in (("movies", options.movies), ("seed", options.seed)) if value is not None}
    if options.data is None and not (data / "truth" / "spec.json").exists():
        extras.simulate_data(data, {"seed": SEED, **defaults, **asked, "threads": options.threads}, say)
    project = Project.make(options.out / "project", data)
    for name, value in asked.items():
        if getattr(project.spec, name) != value:
            raise SystemExit(f"{data} was simulated with --{name} {getattr(project.spec, name)}, not {value}: give another folder, or leave out --{name}")
    return project


def say(text: str) -> None:
    """One line to the terminal or log, at once."""
    print(text, flush=True)


def _compare(options) -> int:
    parts = tuple(options.parts.split(","))
    unknown = [part for part in parts if part not in compare.PARTS]
    if unknown:
        raise SystemExit(f"--parts: {', '.join(unknown)} is none of {', '.join(compare.PARTS)}")
    if options.name is None and set(parts) != set(compare.PARTS):
        options.name = "-".join(["compare", *parts])        # the file of all parts stays
    relion.require_relion()
    project = _project(options, {})
    comparison = compare.Comparison(
        project=project, journal=_journal(options, project), threads=options.threads, repeats=options.repeats,
        grid_movies=options.grid_movies,
        halves=options.halves, symmetry=project.spec.symmetry, sigmas=tuple(options.sigmas) if options.sigmas else None,
        extra=tuple(options.option), say=say)
    sections = compare.everything(comparison, say, parts)
    return _write(options, "Against RELION", sections, compare.all_results(comparison, parts))


def _no_motion(options) -> int:
    relion.require_relion()
    project = _project(options, {"motion": "none", "movies": 6})
    case = extras.NoMotion(project, _journal(options, project), options.threads, options.halves, tuple(options.option), say)
    return _write(options, "Movies without motion", *case.sections())


def _two_species(options) -> int:
    project = _project(options, {"species": 2, "movies": 6, "particles": 60})
    case = extras.TwoSpecies(project, _journal(options, project), options.threads, tuple(options.option), say)
    return _write(options, "Two species in the same movies", *case.sections())


def _memory(options) -> int:
    if options.with_relion:
        relion.require_relion()
    project = _project(options, {"movies": max(extras.BENCHMARK_DATA["movies"], *options.counts)})
    case = extras.Memory(project, _journal(options, project), options.threads, tuple(options.counts), options.with_relion,
                         tuple(options.option), say)
    return _write(options, "Peak memory against the number of movies", *case.sections())


def _journal(options, project: Project) -> Journal:
    return Journal(options.out.resolve() / "steps.json", tuple(options.redo)).belongs_to(project)


def _write(options, title, sections, data) -> int:
    path = write_results(options.results, options.name or options.case, title, sections, data)
    say(path.read_text())
    say(f"written: {path} and {path.with_suffix('.json').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
