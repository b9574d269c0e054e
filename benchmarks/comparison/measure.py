"""Run a program and take wall time, CPU time and peak memory of its whole process tree from the operating system.

This file is also the small program that starts the measured one: the system counts the peak of whoever starts a program as the
program's own, and a benchmark that has simulated movies or solved volumes is larger than what it measures.
"""
from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SAMPLING_S = 0.25


class ProgramFailed(RuntimeError):
    """A program of the comparison did not finish; the text holds the end of its output.

    ``code``: its exit code, negative for the signal that ended it; ``usage``: what it had cost. Both None if it was not started.
    """

    def __init__(self, text: str, code: int | None = None, usage: "Usage | None" = None) -> None:
        super().__init__(text)
        self.code, self.usage = code, usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What one run cost: seconds of wall clock, user and system time, and the peak of resident memory.

    ``load``: the machine's load average of the last minute when the run ended; well above the run's own threads means that
    others were at work and the wall clock says little.
    """

    wall_s: float
    user_s: float
    system_s: float
    peak_GiB: float
    load: float

    @property
    def cpu_s(self) -> float:
        """User and system time."""
        return self.user_s + self.system_s

    def numbers(self) -> dict:
        """What is kept of it."""
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s, "peak_GiB": self.peak_GiB, "load": self.load}


def run_measured(command: list[str], folder: Path, log: Path, threads: int = 1) -> Usage:
    """Run ``command`` in ``folder`` with its output in ``log``; ProgramFailed if it ends with an error.

    Times come from ``wait4``, which counts all children that were waited for. Peak memory is what ``wait4`` says of the
    largest process, or the sampled sum over the process tree (shared pages once) where several processes ran and it is larger.
    It is no less than the some 12 MiB of the interpreter that starts the program.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("r", suffix=".json") as found:
        with open(log, "wb") as output:
            starter = subprocess.run([sys.executable, "-I", "-S", __file__, found.name, *map(str, command)], cwd=folder, env=environment,
                                     stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        if starter.returncode:
            raise ProgramFailed(f"{command[0]} ended with code {starter.returncode} (it was not started); the end of {log}:\n{_tail(log)}")
        numbers = json.load(found)
    code, usage = numbers.pop("code"), Usage(**numbers)
    if code:
        raise ProgramFailed(f"{command[0]} ended with code {code}; the end of {log}:\n{_tail(log)}", code, usage)
    return usage


def _measure(report: str, *command: str) -> None:
    """In the small program: run ``command`` and write exit code and usage to ``report``."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    sampler = _TreeMemory(process.pid)
    sampler.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    sampler.finish()
    Path(report).write_text(json.dumps({
        "code": os.waitstatus_to_exitcode(status), "wall_s": wall, "user_s": usage.ru_utime, "system_s": usage.ru_stime,
        "peak_GiB": max(usage.ru_maxrss * 1024, sampler.peak_bytes) / 2**30, "load": os.getloadavg()[0]}))


class _TreeMemory(threading.Thread):
    """Samples the sum of proportional memory over a process and its descendants; nothing while there is but one process.

    Resident memory would count the pages that a forked child shares with its parent twice.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended = pid, threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._ended.wait(SAMPLING_S):
            tree = process_tree(self._pid)
            if len(tree) > 1:
                self.peak_bytes = max(self.peak_bytes, sum(map(_proportional_bytes, tree)))

    def finish(self) -> None:
        self._ended.set()
        self.join()


def process_tree(pid: int) -> list[int]:
    """A process and its descendants, as far as they still exist."""
    found, open_ = [], [pid]
    while open_:
        current = open_.pop()
        found.append(current)
        for children in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                open_ += [int(child) for child in children.read_text().split()]
            except OSError:  # ended between the listing and the reading
                continue
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # ended meanwhile
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace").replace("\r", "\n")
    return "\n".join(text.splitlines()[-lines:])


if __name__ == "__main__":
    _measure(*sys.argv[1:])
