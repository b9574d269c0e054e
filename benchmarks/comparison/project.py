"""The folder both programs run in: links to a simulated data set, and particle lists of some of its movies."""
from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from refmotion_plugin.contract.startable import StarTable, read_tables, write_tables
from refmotion_plugin.engine.simulate import SimulationSpec

_LINKED = ("Movies", "MotionCorr", "Particles", "truth")
_SETTINGS = "settings of steps"
# what a step that was noted without settings is taken to have been done with
_STANDARD = {"halves": "regularised", "threads": 2, "options": []}


@dataclasses.dataclass(frozen=True)
class Project:
    """A working folder whose names are those of the data set ``data``, so that both programs read the same files."""

    folder: Path
    data: Path

    @classmethod
    def make(cls, folder: Path, data: Path) -> "Project":
        """Make the folder (or use it again) with links to the data set."""
        folder, data = Path(folder).resolve(), Path(data).resolve()
        if not (data / "truth" / "spec.json").exists():
            raise SystemExit(f"{data} holds no simulated data set (truth/spec.json is missing): give a folder that the simulator wrote")
        folder.mkdir(parents=True, exist_ok=True)
        for name in _LINKED:
            link = folder / name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(data / name)
        return cls(folder, data)

    @functools.cached_property
    def spec(self) -> SimulationSpec:
        """How the data were simulated."""
        return SimulationSpec.read(self.truth / "spec.json")

    @property
    def truth(self) -> Path:
        """The folder with the truth."""
        return self.data / "truth"

    @property
    def movies(self) -> list[str]:
        """Names of all movies."""
        return [self.spec.movie_name(i) for i in range(self.spec.movies)]

    def some_movies(self, count: int) -> list[str]:
        """``count`` movies, evenly spread over the data set."""
        chosen = np.unique(np.linspace(0, self.spec.movies - 1, min(count, self.spec.movies)).round().astype(int))
        return [self.movies[i] for i in chosen]

    def particles(self, movies: list[str] | None = None, suffix: str = "") -> str:
        """Name of a particle STAR file (below the project) of the given movies, all of them by default."""
        tables = read_tables(self.data / f"particles{suffix}.star")
        rows = tables["particles"]
        if movies is None or set(movies) == set(self.movies):
            name = f"particles{suffix}.star"
        else:
            name = f"particles{suffix}_{len(movies)}_movies.star"
            stems = [Path(m).stem for m in rows.text("rlnMicrographName").tolist()]
            rows = rows.rows([i for i, stem in enumerate(stems) if stem in set(movies)])
        write_tables(self.folder / name, [tables["optics"], rows])
        return name

    def with_images(self, name: str, image_of_row, suffix: str = "") -> str:
        """Particle STAR file ``name`` with other images: ``image_of_row`` gives rlnImageName (row -> text)."""
        tables = read_tables(self.data / f"particles{suffix}.star")
        rows: StarTable = tables["particles"]
        rows = rows.with_columns(rlnImageName=[image_of_row(i) for i in range(len(rows))])
        write_tables(self.folder / name, [tables["optics"], rows])
        return name


def holds_data(folder: Path, spec: SimulationSpec) -> bool | None:
    """Whether the data set in a folder is that of ``spec``, whose threads change nothing; None if there is none."""
    path = folder / "truth" / "spec.json"
    return dataclasses.replace(SimulationSpec.read(path), threads=spec.threads) == spec if path.exists() else None


class Journal:
    """Results of finished steps in a JSON file, so that an interrupted comparison goes on where it was."""

    def __init__(self, path: Path, redo: tuple[str, ...] = ()) -> None:
        self._path = path
        self._known = json.loads(path.read_text()) if path.exists() else {}
        for name in [n for n in self._known if n != _SETTINGS]:
            if any(name == r or name.startswith(r + " ") for r in redo):
                del self._known[name]

    def belongs_to(self, project: Project) -> "Journal":
        """This journal, if its steps were done on the project's data; else the comparison stops with a sentence."""
        now = json.loads(json.dumps(dataclasses.asdict(project.spec)))
        if self.step("data", lambda: now) != now:
            raise SystemExit(f"{self._path} holds results of another data set than {project.data}: give another working folder")
        return self

    def step(self, name: str, work, announce=None, settings: dict | None = None, usual: bool = False):
        """The result of ``work()`` (JSON types), from the journal if the step ``name`` was finished before.

        ``settings``: what decides the result beside the name; a step that was done with others is not taken, the comparison stops with a
        sentence. A step that was noted without them is taken if they are ``usual``, or the standard ones.
        """
        if name not in self._known:
            if announce is not None:
                announce(name)
            self._known[name] = work()
            if settings:
                self._known.setdefault(_SETTINGS, {})[name] = settings
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._known, indent=1))
        elif settings and not self._was_done_with(name, settings, usual):
            raise SystemExit(f"{self._path}: the step '{name}' was done with other settings than {_words(settings)}: give another working folder, "
                             f"or do it again with --redo {name.split()[0]}")
        return self._known[name]

    def _was_done_with(self, name, settings, usual):
        noted = self._known.get(_SETTINGS, {}).get(name)
        if noted is None:
            return usual or settings == {key: _STANDARD.get(key) for key in settings}
        return noted == settings


def _words(settings):
    return ", ".join(f"{key} {' '.join(map(str, value)) or 'none' if isinstance(value, list) else value}" for key, value in settings.items())
