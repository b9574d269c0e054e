#!/usr/bin/env python3
"""What breaks a job: kills, surroundings that fail, damaged files. Each command prints its counts; see benchmarks/README.md."""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.report import markdown_table, write_results  # noqa: E402
from reliability import kills  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns 0 if nothing was lost."""
    options = _parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    return options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, command, text in (("kills", kills_command, "kill -9 of job, worker, scheduler at random moments, then resume"),):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("out", type=Path, metavar="OUT", help="folder to work in")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
        sub.set_defaults(command=command)
        if name == "kills":
            sub.add_argument("--times", type=int, default=100, help="kills in all (default: %(default)s)")
    return parser


def say(text: str) -> None:
    """One line to the terminal or log, at once."""
    print(text, flush=True)


def kills_command(options) -> int:
    """``kills``."""
    start = time.monotonic()
    found = kills.run(options.out.resolve(), options.times, options.seed, say)
    tables = [("Where they hit", markdown_table(["killed", "times", "stage at the kill"], found.table())),
              ("What they cost", markdown_table(["", ""], [
                  ["kills", str(sum(found.where.values()))], ["finished jobs compared with the undisturbed one", str(found.rounds)],
                  ["files compared, bit for bit", str(found.rounds * len(found.expected))], ["differences", str(len(found.faults))],
                  ["movie stages needed / done", f"{found.needed} / {found.done}"], ["minutes", f"{(time.monotonic() - start) / 60:.1f}"]]))]
    values = {"kills": sum(found.where.values()), "rounds": found.rounds, "faults": found.faults, "needed": found.needed, "done": found.done,
              "where": [[*key, count] for key, count in sorted(found.where.items())], "seed": options.seed}
    path = write_results(options.results, "kills", "Kills at random moments, then resume", tables, values)
    say(path.read_text())
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
