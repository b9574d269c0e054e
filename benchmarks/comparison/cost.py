"""What a movie costs: RELION, this engine and the floor over threads, particles per movie and boxes, and how our cost grows.

A job costs something before its first movie (start-up, reference, checks, calibration, report) and something per movie. The second is
the slope between runs on few and on more movies; with thousands of movies it is all that counts. Our runs are given dose weights, as all
movies after the leading ones have them: each movie is decoded once.
"""
from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refmotion_plugin.contract import conventions, store
from refmotion_plugin.engine.simulate import SimulationSpec, simulate
from refmotion_plugin.engine.stages.reconstruct import standard_weights as exposure_curve

from . import engine, relion
from .floor import project_floor, second_pass
from .project import Journal, Project
from .references import prepare_reference
from .report import markdown_table

BASE = {"size_yx": (2048, 2048), "particles": 100, "box": 192, "seed": 7}
CASES = {"50 particles": {"particles": 50}, "200 particles": {"particles": 200}, "500 particles": {"particles": 500},
         "box 128": {"box": 128}, "box 256": {"box": 256}, "box 400": {"box": 400}}
PLAIN = "100 particles, box 192"
SIGMAS = (1.5, 10000, 4)
FRAME_SHARES = (0.25, 0.5, 0.75, 1.0)
RATIOS = (("RELION / ours", "relion cpu_s", "ours cpu_s"), ("ours / floor", "ours cpu_s", "floor cpu_s"),
          ("ours / floor of two", "ours cpu_s", "floor of two cpu_s"), ("wall clock, RELION / ours", "relion wall_s", "ours wall_s"))

BOUND_OF_SLOPES = ("A further movie costs the difference between the runs on many and on few movies, divided by their difference in number, but at most the "
                   "run on many divided by their number: no job costs less than nothing before its first movie. Where this bounds a cost, nothing is "
                   "left before the first movie.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Measurements, each done once and kept in the journal."""

    folder: Path
    journal: Journal
    threads: tuple[int, ...]
    frames: int
    counts: tuple[int, int]
    relion_counts: tuple[int, int]
    cases: tuple[str, ...]
    turns: int = 1
    say: Callable[[str], None] = print

    def project(self, case: str) -> Project:
        """The working folder of a case; its data set is simulated first if need be, with as many movies as the largest run takes."""
        most = max(*self.counts, *self.relion_counts)
        data = self.folder / case.replace(" ", "_").replace(",", "") / "data"
        if not (data / "truth" / "spec.json").exists():
            self.say(f"… simulate {case}")
            spec = SimulationSpec(**{**BASE, **CASES.get(case, {}), "movies": most, "frames": self.frames,
                                     "threads": max(self.threads)})
            simulate(data, spec, lambda done, total, sentence: None)
        project = Project.make(data.parent / "project", data)
        if project.spec.movies < most:
            raise SystemExit(f"{data} has {project.spec.movies} movies and {most} were asked for: give smaller --counts and --relion-counts, or another "
                             "working folder")
        return project

    def reference(self, case: str) -> dict:
        """Half-maps (the simulator's), mask and FSC for both programs."""
        return self._step(f"reference {case}", lambda: prepare_reference(self.project(case), "simulated", ""))

    def relion(self, case: str, threads: int, movies: int, turn: int = 1) -> dict:
        """Usage of one run of RELION: tracks and shiny particles."""
        project = self.project(case)
        return self._step(f"relion {case} {threads} {movies}" + _later(turn), lambda: relion.motion_refine(
            project, self.reference(case), project.particles(project.some_movies(movies)), f"relion/{threads}_{movies}", SIGMAS,
            threads, True).numbers())

    def ours(self, case: str, threads: int, movies: int, last_frame: int = -1, turn: int = 1) -> dict:
        """Usage of one run of ours with given weights."""
        project = self.project(case)
        return self._step(f"ours {case} {threads} {movies} {last_frame}" + _later(turn), lambda: self._run(project, case, threads, movies, last_frame))

    def _run(self, project, case, threads, movies, last_frame):
        weights = standard_weights(project, last_frame)
        reference = {**self.reference(case), "particles": project.particles(project.some_movies(movies))}
        return engine.run_engine(project, [reference], f"ours/{threads}_{movies}_{last_frame}", threads,
                                 ("--dose-weights", weights, "--last-frame", str(last_frame))).numbers()

    def floor(self, case: str, threads: int, turn: int = 1) -> dict:
        """The floor of all movies of a case."""
        return self._step(f"floor {case} {threads}" + _later(turn), lambda: project_floor(self.project(case), threads))

    def _step(self, name, work):
        return self.journal.step(name, work, lambda n: self.say(f"… {n}"))

    # ---- what the runs say ----

    def row(self, case: str, threads: int) -> dict:
        """Medians over turns of what :meth:`_turn` finds, and the largest peaks of memory."""
        turns = [self._turn(case, threads, turn) for turn in range(1, self.turns + 1)]
        row = {"case": case, "threads": threads}
        for key in turns[0]:
            row[key] = (max if key.endswith("peak_GiB") else statistics.median)([turn[key] for turn in turns])
        row["turns"] = len(turns)
        return row

    def _turn(self, case, threads, turn):
        """Seconds of CPU per movie, what comes before the first movie, wall clock per movie; and their ratios within this turn, since the speed of
        a machine may change: the programs take turns."""
        runs = {"relion": {}, "ours": {}}
        for few_or_many in (0, 1):
            for name, counts, run in (("ours", self.counts, self.ours), ("relion", self.relion_counts, self.relion)):
                runs[name][counts[few_or_many]] = run(case, threads, counts[few_or_many], turn=turn)
        floor, found = self.floor(case, threads, turn), {}
        for name, used in runs.items():
            (few, less), (many, more) = used.items()
            for key in ("cpu_s", "wall_s"):
                found[f"{name} {key}"], found[f"{name} before {key}"] = slope(few, less[key], many, more[key])
            found[f"{name} peak_GiB"] = max(more["peak_GiB"], less["peak_GiB"])
        found["floor cpu_s"], found["floor wall_s"] = (floor[key] / floor["movies"] for key in ("cpu_s", "wall_s"))
        found["floor of two cpu_s"] = found["floor cpu_s"] + second_pass(floor["parts_cpu_s"]) / floor["movies"]
        for name, above, below in RATIOS:
            found[name] = found[above] / found[below]
        return found

    def rows(self) -> list[dict]:
        """All cases at all threads."""
        return [self.row(case, threads) for threads in self.threads for case in self.cases]

    def growth(self) -> dict[str, list[list[float]]]:
        """CPU seconds of our whole command against movies and against frames, one thread: [[number, seconds] …]."""
        few, many = self.counts
        movies = sorted({few, (few + many) // 2, many})
        frames = [max(3, round(share * self.frames)) for share in FRAME_SHARES]
        return {"movies": [[n, self.ours(PLAIN, 1, n)["cpu_s"]] for n in movies],
                "frames": [[f, self.ours(PLAIN, 1, few, f)["cpu_s"]] for f in frames]}


def slope(few: int, less: float, many: int, more: float) -> tuple[float, float]:
    """(seconds per movie, seconds before the first movie) of runs over ``few`` and ``many`` movies that took ``less`` and ``more`` seconds.

    A machine whose speed changes can make the straight line through both begin below zero, but no job costs less than nothing before its first movie:
    a movie is then what the larger run took, divided by its movies.
    """
    each = min((more - less) / (many - few), more / many)
    return each, more - many * each


def _later(turn):
    """What the names of steps of a further turn end with."""
    return f" turn {turn}" if turn > 1 else ""


def standard_weights(project: Project, last_frame: int) -> str:
    """Dose weights of the standard exposure curve for the frames used; name of the file."""
    spec = project.spec
    frames = spec.frames if last_frame == -1 else last_frame
    dose = conventions.dose_at_mid_frame(frames, spec.dose_per_frame, spec.pre_exposure)
    name = f"weights_{frames}.npz"
    store.save_weights(project.folder / name, exposure_curve(dose, spec.voltage))
    return name


# ---- tables ------------------------------------------------------------------------------------------------------------------

def movie_table(rows: list[dict]) -> str:
    """What each further movie costs, and how it was found."""
    header = ["per movie, CPU s", "threads", "RELION", "ours", "floor", "floor of two transforms", *(name for name, _, _ in RATIOS),
              "peak memory, ours / RELION"]
    return markdown_table(header, [[
        r["case"], r["threads"], r["relion cpu_s"], r["ours cpu_s"], r["floor cpu_s"], r["floor of two cpu_s"],
        *(r[name] for name, _, _ in RATIOS), r["ours peak_GiB"] / r["relion peak_GiB"]] for r in rows]) + "\n\n" + BOUND_OF_SLOPES


def job_table(rows: list[dict]) -> str:
    """What comes before the first movie, and the ratio of whole jobs that follows."""
    def whole(row, program, movies):
        return row[f"{program} before cpu_s"] + movies * row[f"{program} cpu_s"]

    return markdown_table(["CPU s", "threads", "before the first movie, RELION", "ours", "job of 12 movies, RELION / ours", "of 100", "of 1000"], [[
        r["case"], r["threads"], r["relion before cpu_s"], r["ours before cpu_s"],
        *(whole(r, "relion", n) / whole(r, "ours", n) for n in (12, 100, 1000))] for r in rows])


def growth_table(points: list[list[float]], unit: str) -> str:
    """Measured seconds beside the straight line through them."""
    x, y = np.array(points, dtype=float).T
    slope, start = np.polyfit(x, y, 1)
    return markdown_table([unit, "CPU s of the whole command", f"{start:.1f} + {slope:.3f} × {unit}", "measured / line"],
                          [[int(a), float(b), float(start + slope * a), float(b / (start + slope * a))] for a, b in points])


def plot(path: Path, rows: list[dict], growth: dict) -> None:
    """Growth over movies and frames; cost per movie over particles and box, all at the fewest threads."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    for axis, (unit, points) in zip(axes, growth.items()):
        x, y = np.array(points, dtype=float).T
        axis.plot(x, y, "o", label="whole command, ours")
        axis.plot(x, np.polyval(np.polyfit(x, y, 1), x), "-", color="0.6", label="line")
        axis.set_xlabel(unit)
    fewest = min(r["threads"] for r in rows)
    for axis, word in zip(axes[2:], ("particles", "box")):
        chosen = [(r, int(next(part.split()[word == "box"] for part in r["case"].split(", ") if word in part)))
                  for r in rows if r["threads"] == fewest and (word in r["case"])]
        chosen.sort(key=lambda pair: pair[1])
        for name, label in (("relion cpu_s", "RELION"), ("ours cpu_s", "ours"), ("floor of two cpu_s", "floor of two transforms"), ("floor cpu_s", "floor")):
            axis.plot([n for _, n in chosen], [r[name] for r, _ in chosen], "o-", label=label)
        axis.set(xlabel={"particles": "particles per movie", "box": "box, px"}[word], yscale="log")
    for axis in axes:
        axis.set_ylabel("CPU s" if axis in axes[:2] else "CPU s per movie")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
