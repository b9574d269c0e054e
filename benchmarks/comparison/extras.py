"""The smaller cases: no motion in the data, two species in the same movies, memory against the number of movies."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refmotion_plugin.contract import store
from refmotion_plugin.contract.startable import read_table
from refmotion_plugin.engine.simulate import SimulationSpec, particle_ring_correlation, simulate, true_projections
from refmotion_plugin.engine.simulate.score import damage_weights, trajectory_error

from . import engine, relion, scoring
from .compare import MAP_COLUMNS, demand_table
from .maps import mean_over_band
from .project import Journal, Project
from .references import prepare_reference
from .report import markdown_table

BENCHMARK_DATA = {"movies": 12, "particles": 100, "frames": 36, "size_yx": (2048, 2048)}
MOTION_BOUND_ANGSTROM = 0.15
RING_BAND_ANGSTROM = (10.0, 4.0)
SAME = 1.03   # "as good as" leaves this much room for chance


def simulate_data(folder: Path, values: dict, say: Callable[[str], None]) -> None:
    """Simulate the benchmark's data set, with ``values`` changed."""
    simulate(folder, SimulationSpec(**{**BENCHMARK_DATA, **values}), lambda done, total, sentence: say(f"simulate {done}/{total}: {sentence}"))


@dataclasses.dataclass(frozen=True)
class NoMotion:
    """Movies in which nothing moves: estimated motion must vanish and maps must not get worse."""

    project: Project
    journal: Journal
    threads: int
    halves: str
    extra: tuple[str, ...]
    say: Callable[[str], None]

    def sections(self) -> tuple[list[tuple[str, str]], dict]:
        """(heading, Markdown) of the tables, and all numbers."""
        symmetry = self.project.spec.symmetry
        halves = {"halves": self.halves}
        run = {**halves, "threads": self.threads, "options": list(self.extra)}
        reference = self._step("reference", lambda: prepare_reference(self.project, self.halves, symmetry), halves)
        self._step("ours", lambda: engine.run_engine(
            self.project, [{**reference, "particles": self.project.particles()}], "ours", self.threads, self.extra).numbers(), run)
        motion = {"input rigid shifts (their errors)": self._rigid(), "ours": self._ours()}
        sources = {"rigid": self.project.particles(), "ours": "ours/particles.star"}
        maps = {name: self._step(f"maps {name}", lambda: scoring.score_maps(self.project, star, name, symmetry, reference["mask"]),
                                 run if name == "ours" else halves) for name, star in sources.items()}
        printed, smoothed, gain = (maps["ours"][key] - maps["rigid"][key]
                                   for key in ("resolution_printed_angstrom", "resolution_angstrom", "true_fsc_5_3"))
        tables = [("Motion found where there is none, one constant per particle removed",
                   markdown_table(["2D rms, Å", "all frames"], [[k, v] for k, v in motion.items()])),
                  ("Reconstructions", markdown_table(["particles", *MAP_COLUMNS], [
                      [k, v["resolution_printed_angstrom"], v["resolution_angstrom"], v["true_fsc_5_3"]] for k, v in maps.items()])),
                  ("Demands", demand_table([("rms of estimated motion, Å", motion["ours"], "≤ 0.15", MOTION_BOUND_ANGSTROM, False),
                                            ("resolution as printed, ours − rigid, Å", printed, "≤ 0", 0.0, False),
                                            ("resolution of the smoothed FSC, ours − rigid, Å", smoothed, "≤ 0", 0.0, False),
                                            ("mean true FSC, ours − rigid", gain, "≥ 0", 0.0, True)]))]
        return tables, {"motion_rms_angstrom": motion, "maps": maps, "reference": reference}

    def _step(self, name, work, settings):
        return self.journal.step(name, work, lambda n: self.say(f"… {n}"), settings)

    def _rigid(self):
        shifts = []
        for movie in self.project.movies:
            with np.load(self.project.truth / f"{movie}.npz") as truth:
                shifts.append(truth["shift_yx_px"][None] * self.project.spec.pixel_angstrom)
        return motion_rms_angstrom(shifts)

    def _ours(self):
        folder = self.project.folder / "ours"
        return motion_rms_angstrom([scoring.find_tracks(folder, movie) for movie in self.project.movies])


def motion_rms_angstrom(displacements: list[np.ndarray]) -> float:
    """2D rms of displacements (particle, frame, 2) of several movies, each particle's mean removed."""
    squares = [np.square(d - d.mean(axis=1, keepdims=True)).sum(axis=2).mean() for d in displacements]
    return float(np.sqrt(np.mean(squares)))


@dataclasses.dataclass(frozen=True)
class TwoSpecies:
    """Two particle sets with their own maps in the same movies: run together and each alone."""

    project: Project
    journal: Journal
    threads: int
    extra: tuple[str, ...]
    say: Callable[[str], None]

    def sections(self) -> tuple[list[tuple[str, str]], dict]:
        """(heading, Markdown) of the tables, and all numbers."""
        suffixes = self.project.spec.species_suffixes
        references = [self._reference(suffix) for suffix in suffixes]
        jobs = {"together": references} | {f"alone{suffix}": [r] for suffix, r in zip(suffixes, references)}
        used = {name: self.journal.step(f"ours {name}", lambda: engine.run_engine(
            self.project, part, f"ours/{name}", self.threads, self.extra).numbers(), lambda n: self.say(f"… {n}"),
            {"threads": self.threads, "options": list(self.extra)}) for name, part in jobs.items()}
        rows, demands = [], []
        for index, suffix in enumerate(suffixes):
            scores = [self._score("together", index, suffix), self._score(f"alone{suffix}", 0, suffix)]
            rows += [[f"{suffix[1:]} {name}", *score] for name, score in zip(("together", "alone"), scores)]
            name = suffix[1:]
            demands += [(f"{name}: error, all frames, together / alone", scores[0][0] / scores[1][0], f"≤ {SAME}", SAME, False),
                        (f"{name}: error, first five, together / alone", scores[0][1] / scores[1][1], f"≤ {SAME}", SAME, False),
                        (f"{name}: mean ring correlation, together / alone", scores[0][2] / scores[1][2], "≥ 0.99", 0.99, True)]
        table = markdown_table(["species", "error, all frames, Å", "first five, Å", "ring correlation with true projections, 10–4 Å"], rows)
        return [("Each species together with the other and alone", table), ("Demands", demand_table(demands))], {"rows": rows, "runs": used}

    def _reference(self, suffix):
        for name in ("half1", "half2", "mask"):
            (self.project.folder / f"{name}{suffix}.mrc").write_bytes((self.project.data / f"{name}{suffix}.mrc").read_bytes())
        return {"particles": self.project.particles(suffix=suffix)} | {n: f"{n}{suffix}.mrc" for n in ("half1", "half2", "mask")}

    def _score(self, job, index, suffix):
        """(error of all frames, of the first five, mean ring correlation) of one species in a job."""
        folder = self.project.folder / "ours" / job
        errors = self._track_errors(folder, index, suffix)
        star = "particles.star" if job != "together" else f"particles_{index + 1}.star"
        return [*errors, self._ring(folder / star, suffix)]

    def _track_errors(self, folder, index, suffix):
        weights, squares = damage_weights(self.project.truth), []
        for movie in self.project.movies:
            found = store.load_trajectories(next(folder.glob(f"movies/*{movie}/trajectories.npz")))
            with np.load(self.project.truth / f"{movie}{suffix}.npz") as truth:
                own = found.displacement_yx_angstrom[found.reference == index]
                error = trajectory_error(own, truth["displacement_yx_angstrom"], weights)
            squares.append([error.all_frames**2, error.first_five**2])
        return np.sqrt(np.mean(squares, axis=0)).tolist()

    def _ring(self, star, suffix):
        spec, values = self.project.spec, []
        images = read_table(star, "particles").text("rlnImageName").tolist()
        for movie in self.project.movies:
            own = [name.split("@", 1) for name in images if movie in name]
            stack = engine.read_stack(self.project.folder / own[0][1])[[int(number) - 1 for number, _ in own]]
            projections = true_projections(self.project.truth, movie, spec.box, spec.pixel_angstrom, suffix)
            if len(stack) != len(projections):
                raise SystemExit(f"{star} has {len(stack)} particles of {movie} where {len(projections)} were expected: some were left out")
            values.append(mean_over_band(particle_ring_correlation(stack, projections), spec.box * spec.pixel_angstrom, RING_BAND_ANGSTROM))
        return float(np.mean(values))


@dataclasses.dataclass(frozen=True)
class Memory:
    """Peak memory of runs over few and over many movies."""

    project: Project
    journal: Journal
    threads: int
    counts: tuple[int, ...]
    with_relion: bool
    extra: tuple[str, ...]
    say: Callable[[str], None]

    def sections(self) -> tuple[list[tuple[str, str]], dict]:
        """(heading, Markdown) of the tables, and all numbers."""
        if max(self.counts) > self.project.spec.movies:
            raise SystemExit(f"{self.project.data} has {self.project.spec.movies} movies and {max(self.counts)} were asked for: give smaller --counts, or "
                             "another working folder")
        reference = {name: f"{name}.mrc" for name in ("half1", "half2", "mask")}
        for name in reference.values():
            (self.project.folder / name).write_bytes((self.project.data / name).read_bytes())
        used = {count: self._run(reference, count) for count in self.counts}
        growth = used[self.counts[-1]]["ours"]["peak_GiB"] / used[self.counts[0]]["ours"]["peak_GiB"]
        rows = [[count, *(u[p]["peak_GiB"] for p in u)] for count, u in used.items()]
        tables = [("Peak memory, GiB", markdown_table(["movies", *used[self.counts[0]]], rows)),
                  ("Demands", demand_table([(f"{self.counts[-1]} movies / {self.counts[0]} movies", growth, "≤ 1.05", 1.05, False)]))]
        return tables, {"runs": {str(k): v for k, v in used.items()}}

    def _run(self, reference, count):
        particles = self.project.particles(self.project.some_movies(count))
        used = {"ours": self._step(f"ours memory {count}", lambda: engine.run_engine(
            self.project, [{**reference, "particles": particles}], f"ours/memory_{count}", self.threads, self.extra), options=list(self.extra))}
        if self.with_relion:
            star = self.journal.step("reference simulated", lambda: prepare_reference(self.project, "simulated", ""))
            used["RELION"] = self._step(f"relion memory {count}", lambda: relion.motion_refine(
                self.project, star, particles, f"relion/memory_{count}", (1.5, 10000, 4), self.threads, True))
        return used

    def _step(self, name, work, **settings):
        return self.journal.step(name, lambda: work().numbers(), lambda n: self.say(f"… {n}"), {"threads": self.threads, **settings})
