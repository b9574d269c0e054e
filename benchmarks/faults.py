#!/usr/bin/env python3
"""What breaks a job: kills, surroundings that fail, damaged files. Each command prints its counts; see benchmarks/README.md."""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.report import markdown_table, write_results  # noqa: E402
from reliability import fuzz, kills, surroundings  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns 0 if nothing was lost."""
    options = _parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    return options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, command, text in (("kills", kills_command, "kill -9 of job, worker, scheduler at random moments, then resume"),
                                ("surroundings", surroundings_command, "full disk, read-only folders, hanging file system, clocks, two runs"),
                                ("fuzz", fuzz_command, "damaged movies, STAR, MRC, NPZ, JSON and text files")):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("out", type=Path, metavar="OUT", help="folder to work in")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
        sub.set_defaults(command=command)
        if name == "kills":
            sub.add_argument("--times", type=int, default=100, help="kills in all (default: %(default)s)")
            sub.add_argument("--victims", nargs="+", choices=tuple(kills.VICTIMS), default=tuple(kills.VICTIMS), help="who is killed (default: all)")
            sub.add_argument("--name", default="kills", help="name of the result files")
        if name == "surroundings":
            sub.add_argument("--times", type=int, default=20, help="disks that are full at a random moment (default: %(default)s)")
        if name == "fuzz":
            sub.add_argument("--cases", type=int, default=10000, help="damaged files read (default: %(default)s)")
            sub.add_argument("--programs", type=int, default=48, help="damaged files given to the program besides (default: %(default)s)")
            sub.add_argument("--first", type=int, default=0, help="number of the first case of each kind of file")
            sub.add_argument("--only", default="", help="kinds of files with this in their name")
    return parser


def say(text: str) -> None:
    """One line to the terminal or log, at once."""
    print(text, flush=True)


def kills_command(options) -> int:
    """``kills``."""
    start = time.monotonic()
    found = kills.run(options.out.resolve(), options.times, options.seed, say, tuple(options.victims))
    tables = [("Where they hit", markdown_table(["killed", "times", "stage at the kill"], found.table())),
              ("What they cost", markdown_table(["", ""], [
                  ["kills", str(sum(found.where.values()))], ["finished jobs compared with the undisturbed one", str(found.rounds)],
                  ["files compared, bit for bit", str(found.rounds * len(found.expected))],
                  ["faults (files that differ or are left over, stages done twice, runs that end without a reason)", str(len(found.faults))],
                  ["movie stages needed / done", f"{found.needed} / {found.done}"], ["minutes", f"{(time.monotonic() - start) / 60:.1f}"]]))]
    values = {"kills": sum(found.where.values()), "rounds": found.rounds, "faults": found.faults, "needed": found.needed, "done": found.done,
              "where": [[*key, count] for key, count in sorted(found.where.items())], "seed": options.seed}
    path = write_results(options.results, options.name, "Kills at random moments, then resume", tables, values)
    say(path.read_text())
    return 1 if found.faults else 0


def surroundings_command(options) -> int:
    """``surroundings``."""
    kills.import_all()
    found = surroundings.Surroundings(options.out.resolve(), options.seed, say)
    found.all(options.times)
    table = markdown_table(["what fails", "times", "the run, and the outputs after the same command again", "what the run said last"], found.rows)
    path = write_results(options.results, "surroundings", "Surroundings that fail", [("What happened", table)], {"rows": found.rows, "faults": found.faults})
    say(path.read_text())
    return 1 if found.faults else 0


def fuzz_command(options) -> int:
    """``fuzz``."""
    start = time.monotonic()
    torch.set_num_threads(1)
    counts, faults = fuzz.run(options.out.resolve(), options.cases, say, options.first, options.only)
    more, more_faults = fuzz.through_the_program(options.out.resolve(), options.programs, say)
    tables = [(title, _outcomes(found)) for title, found in (("Files read", counts), ("Given to the program", more)) if found]
    total, faults = sum(counts.values()) + sum(more.values()), faults + more_faults
    tables.append(("In all", markdown_table(["", ""], [["cases", str(total)], ["bad", str(len(faults))], ["minutes", f"{(time.monotonic() - start) / 60:.1f}"]])))
    values = {"cases": total, "faults": faults, "counts": [[*key, count] for key, count in sorted((counts + more).items())], "first": options.first}
    path = write_results(options.results, "fuzz", "Damaged files", tables, values)
    say(path.read_text())
    return 1 if faults else 0


def _outcomes(counts) -> str:
    outcomes = (fuzz.FINE, fuzz.REFUSED, fuzz.BAD)
    names = sorted({name for name, _ in counts})
    rows = [[name, *[str(counts[name, outcome]) for outcome in outcomes]] for name in names]
    rows.append(["all", *[str(sum(counts[name, outcome] for name in names)) for outcome in outcomes]])
    return markdown_table(["damaged", "read (the damage does not show, or is in pixels)", "refused with a sentence", "bad"], rows)


if __name__ == "__main__":
    sys.exit(main())
