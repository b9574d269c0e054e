"""A job that takes a second: its data, the process that runs it, and what its outputs are."""
from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from refmotion_plugin.contract.results import read_status
from refmotion_plugin.engine.simulate import SimulationSpec, simulate

DATA = SimulationSpec(movies=3, particles=6, frames=6, size_yx=(256, 288), box=64, pixel_angstrom=2.4, contrast_scale=1.5, seed=3,
                      reference_resolution_angstrom=8.0)
TELLS_OF_THE_RUN = ("status.jsonl", "progress.json", "engine.log", "running.lock", "report.html", "job.json")     # what it did, not what it found


def data(folder: Path) -> Path:
    """Simulate the data set, unless it is there."""
    if not (folder / "particles.star").exists():
        simulate(folder, DATA)
    return folder


def arguments(job: Path, source: Path, *more: str) -> list[str]:
    """Arguments of ``refmotion`` that run the job."""
    return ["run", str(job), "--movies", str(source / "MotionCorr" / "corrected_micrographs.star"), "--particles", str(source / "particles.star"),
            "--half1", str(source / "half1.mrc"), "--half2", str(source / "half2.mrc"), "--mask", str(source / "mask.mrc"), "--device", "cpu", *more]


def start_fork(job_arguments: list[str], output: Path, prepare=None) -> int:
    """Run ``refmotion`` in a fork of this process, where everything is imported already, without the report's figures, which take
    longer than such a job; returns its process id. ``prepare()`` is called in the fork first."""
    from refmotion_plugin.engine import cli, report
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        with open(output, "a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        report.write_report = lambda results: None
        if prepare is not None:
            prepare()
        os._exit(cli.main(job_arguments))
    return process


def start(job_arguments: list[str], output: Path, **environment: str) -> subprocess.Popen:
    """Run ``refmotion`` as a program."""
    with open(output, "a") as file:
        return subprocess.Popen([sys.executable, "-m", "refmotion_plugin.engine", *job_arguments], stdout=file, stderr=file,
                                env=dict(os.environ, OMP_NUM_THREADS="1", **environment))


def kill_after(process: int, seconds: float) -> bool:
    """Let a child live for ``seconds``, then kill -9; returns whether it was still there. Either way it is waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def ended(process: int) -> bool:
    """Whether a child has ended; it is left to be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def children(process: int) -> list[int]:
    """Child processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(path.parent.name))
        except (OSError, ValueError):
            continue
    return found


def outputs(job: Path) -> dict[str, str]:
    """File -> SHA-256 of everything that a job found."""
    files = sorted(p for p in job.rglob("*") if p.is_file() and p.name not in TELLS_OF_THE_RUN and "figures" not in p.parts)
    return {str(p.relative_to(job)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def done_events(job: Path) -> Counter:
    """(movie, stage, fingerprint) -> how often it was done, of all runs in this folder."""
    return Counter((e["movie"], e["event"], e["mark"]) for e in read_status(job / "status.jsonl") if e.get("state") == "done")


def stage_now(job: Path, since: float) -> str:
    """Where a run that began at ``since`` (time.time) was when it was killed, as far as it had said."""
    try:
        told = (job / "progress.json").stat().st_mtime > since
        found = json.loads((job / "progress.json").read_text())
    except (OSError, ValueError):
        told = False
    if not told:
        return "before the first movie"
    return found["stage"] if found["done"] < found["total"] else "after " + found["stage"]


def last_line(output: Path) -> str:
    """What a program said last."""
    lines = output.read_text().strip().splitlines() if output.exists() else []
    return re.sub(r"\s+", " ", lines[-1]) if lines else ""
