"""Surroundings that fail: a full disk, read-only folders, a file system that hangs, clocks that jump, a second run in the same folder."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from . import tiny
from .kills import Kills

EXIT_INPUT, EXIT_FAILED_MOVIES = 2, 3
BLOCK = 4096


class Surroundings(Kills):
    """Runs under each fault; afterwards the job is finished undisturbed and compared, as after kills."""

    def __init__(self, folder: Path, seed: int, say):
        super().__init__(folder, seed, say)
        self.rows = []

    def all(self, times: int) -> None:
        """Every kind of fault, those that depend on a moment ``times`` times."""
        self.undisturbed()
        for title, scenario, count in (("disk full at a random moment", self.full_disk, times), ("inputs read-only", self.read_only_inputs, 1),
                                       ("output folder read-only", self.read_only_output, 1), ("a movie's file system hangs", self.hanging, 1),
                                       ("clock in 2035, killed, resumed with a clock in 1999; movies dated 1970 and 2099", self.clocks, 1),
                                       ("a second run in the folder", self.second_run, 1)):
            faults = len(self.faults)
            said = ""
            for _ in range(count):
                said = scenario() or said
            self.rows.append([title, str(count), "ok" if len(self.faults) == faults else "; ".join(self.faults[faults:]), said])
            self.say("%s: %s" % (title, self.rows[-1][2]))

    def expect(self, code: int, wanted: int, words: str, title: str) -> str:
        """Note a fault unless a run ended with a code and said something; returns what it said last."""
        said = tiny.last_line(self.log)
        if code != wanted or words not in self.log.read_text() or "Traceback" in self.log.read_text():
            self.faults.append(f"{title}: exit code {code}, said {said!r}")
        return said.replace(str(self.folder), "…")

    def _run(self, *more: str, prepare=None) -> int:
        """One run in a fork; ``prepare()`` is called there first."""
        process = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "1", *more), self.log, prepare)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    # ---- scenarios --------------------------------------------------------------------------------------------------------

    def full_disk(self) -> str:
        """On a file system of its own that is too small; then it is made larger and the same command goes on."""
        self.new_round()
        self.job.mkdir()
        size = self.rng.randint(3, 100) * BLOCK
        if not _mounted("tmpfs", self.job, f"size={size}"):
            return "not tried: no right to mount"
        try:
            said = self.expect(self._run(), EXIT_INPUT, "no space left", f"disk of {size >> 10} KiB")
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.job)], check=True)
            self.finish("full disk")
        finally:
            subprocess.run(["umount", "-l", str(self.job)], check=True)
        return said

    def read_only_inputs(self) -> str:
        """The whole data set in a read-only mount."""
        self.new_round()
        plain, view = self.source, self.folder / "data_view"
        view.mkdir(exist_ok=True)
        if not _mounted("none", view, "bind", plain):
            return "not tried: no right to mount"
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(view)], check=True)
            code = self._with_source(view)
            if code:
                self.faults.append(f"read-only inputs: exit code {code}: {tiny.last_line(self.log)}")
        finally:
            subprocess.run(["umount", "-l", str(view)], check=True)
        found = {name: value for name, value in tiny.outputs(self.job).items() if name.endswith((".mrcs", ".npz"))}
        if found != {name: value for name, value in self.expected.items() if name in found} or not found:
            self.faults.append("read-only inputs: outputs differ")
        return ""

    def _with_source(self, source: Path) -> int:
        process = tiny.start_fork(tiny.arguments(self.job, source, "--threads", "1"), self.log)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def read_only_output(self) -> str:
        """The folder of the job in a read-only mount."""
        self.new_round()
        self.job.mkdir()
        if not _mounted("tmpfs", self.job, "ro"):
            return "not tried: no right to mount"
        try:
            return self.expect(self._run(), EXIT_INPUT, "cannot be written", "read-only output")
        finally:
            subprocess.run(["umount", "-l", str(self.job)], check=True)

    def hanging(self) -> str:
        """From the first stage on, reading one movie never comes back (the calibration, which stays as it is, has had it).

        Without a disk for temporary files, on which the frames that the calibration decoded would wait: then nothing is read again.
        """
        self.new_round()
        victim, begun = sorted(p for p in self.source.rglob("*.tif*"))[1], self.job / "progress.json"

        def hang():
            name = os.fsencode(victim)

            def hanging(read):
                def reading(file, *where):
                    if begun.exists() and os.readlink(b"/proc/self/fd/%d" % file) == name:
                        threading.Event().wait()
                    return read(file, *where)
                return reading

            os.pread, os.preadv = hanging(os.pread), hanging(os.preadv)

        said = self.expect(self._run("--read-timeout", "1", "--scratch", "0", prepare=hang), EXIT_FAILED_MOVIES, "could not be read within 1 s", "hanging movie")
        self.finish("hanging movie")
        return said

    def clocks(self) -> str:
        """The time of the program (libfaketime) and of files jumps."""
        if not shutil.which("faketime"):
            return "not tried: faketime is not installed"
        self.new_round()
        movies = sorted(p for p in self.source.rglob("*.tif*"))
        for path, moment in zip(movies, (0, 4e9)):
            os.utime(path, (moment, moment))
        self.undisturbed()                                  # the dates are part of the fingerprints in the markers
        self.new_round()
        for moment, ends in (("2035-01-01 00:00:00", False), ("1999-12-31 23:59:58", True)):
            command = ["faketime", "-f", "@" + moment, "env", "DONT_FAKE_MONOTONIC=1", os.sys.executable, "-m", "refmotion_plugin.engine",
                       *tiny.arguments(self.job, self.source, "--threads", "1")]
            with open(self.log, "a") as file:
                run = subprocess.Popen(command, stdout=file, stderr=file, env=dict(os.environ, OMP_NUM_THREADS="1"), start_new_session=True)
            if not ends:
                while run.poll() is None and "polish" not in {stage for _, stage, _ in tiny.done_events(self.job)}:
                    time.sleep(0.01)
                os.killpg(run.pid, signal.SIGKILL)
            code = run.wait()
        said = self.expect(code, 0, "particles written", "clocks")
        self.check("clocks")
        return said

    def second_run(self) -> str:
        """While one run works, another starts; it must be refused and the first must not notice."""
        self.new_round()
        other = self.folder / "second.txt"
        other.write_text("")
        first = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "1"), self.log)
        while tiny.stage_now(self.job, 0.0) == "before the first movie":
            time.sleep(0.005)
        second = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "1"), other)
        code = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])
        said = tiny.last_line(other)
        if code != EXIT_INPUT or f"process {first} on" not in said:
            self.faults.append(f"second run: exit code {code}, said {said!r}")
        if os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]):
            self.faults.append("second run: the first run failed: " + tiny.last_line(self.log))
        self.check("second run")
        return said.replace(str(self.folder), "…")


def _mounted(kind: str, place: Path, options: str, source="tmpfs") -> bool:
    return subprocess.run(["mount", "-t", kind, "-o", options, str(source), str(place)], capture_output=True).returncode == 0
