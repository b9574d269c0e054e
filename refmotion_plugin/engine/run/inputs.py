"""What a job works on: movies with particles, each particle in its movie or listed with the reason why not."""
import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import Dict, List, Tuple

import numpy as np

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import file_stamp
from refmotion_plugin.contract.records import MovieMetadata, ParticleTable
from refmotion_plugin.contract.star import ParticleSet, match_micrographs, read_corrected_micrographs, read_movie_metadata, read_particles

from .twins import TwinWatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobInputs:
    """Movies in the order of their list; ``particles`` by movie key; ``unreadable`` {micrograph: (reason, particles)}; ``warnings``: what looks
    wrong, sentences."""

    movies: List[MovieMetadata]
    particles: Dict[str, ParticleTable]
    sets: List[ParticleSet]
    unreadable: Dict[str, Tuple[str, int]]
    left_out: List[Tuple[int, int, str]]          # reference, row, reason
    warnings: Tuple[str, ...] = ()

    def particles_of(self, movie):
        """Particles of one movie, of all references."""
        return self.particles[movie.key]


class MovieCatalogue:
    """Reads a movie's own file when the first particle of it asks, so that movies without particles cost nothing."""

    def __init__(self, path):
        self.path = path
        self.micrographs, optics = read_corrected_micrographs(path)
        self.names = [m.name for m in self.micrographs]
        self.voltage = None
        self.groups = [] if optics is None else sorted(set(optics.integers("rlnOpticsGroup", 1).tolist()))
        if optics is not None and "rlnVoltage" in optics:
            self.voltage = dict(zip(optics.integers("rlnOpticsGroup", 1).tolist(), optics.numbers("rlnVoltage").tolist()))
        self.movies, self.faults = {}, {}

    def get(self, index):
        """Metadata of movie ``index``, or None if it cannot be read (the reason is in ``faults``)."""
        if index not in self.movies and index not in self.faults:
            item = self.micrographs[index]
            try:
                voltage = self.voltage.get(item.optics_group) if self.voltage else None
                self.movies[index] = read_movie_metadata(item.metadata_star, item.name, voltage)
            except MovieError as error:
                self.faults[index] = str(error)
        return self.movies.get(index)


def read_inputs(spec, outside_movie):
    """Read the movies' list and all particle sets and match them.

    ``outside_movie(movie, particles)`` gives a mask of particles whose centre is not on the movie.
    Raises InputError when a file is unusable, no particle finds its movie, no movie can be read or particles are given more than once.
    """
    catalogue = MovieCatalogue(spec.inputs.movies)
    sets, owners = [], []
    for index, reference in enumerate(spec.references):
        matched = {}

        def pixel(names):
            matched["movie"] = match_micrographs(names, catalogue.names)
            return _coordinate_pixels(catalogue, matched["movie"], spec.inputs.coordinate_pixel_angstrom)

        sets.append(read_particles(reference.particles, index, pixel, spec.inputs.half_sets_from_order))
        owners.append(matched["movie"])
        _report_match(reference.particles, sets[-1], owners[-1], catalogue)
    inputs = _assemble(catalogue, sets, owners, outside_movie)
    if spec.inputs.skip_other_frame_counts:
        inputs = _of_one_length(inputs)
    twins = TwinWatch(sets)
    for movie in inputs.movies:
        twins.look(inputs.particles[movie.key])
    return replace(inputs, warnings=twins.warnings())


def _of_one_length(inputs: JobInputs):
    """The same without movies whose number of frames is not that of most movies; they are listed with the reason."""
    counts = Counter(movie.n_frames for movie in inputs.movies)
    usual = max(counts, key=counts.get)
    left_out, unreadable, particles = list(inputs.left_out), dict(inputs.unreadable), dict(inputs.particles)
    for movie in inputs.movies:
        if movie.n_frames != usual:
            own = particles.pop(movie.key)
            reason = "left out as asked: it has %d frames, most movies have %d" % (movie.n_frames, usual)
            unreadable[movie.micrograph] = (reason, len(own))
            left_out += [(int(r), int(i), reason) for r, i in zip(own.reference, own.row)]
    return replace(inputs, movies=[m for m in inputs.movies if m.n_frames == usual], particles=particles, unreadable=unreadable, left_out=left_out)


def _coordinate_pixels(catalogue, owner, given):
    """A/px of each particle's coordinates; particles without a readable movie get 1: they do not take part."""
    pixels = np.ones(len(catalogue.names) + 1)
    for index in np.unique(owner[owner >= 0]).tolist():
        movie = catalogue.get(index)
        if movie is not None:
            pixels[index] = given or movie.original_pixel_angstrom * movie.binning
    return pixels[owner]


def _report_match(path, particles, owner, catalogue):
    found = int((owner >= 0).sum())
    log.info("%s: %d of %d particles have a movie in %s (%d movies)", path, found, len(owner), catalogue.path,
             len(np.unique(owner[owner >= 0])))
    if not found:
        raise InputError("none of the %d particles of %s has a movie in %s: rlnMicrographName is %r in the first particle and %r in "
                         "the first movie, and neither these nor their base names agree one to one; give the motion correction job the particles "
                         "were picked from" % (len(owner), path, catalogue.path, str(particles.table.micrograph[0]), catalogue.names[0]))


def _assemble(catalogue, sets, owners, outside_movie):
    table = ParticleTable.concatenate([s.table for s in sets])
    owner = np.concatenate(owners)
    left_out = [(int(table.reference[i]), int(table.row[i]), "no movie is named %s, nor agrees with it alone by base name" % table.micrograph[i])
                for i in np.flatnonzero(owner < 0)]
    movies, members, unreadable = [], {}, {}
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(catalogue.names) + 1))
    for index in np.unique(owner[owner >= 0]).tolist():
        own = table[order[bounds[index]:bounds[index + 1]]]
        movie = catalogue.get(index)
        if movie is None:
            unreadable[catalogue.names[index]] = (catalogue.faults[index], len(own))
            left_out += [(int(r), int(i), "movie failed: " + catalogue.faults[index]) for r, i in zip(own.reference, own.row)]
            continue
        outside = outside_movie(movie, own)
        left_out += [(int(r), int(i), "outside the movie of %d x %d px" % movie.size_yx[::-1])
                     for r, i in zip(own.reference[outside], own.row[outside])]
        if not outside.all():
            _check_key(movie, members, movies)
            movies.append(movie)
            members[movie.key] = own[~outside]
    if not movies:
        raise InputError("no movie can be used: %s" % (next(iter(unreadable.values()))[0] if unreadable else
                         "all particles lie outside their movies; check the pixel size of the coordinates"))
    return JobInputs(movies, members, sets, unreadable, left_out)


def _check_key(movie, members, movies):
    if movie.key in members:
        other = next(m.micrograph for m in movies if m.key == movie.key)
        raise InputError("the micrographs %s and %s would share the folder %s: rename one of them" % (other, movie.micrograph, movie.key))


def values_of(movie):
    """What a movie's own file says of it, for a fingerprint: [name, value] pairs; files by their stamps, since their paths depend on the folder."""
    values = {name: file_stamp(value) if name.endswith("_file") else value for name, value in vars(movie).items()}
    return [[name, value.tolist() if isinstance(value, np.ndarray) else value] for name, value in sorted(values.items())]
