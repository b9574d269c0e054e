"""RELION on the same movies: its best of a grid of sigmas, and its own training of three parameters."""
from __future__ import annotations

import re
import signal
from pathlib import Path

from comparison import relion, scoring
from comparison.measure import ProgramFailed, Usage, run_measured
from comparison.project import Journal, Project
from comparison.references import prepare_reference

# sigma velocity / divergence / acceleration, from stiff to loose; from the best of these the truth walks on
SIGMA_GRID = ((0.2, 10000, 1), (0.5, 5000, 2), (0.5, 20000, 4), (1, 10000, 4), (1.5, 5000, 4), (1.5, 20000, 4), (1.5, 10000, 9),
              (3, 20000, 9))
STEPS = (0.5, 2)
MOST_FURTHER = 16               # runs of the walk
AT_LIMIT = 0.95                 # share of a limit from which a killed program has met it: the kernel counts ticks for the limit and run time for the bill
LEAST_GAIN = 1e-3               # of the error, for a step of the walk


class RelionSide:
    """RELION's runs on one data set, kept in a journal; both programs take the simulator's half-maps, which are FSC-weighted."""

    def __init__(self, work: Path, data: Path) -> None:
        self.project = Project.make(work / f"relion_{data.name}", data)
        self.journal = Journal(self.project.folder / "steps.json").belongs_to(self.project)

    def reference(self) -> dict:
        """Half-maps, mask and FSC."""
        return self.journal.step("reference", lambda: prepare_reference(self.project, "simulated", self.project.spec.symmetry))

    def grid(self, movies: int) -> tuple[list[dict], bool]:
        """Errors on the first movies for each triple of the grid and of a walk from its best one; whether the walk came to its end.

        A walk has come to its end when halving or doubling any sigma of its last triple does not lower the error of all frames.
        """
        rows = {sigmas: self._row(sigmas, movies) for sigmas in SIGMA_GRID}
        best = min(rows, key=lambda sigmas: rows[sigmas]["all"])
        around = _neighbours(best)
        while around and (around[0] in rows or len(rows) < len(SIGMA_GRID) + MOST_FURTHER):
            sigmas = around.pop(0)
            if sigmas not in rows:
                rows[sigmas] = self._row(sigmas, movies)
            if rows[sigmas]["all"] < (1 - LEAST_GAIN) * rows[best]["all"]:
                best, around = sigmas, _neighbours(sigmas)
        return list(rows.values()), not around

    def _row(self, sigmas, movies):
        return self.journal.step(f"grid {movies} {sigmas}", lambda: self.tracked(sigmas, movies))

    def tracked(self, sigmas, movies: int) -> dict:
        """Errors and cost of tracking the first movies with three sigmas."""
        names = self.project.movies[:movies]
        out = "tracks_" + "_".join(f"{s:g}" for s in sigmas)
        usage = relion.motion_refine(self.project, self.reference(), self.project.particles(names), out, sigmas, 1, False)
        return {"sigmas": list(sigmas), **scoring.score_tracks(self.project, out, names), **usage.numbers()}

    def training(self, movies: int, limit_s: int) -> dict:
        """``--params3`` on the first movies, ended after ``limit_s`` seconds of CPU if it has not converged: the last sigmas it named."""
        return self.journal.step(f"training {movies} {limit_s}", lambda: self._train(movies, limit_s))

    def _train(self, movies, limit_s):
        reference, names = self.reference(), self.project.movies[:movies]
        count = movies * self.project.spec.particles
        command = ["relion_motion_refine", "--i", self.project.particles(names), "--o", "train/", "--f", reference["postprocess"],
                   "--m1", reference["half1"], "--m2", reference["half2"], "--mask", reference["mask"],
                   "--corr_mic", "MotionCorr/corrected_micrographs.star", "--first_frame", 1, "--last_frame", -1, "--params3",
                   "--min_p", count, "--align_frac", 0.5, "--eval_frac", 0.5, "--j", 1]
        log = self.project.folder / "logs" / "training.log"
        usage, converged = limited(command, limit_s, self.project.folder, log)
        return {**read_training(log.read_text(errors="replace")), "cpu_s": usage.cpu_s, "converged": converged}


def limited(command: list, limit_s: int, folder: Path, log: Path) -> tuple[Usage, bool]:
    """What a command used, and whether it came to its end within ``limit_s`` seconds of CPU; ProgramFailed if it ended in any other way."""
    try:
        return run_measured(["bash", "-c", f"ulimit -t {limit_s}; exec " + " ".join(map(str, command))], folder, log), True
    except ProgramFailed as failure:
        if failure.code not in (-signal.SIGXCPU, -signal.SIGKILL) or failure.usage.cpu_s < AT_LIMIT * limit_s:
            raise
        return failure.usage, False


def _neighbours(sigmas):
    """Triples with one sigma changed by a step."""
    return [(*sigmas[:i], factor * sigmas[i], *sigmas[i + 1:]) for i in range(len(sigmas)) for factor in STEPS]


def read_training(log: str) -> dict:
    """The last sigmas that a training named, and how many evaluations it had made."""
    lines = re.findall(r"^\s*(\d+):\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([-\d.]+)", log, flags=re.MULTILINE)
    if not lines:
        raise SystemExit("RELION's training named no sigmas before it ended: raise the limit of its CPU time")
    number, *sigmas, _ = lines[-1]
    return {"sigmas": [float(v) for v in sigmas], "evaluations": int(number)}
