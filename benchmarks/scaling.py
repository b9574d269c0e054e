#!/usr/bin/env python3
"""Throughput with one and two CPU workers, and a model on paper of several GPUs and a parallel file system; see benchmarks/README.md."""
from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.report import markdown_table, write_results  # noqa: E402
from reliability import capacity, tiny  # noqa: E402
from refmotion_plugin.contract.results import read_status  # noqa: E402
from refmotion_plugin.engine.simulate import SimulationSpec, simulate  # noqa: E402

DATA = SimulationSpec(movies=10, particles=80, frames=20, size_yx=(1024, 1024), box=128, pixel_angstrom=1.6, seed=5)


def main(argv: list[str] | None = None) -> int:
    """Both parts; returns the exit code."""
    options = _parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    sections, data = [], {}
    if not options.only_model:
        rows = workers(options.out.resolve(), options.repeats)
        sections.append(("Worker processes, one thread each", markdown_table(
            ["workers", "movies per hour, steady", "whole command, s", "steady rate / one process", "same outputs"], rows)))
        data["workers"] = rows
    if not options.only_workers:
        given = capacity.Assumptions(**{f.name: getattr(options, f.name) for f in fields(capacity.Assumptions)})
        rows, values = capacity.rows(given, say)
        sections += [("Model on paper: seconds per movie that each part of the machine needs", markdown_table(capacity.HEADER, rows)),
                     ("Assumed, not measured", markdown_table(["", ""], [[name.replace("_", " "), value] for name, value in asdict(given).items()]))]
        data["model"] = {"assumed": asdict(given), "measured": values}
    path = write_results(options.results, "scaling", "Several workers and GPUs", sections, data)
    say(path.read_text())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to work in")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each number of workers, alternately; the best counts (default: %(default)s)")
    parser.add_argument("--only-model", action="store_true", help="leave the workers out")
    parser.add_argument("--only-workers", action="store_true", help="leave the model out")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
    assumed = parser.add_argument_group("assumptions of the model")
    for field in fields(capacity.Assumptions):
        assumed.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), default=field.default, help="default: %(default)s")
    return parser


def say(text: str) -> None:
    """One line to the terminal or log, at once."""
    print(text, flush=True)


def workers(out: Path, repeats: int) -> list[list]:
    """Rows of the table: one process, then two workers."""
    if not (out / "data" / "particles.star").exists():
        simulate(out / "data", DATA)
    found = {1: [], 2: []}
    for _ in range(repeats):
        for count in found:
            found[count].append(_one_run(out, count))
            say(f"{count} workers: {found[count][-1][0]:.0f} movies per hour, {found[count][-1][1]:.1f} s")
    best = {count: (max(r[0] for r in runs), min(r[1] for r in runs)) for count, runs in found.items()}
    same = all(run[2] == found[1][0][2] for runs in found.values() for run in runs)
    return [[count, round(rate), seconds, rate / best[1][0], same] for count, (rate, seconds) in best.items()]


def _one_run(out: Path, count: int) -> tuple[float, float, dict]:
    """(movies per hour between the first and the last movie, seconds of the whole command, checksums) of one run."""
    job = out / "job"
    shutil.rmtree(job, ignore_errors=True)
    begin = time.monotonic()
    process = tiny.start(tiny.arguments(job, out / "data", "--threads", str(count), *(["--workers", str(count)] if count > 1 else [])), out / "log.txt")
    if process.wait():
        raise RuntimeError("the run failed: " + tiny.last_line(out / "log.txt"))
    seconds = time.monotonic() - begin
    return _steady_rate(job, count), seconds, tiny.outputs(job)


def _steady_rate(job: Path, count: int) -> float:
    """Movie stages that ended after every worker's first, over the time that took, as whole movies (two stages) per hour.

    A worker's first movie of the first stage pays for its start; stages one after the other are added up.
    """
    stages, seconds = 0, 0.0
    for stage in ("align", "polish"):
        times = sorted(e["time"] for e in read_status(job / "status.jsonl") if e.get("event") == stage and e.get("state") == "done")
        stages += len(times) - count
        seconds += times[-1] - times[count - 1]
    return 0.5 * stages / seconds * 3600.0


if __name__ == "__main__":
    sys.exit(main())
