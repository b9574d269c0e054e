"""The main comparison: both programs on the same movies, half-maps, mask and threads; errors, maps, weights, time, memory."""
from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

from refmotion_plugin.contract import store

from . import engine, relion, scoring
from .floor import project_floor, second_pass
from .project import Journal, Project
from .references import prepare_reference
from .report import markdown_table

SIGMA_GRID = ((0.5, 5000, 2), (1, 5000, 2), (1, 10000, 4), (1.5, 5000, 4), (1.5, 10000, 2), (1.5, 10000, 4), (1.5, 20000, 4),
              (1.5, 10000, 9), (1.5, 20000, 9), (1.5, 40000, 9), (3, 10000, 4), (3, 20000, 9))
GRID_MOVIES = 4
MAP_COLUMNS = ("resolution as relion_postprocess prints it, Å", "0.143 of the FSC smoothed over 5 shells, Å",
               "mean FSC with the true map, 5–3 Å")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison: where, on what, with what."""

    project: Project
    journal: Journal
    threads: int = 2
    repeats: int = 1
    grid_movies: int = GRID_MOVIES
    halves: str = "regularised"
    symmetry: str = "O"
    sigmas: tuple | None = None
    extra: tuple[str, ...] = ()
    say: Callable[[str], None] = print

    def step(self, name, work, **settings):
        """A journalled step, announced when it has to be done; ``settings`` as the journal takes them."""
        return self.journal.step(name, work, lambda n: self.say(f"… {n}"), **settings)

    # ---- steps ----

    def reference(self) -> dict:
        """Half-maps, mask and FSC for both programs."""
        return self.step(f"reference {self.halves}", lambda: prepare_reference(self.project, self.halves, self.symmetry))

    def grid(self) -> list[dict]:
        """RELION's errors for each triple of sigmas on some movies, tracking only."""
        movies = self.project.some_movies(self.grid_movies)
        rows = []
        for sigmas in SIGMA_GRID:
            name = "_".join(f"{s:g}" for s in sigmas)
            rows.append(self.step(f"grid {self.halves} {len(movies)} {name}", lambda: self._grid_point(sigmas, movies, name)))
        return rows

    def _grid_point(self, sigmas, movies, name):
        out = f"relion/grid_{self.halves}_{name}"
        usage = relion.motion_refine(self.project, self.reference(), self.project.particles(movies), out, sigmas, self.threads, False)
        return {"sigmas": list(sigmas), **scoring.score_tracks(self.project, out, movies), **usage.numbers()}

    def best_sigmas(self) -> tuple:
        """The triple with RELION's smallest error of all frames."""
        return self.sigmas or tuple(min(self.grid(), key=lambda row: row["all"])["sigmas"])

    def runs(self) -> dict[str, list[dict]]:
        """Full runs of both programs, alternately: usage of each repeat."""
        used = {"relion": [], "ours": []}
        for repeat in range(1, self.repeats + 1):
            used["relion"].append(self.step(f"relion {self._label(repeat)}", lambda: self._run_relion(repeat), **self._relion_settings()))
            used["ours"].append(self.step(f"ours {self._label(repeat)}", lambda: self._run_ours(repeat), **self._our_settings()))
        return used

    def _relion_settings(self):
        """What decides the results of RELION's runs and is not in the names of steps; a run that was noted without it had the grid's best."""
        return {"settings": {"sigmas": list(self.best_sigmas())}, "usual": not self.sigmas and self.grid_movies == GRID_MOVIES}

    def _our_settings(self):
        return {"settings": {"options": list(self.extra)}}

    def _run_relion(self, repeat):
        return relion.motion_refine(self.project, self.reference(), self.project.particles(), self.folder("relion", repeat),
                                    self.best_sigmas(), self.threads, True).numbers()

    def _run_ours(self, repeat):
        reference = {**self.reference(), "particles": self.project.particles()}
        used = engine.run_engine(self.project, [reference], self.folder("ours", repeat), self.threads, self.extra).numbers()
        return {**used, "movies_wall_s": engine.movies_wall_s(self.project.folder / self.folder("ours", repeat))}

    def folder(self, program: str, repeat: int = 1) -> str:
        """Output folder of a full run, below the project."""
        return f"{program}/run_{self._label(repeat).replace(' ', '_')}"

    def _label(self, repeat):
        return f"{self.halves} {self.threads} threads {repeat}"

    def tracks(self) -> dict[str, dict]:
        """Errors of rigid motion and of both programs' full runs."""
        project = self.project
        return {"rigid shifts only": scoring.score_rigid(project, project.movies),
                "RELION": scoring.score_tracks(project, self.folder("relion"), project.movies),
                "ours": scoring.score_tracks(project, self.folder("ours"), project.movies)}

    def grid_ours(self) -> dict:
        """Our errors on the movies of RELION's grid."""
        return scoring.score_tracks(self.project, self.folder("ours"), self.project.some_movies(self.grid_movies))

    def weights(self) -> dict:
        """Agreement of weights with the truth."""
        frequency, _, amplitude = scoring.true_tables(self.project)
        own = store.load_weights(self.project.folder / self.folder("ours") / "weights.npz")
        weights = {"RELION's B-factors": relion.weights_of(self.project.folder / self.folder("relion"), frequency),
                   "ours": scoring.resample_weights(own.weight[0], own.frequency_per_angstrom, frequency)}
        return scoring.score_weights(self.project, weights | scoring.plain_weights(self.project) | {"the truth": amplitude})

    def maps(self) -> dict[str, dict]:
        """Reconstructions of the particles before and after, and of those along the true trajectories."""
        sources = {"rigid": self.project.particles, "relion": lambda: f"{self.folder('relion')}/shiny.star",
                   "ours": lambda: f"{self.folder('ours')}/particles.star", "true tracks": self._oracle,
                   "true tracks and weights": self._full_oracle}
        mask = self.reference()["mask"]
        settings = {"rigid": {}, "relion": self._relion_settings()}
        return {name: self.step(f"maps {name} {self.halves}", lambda: scoring.score_maps(
            self.project, source(), name.replace(" ", "_"), self.symmetry, mask), **settings.get(name, self._our_settings()))
            for name, source in sources.items()}

    def _oracle(self):
        return engine.polish_along_truth(self.project, self.folder("ours"), "oracle/tracks")

    def _full_oracle(self):
        amplitude = scoring.true_tables(self.project)[2]
        return engine.polish_along_truth(self.project, self.folder("ours"), "oracle/tracks_and_weights", amplitude)

    def floor(self) -> dict:
        """The unavoidable work, timed now."""
        return self.step(f"floor {self.threads}", lambda: project_floor(self.project, self.threads))


# ---- tables ----------------------------------------------------------------------------------------------------------------

def grid_table(comparison: Comparison) -> str:
    """RELION's grid: error of all and of early frames for each triple. No times: the steps are taken with whatever threads they were done."""
    rows = [[" / ".join(f"{s:g}" for s in row["sigmas"]), row["all"], row["early"]] for row in comparison.grid()]
    return markdown_table(["σ velocity / divergence / acceleration", "all frames, Å", "first five, Å"], rows)


def tracks_table(comparison: Comparison) -> str:
    """Errors of the full runs."""
    tracks = comparison.tracks()
    rows = [[name, score["all"], score["early"], score["per_frame"][0], score["per_frame"][-1]] for name, score in tracks.items()]
    rows.append(["ours / RELION", *(rows[2][i] / rows[1][i] for i in range(1, 5))])
    return markdown_table(["2D rms error, Å", "all frames", "first five", "frame 1", "last frame"], rows)


def maps_table(comparison: Comparison) -> str:
    """Resolution and correlation with the true map."""
    maps = comparison.maps()
    oracle = maps["true tracks"]["true_fsc_5_3"]
    rows = [[name, s["resolution_printed_angstrom"], s["resolution_angstrom"], s["true_fsc_5_3"], s["true_fsc_5_3"] - oracle]
            for name, s in maps.items()]
    return markdown_table(["particles", *MAP_COLUMNS, "gap to true tracks"], rows)


def weights_table(comparison: Comparison) -> str:
    """Agreement of weights with both definitions of the truth."""
    rows = [[name, *(scores[truth][what] for truth in ("damage and blur", "damage") for what in ("correlation", "snr_kept"))]
            for name, scores in comparison.weights().items()]
    return markdown_table(["weights, 20–4 Å", "correlation with damage × blur", "SNR kept", "correlation with damage", "SNR kept (damage)"],
                          rows)


def speed_table(comparison: Comparison) -> str:
    """Time and memory of each full run, and the floor; ratios are of medians over the runs."""
    used, floor, movies = comparison.runs(), comparison.floor(), len(comparison.project.movies)
    rows, middle = [], {}
    for name, program in (("RELION", "relion"), ("ours", "ours")):
        rows += [[name, u["wall_s"], u["cpu_s"], u["wall_s"] / movies, u["peak_GiB"], u.get("load")] for u in used[program]]
        middle[program] = [statistics.median(u[key] for u in used[program]) for key in ("wall_s", "cpu_s", "peak_GiB")]
    wall, cpu, peak = (a / b for a, b in zip(middle["relion"], middle["ours"]))
    rows.append(["RELION / ours", wall, cpu, wall, peak, None])
    of_movies = [u["movies_wall_s"] for u in used["ours"] if "movies_wall_s" in u]
    if of_movies:
        own = statistics.median(of_movies)
        rows += [["ours, tracking to recombination alone", own, None, own / movies, None, None],
                 ["RELION / that", middle["relion"][0] / own, None, middle["relion"][0] / own, None, None]]
    rows.append(["floor", floor["wall_s"], floor["cpu_s"], floor["wall_s"] / movies, None, floor.get("load")])
    above = middle["ours"][0] / floor["wall_s"]
    rows.append(["ours / floor", above, middle["ours"][1] / floor["cpu_s"], above, None, None])
    two_wall, two_cpu = floor["wall_s"] + second_pass(floor["parts_s"]), floor["cpu_s"] + second_pass(floor.get("parts_cpu_s", floor["parts_s"]))
    rows.append(["floor of two transforms", two_wall, two_cpu, two_wall / movies, None, floor.get("load")])
    rows.append(["ours / floor of two", middle["ours"][0] / two_wall, middle["ours"][1] / two_cpu, middle["ours"][0] / two_wall, None, None])
    what = f"{movies} movies, threads: {comparison.threads}"
    return markdown_table([what, "wall s", "CPU s", "wall s / movie", "peak GiB", "load of the machine"], rows)


def verdict(comparison: Comparison) -> str:
    """The demands of the comparison, each with its number."""
    tracks, used, maps = comparison.tracks(), comparison.runs(), comparison.maps()
    weights = comparison.weights()["ours"]["damage and blur"]

    def ratio(key):
        return statistics.median(u[key] for u in used["relion"]) / statistics.median(u[key] for u in used["ours"])

    def gain(key):
        return maps["ours"][key] - maps["relion"][key]

    demands = [
        ("error, all frames, ours / RELION at its best", tracks["ours"]["all"] / tracks["RELION"]["all"], "≤ 1", 1.0, False),
        ("error, first five, ours / RELION at its best", tracks["ours"]["early"] / tracks["RELION"]["early"], "≤ 0.9", 0.9, False),
        *_grid_demands(comparison),
        ("resolution as printed, ours − RELION, Å", gain("resolution_printed_angstrom"), "≤ 0", 0.0, False),
        ("resolution of the smoothed FSC, ours − RELION, Å", gain("resolution_angstrom"), "≤ 0", 0.0, False),
        ("mean true FSC, ours − RELION", gain("true_fsc_5_3"), "≥ 0", 0.0, True),
        ("weights: correlation", weights["correlation"], "≥ 0.98", 0.98, True),
        ("weights: SNR kept", weights["snr_kept"], "≥ 0.99", 0.99, True),
        ("speed, wall clock, RELION / ours", ratio("wall_s"), "≥ 3", 3.0, True),
        ("speed, CPU time, RELION / ours", ratio("cpu_s"), "≥ 3", 3.0, True),
        ("peak memory, RELION / ours", ratio("peak_GiB"), "≥ 2", 2.0, True)]
    return demand_table(demands)


def _grid_demands(comparison):
    """Against the smallest error of any triple, for all and for early frames separately; on the grid's movies."""
    if comparison.sigmas:
        return []
    ours, grid = comparison.grid_ours(), comparison.grid()
    every, early = (ours[key] / min(row[key] for row in grid) for key in ("all", "early"))
    return [("grid's movies: all frames, ours / RELION's smallest of any σ", every, "≤ 1", 1.0, False),
            ("grid's movies: first five, ours / RELION's smallest of any σ", early, "≤ 0.9", 0.9, False)]


def demand_table(demands: list[tuple]) -> str:
    """Rows (what, value, bound as text, bound, higher is better) with whether each is met."""
    rows = [[what, float(value), text, bool(value >= bound if more else value <= bound)] for what, value, text, bound, more in demands]
    return markdown_table(["demand", "reached", "bound", "met"], rows)


def everything(comparison: Comparison, say: Callable[[str], None], parts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Work through the parts in order, saying each table as soon as it is there; (heading, Markdown) of each."""
    work = {"grid": ("RELION over a grid of its sigmas, tracking only", grid_table), "speed": ("Time and memory", speed_table),
            "tracks": ("Trajectories", tracks_table), "weights": ("Dose weights", weights_table),
            "maps": ("Reconstructions, same poses, same tools", maps_table), "verdict": ("Demands", verdict)}
    sections = []
    for part in parts:
        heading, table = work[part]
        if part not in ("grid", "speed"):
            comparison.runs()
        sections.append((heading, table(comparison)))
        say(f"\n{heading}\n\n{sections[-1][1]}\n")
    return sections


def all_results(comparison: Comparison, parts: tuple[str, ...]) -> dict:
    """Every number of the parts, for the JSON file."""
    project = comparison.project
    result = {"data": dataclasses.asdict(project.spec), "reference": comparison.reference(), "threads": comparison.threads,
              "engine_options": list(comparison.extra)}
    sources = {"grid": comparison.grid, "speed": lambda: {"runs": comparison.runs(), "floor": comparison.floor()},
               "tracks": comparison.tracks, "weights": comparison.weights, "maps": comparison.maps}
    return result | {part: sources[part]() for part in parts if part in sources}


PARTS = ("grid", "speed", "tracks", "weights", "maps", "verdict")
