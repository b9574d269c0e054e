"""kill -9 of the job, of a worker, of the scheduler, at random moments; the outputs after resume against those of an undisturbed run."""
from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import distributed
import torch

from . import tiny

EXIT_INPUT, EXIT_FAILED_MOVIES = 2, 3


class Kills:
    """A hundred kills and what they cost. ``say`` prints a line."""

    def __init__(self, folder: Path, seed: int, say):
        self.folder, self.say, self.rng = folder, say, random.Random(seed)
        self.source, self.job, self.log = tiny.data(folder / "data"), folder / "job", folder / "log.txt"
        self.where, self.faults, self.rounds, self.done, self.needed = Counter(), [], 0, 0, 0
        self.expected, self.seconds, self.begin = None, 0.0, 0.0

    def undisturbed(self) -> None:
        """The run that all others are held against, twice: what one run gives is what the other gives."""
        runs = []
        for _ in range(2):
            shutil.rmtree(self.job, ignore_errors=True)
            start = time.monotonic()
            process = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "1"), self.log)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            self.seconds = time.monotonic() - start
            if code:
                raise RuntimeError(f"the undisturbed run ended with {code}: {tiny.last_line(self.log)}")
            runs.append(tiny.outputs(self.job))
        if runs[0] != runs[1]:
            raise RuntimeError("two undisturbed runs differ: " + ", ".join(_differences(*runs)))
        self.expected, self.events = runs[0], len(tiny.done_events(self.job))
        self.say(f"undisturbed: {len(self.expected)} files, {self.events} movie stages, {self.seconds:.1f} s")

    def check(self, kind: str) -> None:
        """The finished job against the undisturbed one."""
        found, events = tiny.outputs(self.job), tiny.done_events(self.job)
        twice = [f"{movie} {stage}" for (movie, stage, _), count in events.items() if count > 1]
        left = [p.name for p in self.job.rglob(".*") if p.is_file()]
        wrong = _differences(self.expected, found) + [f"done twice: {t}" for t in twice] + [f"left behind: {name}" for name in left]
        self.rounds, self.done, self.needed = self.rounds + 1, self.done + sum(events.values()), self.needed + len(events)
        if wrong:
            self.faults.append(f"{kind}: " + "; ".join(wrong))
            self.say("FAULT " + self.faults[-1])

    def new_round(self) -> None:
        """An empty job folder."""
        shutil.rmtree(self.job, ignore_errors=True)
        self.log.write_text("")

    def finish(self, kind: str, *more: str) -> None:
        """Run undisturbed to the end and check."""
        for _ in range(2):                              # a movie whose worker died twice is failed, and done by the same command again
            process = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "1", *more), self.log)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if code != EXIT_FAILED_MOVIES:
                break
        if code:
            self.faults.append(f"{kind}: the resumed run ended with {code}: {tiny.last_line(self.log)}")
            self.say("FAULT " + self.faults[-1])
        self.check(kind)

    # ---- the three victims ------------------------------------------------------------------------------------------------

    def parents(self, times: int) -> None:
        """Kill the job itself, one to four times before it may finish."""
        left = times
        while left:
            self.new_round()
            for _ in range(min(left, self.rng.randint(1, 4))):
                self.begin = time.time()
                process = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "1"), self.log)
                if self.rng.random() < 0.6:                 # else the checks before the first movie get most of them
                    while tiny.stage_now(self.job, self.begin) == "before the first movie" and not tiny.ended(process):
                        time.sleep(0.002)
                if tiny.kill_after(process, self.rng.uniform(0.0, 0.8 * self.seconds)):
                    self._count("job")
                    left -= 1
            self.finish("job")

    def workers(self, times: int) -> None:
        """Kill one of two worker processes from the first stage on, also while they start, one to four times in a run; the job is not
        touched. It may say that workers cannot be started, if that happened twice, or that a movie failed."""
        left = times
        while left:
            self.new_round()
            self.begin = time.time()
            run = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "2", "--workers", "2"), self.log)
            while left and self.rng.random() < 0.75 and self._kill_a_worker(run):
                left -= 1
            self._ended("worker", run, (0, EXIT_FAILED_MOVIES), "cannot be started")
            self.finish("worker")

    def _kill_a_worker(self, run: int) -> bool:
        """Wait until a stage has begun and there are two workers, then a moment, then kill one."""
        while tiny.stage_now(self.job, self.begin) == "before the first movie" or len(_workers_of(run)) < 2:
            if tiny.ended(run):
                return False
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0.0, 1.5 * self.seconds))
        victims = _workers_of(run)
        if tiny.ended(run) or not victims:
            return False
        self._count("worker")
        os.kill(self.rng.choice(victims), signal.SIGKILL)
        return True

    def _ended(self, victim: str, process: int, allowed, *or_said: str) -> None:
        """Note a fault unless the run ended with one of these codes, or could not go on and said why."""
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code not in allowed and not (code == EXIT_INPUT and any(words in tiny.last_line(self.log) for words in or_said)):
            self.faults.append(f"{victim}: the run ended with {code}: {tiny.last_line(self.log)}")
            self.say("FAULT " + self.faults[-1])

    def schedulers(self, times: int) -> None:
        """Kill a scheduler that was started apart, one to three times; its worker is left alone and may outlive the run it worked for."""
        left = times
        while left:
            self.new_round()
            helpers = []
            for number in range(min(left, self.rng.randint(1, 3))):
                left -= self._one_scheduler(helpers, self.folder / f"scheduler_{number}.txt")
            self.finish("scheduler")
            for helper in helpers:
                os.kill(helper, signal.SIGKILL)
                os.waitpid(helper, 0)

    def _one_scheduler(self, helpers, file: Path) -> int:
        file.unlink(missing_ok=True)
        scheduler = _fork(_scheduler, file)
        while not file.exists():
            time.sleep(0.02)
        address = file.read_text()
        helpers.append(_fork(_worker, address))
        self.begin = time.time()
        run = tiny.start_fork(tiny.arguments(self.job, self.source, "--threads", "1", "--scheduler", address), self.log)
        while not tiny.ended(run) and tiny.stage_now(self.job, self.begin) == "before the first movie":
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0.0, 1.5 * self.seconds))
        killed = not tiny.ended(run)
        if killed:
            self._count("scheduler")
        os.kill(scheduler, signal.SIGKILL)
        os.waitpid(scheduler, 0)
        self._ended("scheduler", run, (0,), "is lost", "does not answer")
        return int(killed)

    def _count(self, victim: str) -> None:
        self.where[victim, tiny.stage_now(self.job, self.begin)] += 1
        self.say(f"kill {sum(self.where.values())}: {victim}, {tiny.stage_now(self.job, self.begin)}")

    def table(self) -> list[list[str]]:
        """Rows of the result: victim, kills, and at what stage."""
        rows = []
        for victim in sorted({who for who, _ in self.where}):
            found = {stage: count for (who, stage), count in sorted(self.where.items()) if who == victim}
            rows.append([victim, str(sum(found.values())), ", ".join(f"{stage} {count}" for stage, count in found.items())])
        return rows


VICTIMS = {"job": 12, "worker": 5, "scheduler": 3}
"""Who is killed, and in what proportion: the slow kinds are fewer."""


def shares(times: int, victims=tuple(VICTIMS)) -> dict[str, int]:
    """{victim: number of kills}, ``times`` in all."""
    total = sum(VICTIMS[name] for name in victims)
    counts = {name: max(1, times * VICTIMS[name] // total) for name in victims}
    counts[victims[0]] += times - sum(counts.values())
    return counts


def import_all() -> None:
    """Import what a job needs, so that forks begin at once."""
    torch.set_num_threads(1)
    from refmotion_plugin.engine import report                          # noqa: F401
    from refmotion_plugin.engine.run import job                         # noqa: F401
    from refmotion_plugin.engine.run.recipes import stage_recipes
    stage_recipes()


def run(folder: Path, times: int, seed: int, say, victims=tuple(VICTIMS)) -> Kills:
    """All kills; returns what was found."""
    import_all()
    kills = Kills(folder, seed, say)
    kills.undisturbed()
    for name, count in shares(times, victims).items():
        {"job": kills.parents, "worker": kills.workers, "scheduler": kills.schedulers}[name](count)
        say(f"{name}: {sum(n for (who, _), n in kills.where.items() if who == name)} kills, {len(kills.faults)} faults so far")
    return kills


def _fork(work, argument) -> int:
    """A process that does ``work(argument)`` for ever."""
    process = os.fork()
    if process == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            asyncio.run(work(argument))
        finally:
            os._exit(0)
    return process


async def _scheduler(file: Path) -> None:
    """What ``dask scheduler`` is."""
    async with distributed.Scheduler(port=0, dashboard=False) as scheduler:
        part = file.with_suffix(".part")
        part.write_text(scheduler.address)
        part.rename(file)
        await scheduler.finished()


async def _worker(address: str) -> None:
    """What ``dask worker --nthreads 1 --no-nanny`` is."""
    async with distributed.Worker(address, nthreads=1, memory_limit=0, death_timeout=20, dashboard=False) as worker:
        await worker.finished()


def _workers_of(run: int) -> list[int]:
    found = []
    for child in tiny.children(run):
        try:
            command = Path(f"/proc/{child}/cmdline").read_text()
        except OSError:
            continue
        if "spawn_main" in command:
            found.append(child)
    return found


def _differences(expected: dict, found: dict) -> list[str]:
    return [f"{name} {'differs' if name in expected and name in found else 'missing' if name in expected else 'too many'}"
            for name in sorted(set(expected) | set(found)) if expected.get(name) != found.get(name)]
