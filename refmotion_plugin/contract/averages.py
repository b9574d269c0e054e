"""Files and results of averaging movies into micrographs: every path, the STAR files that leave, and their one reader."""
import os
import re
from collections import OrderedDict, namedtuple

from .average_spec import AverageSpec
from .errors import InputError
from .layout import JobLayout, read_json, read_object
from .records import fitting_name
from .results import read_status, states_of_movies
from .startable import StarTable, read_tables, write_tables

SUFFIXES = OrderedDict([("weighted", ""), ("unweighted", "_noDW"), ("even", "_EVN"), ("odd", "_ODD")])
"""Kinds of micrographs and what is appended to their names, as RELION does."""
COLUMNS = OrderedDict([("weighted", "rlnMicrographName"), ("unweighted", "rlnMicrographNameNoDW"),
                       ("even", "rlnMicrographNameEven"), ("odd", "rlnMicrographNameOdd")])

AverageState = namedtuple("AverageState", "key micrograph state reason")
"""State of one movie: ``state`` is todo, done or failed; ``reason`` is a sentence for failed ones."""


class AverageLayout(JobLayout):
    """Paths of averages in ``folder``; status, log, lock and done markers lie where a job has them."""

    def __init__(self, folder):
        super().__init__(folder)
        self.job = self.folder / "average.json"
        self.corrected_micrographs = self.folder / "corrected_micrographs.star"
        self.averages = self.folder / "averages.json"

    def micrograph(self, name, kind):
        """Image of one movie; ``name`` is its micrograph's bare name."""
        return self.folder / "micrographs" / (name + SUFFIXES[kind] + ".mrc")

    def metadata(self, name):
        """STAR file of one movie."""
        return self.folder / "micrographs" / (name + ".star")


def bare_names(movies):
    """Names of the averages of some movies (MovieMetadata): the micrographs' own base names, their keys where two would share a file or the
    name would make no good one. Raises InputError if their keys would share one too."""
    stems = [os.path.splitext(os.path.basename(m.micrograph))[0] for m in movies]
    names = [stem if _makes_a_file(stem) else m.key for m, stem in zip(movies, stems)]
    while True:                 # a key may be another movie's base name
        owners = _owners(names)
        shared = {i for several in owners.values() if len(several) > 1 for i in several}
        if not shared:
            return names
        renamed = [m.key if i in shared else name for i, (m, name) in enumerate(zip(movies, names))]
        if renamed == names:
            file, (one, other) = next((f, several[:2]) for f, several in owners.items() if len(several) > 1)
            raise InputError("the averages of the micrographs %s and %s would share the file %s.mrc: rename one of them"
                             % (movies[one].micrograph, movies[other].micrograph, file))
        names = renamed


def _owners(names):
    """{bare name of an image: positions of the ``names`` that it may be made for}, of all kinds of images."""
    owners = {}
    for i, name in enumerate(names):
        for suffix in SUFFIXES.values():
            owners.setdefault(name + suffix, []).append(i)
    return owners


def _makes_a_file(stem):
    """Letters, digits and what is usual in names, neither hidden nor too long: nothing that a STAR file or a shell takes for something else."""
    return re.fullmatch(r"[\w+][\w+.,=-]*", stem) is not None and fitting_name(stem) == stem


def write_movie_metadata(path, source, micrograph, binning):
    """The STAR file of one movie as ``source`` has it, with the new micrograph's name and binning."""
    tables = read_tables(source)
    tables["general"] = tables["general"].with_columns(rlnMicrographName=[micrograph], rlnMicrographBinning=["%.6f" % binning])
    write_tables(path, list(tables.values()), single_row=("general",))


def write_corrected_micrographs(path, source, rows, pixel_angstrom):
    """List of the averages in RELION's form.

    Parameters: ``source`` corrected_micrographs.star that was averaged, whose other columns are kept; ``rows`` [(row of the source,
    {column: value})] in the order they shall have; ``pixel_angstrom`` {optics group: A/px of the micrographs}.
    """
    tables = read_tables(source)
    before = tables.get("micrographs") or tables[""]
    table = before.rows([row for row, _ in rows])
    new = {column: [values[column] for _, values in rows] for column in rows[0][1]}
    stale = [c for c in COLUMNS.values() if c not in new]
    columns = OrderedDict((c, v) for c, v in table.columns.items() if c not in stale)
    columns.update(new)
    written = [StarTable("micrographs", columns)]
    optics = tables.get("optics")
    if optics is not None:
        pixels = [pixel_angstrom.get(int(group)) for group in optics.integers("rlnOpticsGroup", 1)]
        usual = next(iter(pixel_angstrom.values()))
        written.insert(0, optics.with_columns(rlnMicrographPixelSize=["%.6f" % (p or usual) for p in pixels]))
    write_tables(path, written)


class AverageResults:
    """What averaging in ``folder`` has reached so far; a running job may be looked at."""

    def __init__(self, folder):
        self.layout = AverageLayout(folder)
        if not self.layout.job.exists():
            raise InputError("%s holds no averages (average.json is missing): give the folder of a 'refmotion average'" % folder)

    @property
    def spec(self):
        """Parameters, an AverageSpec."""
        return AverageSpec.read(self.layout.job)

    def movies(self):
        """States of all movies in the list's order: list of :class:`AverageState`."""
        states = states_of_movies(read_status(self.layout.status), ("average",), {"key": str, "micrograph": str, "state": str}).values()
        return [AverageState(row["key"], row["micrograph"], row.get("average", row["state"]), row["reason"]) for row in states]

    def failed(self):
        """The movies that failed, with reasons."""
        return [m for m in self.movies() if m.state == "failed"]

    def written(self):
        """The averages as dicts (``micrograph`` as it was given, ``files`` {kind: path}, ``pixel_angstrom``, ``size_yx``), in the list's order."""
        return read_object(self.layout.averages).get("averages", [])

    def micrographs(self, kind):
        """{name of the movie's micrograph as it was given: path of its average of one kind}, in order."""
        return OrderedDict((row["micrograph"], row["files"][kind]) for row in self.written() if kind in row["files"])

    def progress(self):
        """What the running job does now: stage, done, total, remaining_seconds; None if it never said."""
        return read_json(self.layout.progress)
