"""Run a program and take wall time, CPU time and peak memory of its whole process tree from the operating system."""
from __future__ import annotations

import dataclasses
import os
import subprocess
import threading
import time
from pathlib import Path

SAMPLING_S = 0.25
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProgramFailed(RuntimeError):
    """A program of the comparison did not finish; the text holds the end of its output."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What one run cost: seconds of wall clock, user and system time, and the peak of resident memory."""

    wall_s: float
    user_s: float
    system_s: float
    peak_GiB: float

    @property
    def cpu_s(self) -> float:
        """User and system time."""
        return self.user_s + self.system_s


def run_measured(command: list[str], folder: Path, log: Path, threads: int = 1) -> Usage:
    """Run ``command`` in ``folder`` with its output in ``log``; ProgramFailed if it ends with an error.

    Times come from ``wait4``, which counts all children that were waited for. Peak memory is the larger of what ``wait4``
    says of the largest process and of sampled sums over the process tree.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], cwd=folder, env=environment, stdout=output,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        sampler = _TreeMemory(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.finish()
    if process.returncode:
        raise ProgramFailed(f"{command[0]} ended with code {process.returncode}; the end of {log}:\n{_tail(log)}")
    peak = max(usage.ru_maxrss * 1024, sampler.peak_bytes) / 2**30
    return Usage(wall_s=wall, user_s=usage.ru_utime, system_s=usage.ru_stime, peak_GiB=peak)


class _TreeMemory(threading.Thread):
    """Samples the sum of resident memory over a process and its descendants; pages they share count more than once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended = pid, threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._ended.wait(SAMPLING_S):
            self.peak_bytes = max(self.peak_bytes, sum(map(_resident_bytes, process_tree(self._pid))))

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


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):  # ended meanwhile
        return 0


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace").replace("\r", "\n")
    return "\n".join(text.splitlines()[-lines:])
