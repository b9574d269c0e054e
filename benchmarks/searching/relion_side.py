"""RELION on the same movies: its best of a grid of sigmas, and its own training of three parameters."""
from __future__ import annotations

from pathlib import Path

from comparison import relion, scoring
from comparison.project import Journal, Project
from comparison.references import prepare_reference

# sigma velocity / divergence / acceleration, from stiff to loose; the valley is flat, so eight points find its bottom
SIGMA_GRID = ((0.2, 10000, 1), (0.5, 5000, 2), (0.5, 20000, 4), (1, 10000, 4), (1.5, 5000, 4), (1.5, 20000, 4), (1.5, 10000, 9),
              (3, 20000, 9))


class RelionSide:
    """RELION's runs on one data set, kept in a journal; both programs take the simulator's half-maps, which are FSC-weighted."""

    def __init__(self, work: Path, data: Path) -> None:
        self.project = Project.make(work / f"relion_{data.name}", data)
        self.journal = Journal(self.project.folder / "steps.json").belongs_to(self.project)

    def reference(self) -> dict:
        """Half-maps, mask and FSC."""
        return self.journal.step("reference", lambda: prepare_reference(self.project, "simulated", self.project.spec.symmetry))

    def grid(self, movies: int) -> list[dict]:
        """Errors for each triple of the grid on the first movies."""
        return [self.journal.step(f"grid {movies} {sigmas}", lambda: self.tracked(sigmas, movies)) for sigmas in SIGMA_GRID]

    def tracked(self, sigmas, movies: int) -> dict:
        """Errors and cost of tracking the first movies with three sigmas."""
        names = self.project.movies[:movies]
        out = "tracks_" + "_".join(f"{s:g}" for s in sigmas)
        usage = relion.motion_refine(self.project, self.reference(), self.project.particles(names), out, sigmas, 1, False)
        return {"sigmas": list(sigmas), **scoring.score_tracks(self.project, out, names), **usage.numbers()}
