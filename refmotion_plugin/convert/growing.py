"""Sets that another protocol still fills: what of them has come, what is complete, and in which batches it was taken."""
import logging
import os
import sqlite3
import time

from ..contract.layout import read_json, write_json
from .matching import match_movies
from .particles import micrograph_counts
from .sets import enabled_items

log = logging.getLogger(__name__)

BUSY = (sqlite3.OperationalError, sqlite3.DatabaseError)    # another process writes the set at this moment: look again later


def is_open(pointer):
    """True if the set behind an input is still being filled, as far as the project knows."""
    item = pointer.get()
    return item is not None and hasattr(item, "isStreamOpen") and item.isStreamOpen()


def reopened(items):
    """The set as its file has it now. Raises sqlite3.OperationalError while nothing has been written to it."""
    fresh = type(items)(filename=items.getFileName())
    fresh.loadAllProperties()
    return fresh


def matches_of(movies, particle_sets):
    """One MovieMatch per particle set."""
    names = {movie.getObjId(): movie.getMicName() for movie in enabled_items(movies)}
    return [match_movies(names, micrograph_counts(particles)) for particles in particle_sets]


class Look:
    """What growing sets hold at one moment.

    ``counts`` {movie id: number of its particles}; without particle sets 1 per movie. Movies without an alignment are not in it.
    ``sets_of`` {movie id: which of the particle sets have particles in it, by number}; ``n_sets`` how many there are. ``closed``: nothing
    more will come.
    """

    def __init__(self, movies, particle_sets=()):
        opened = [reopened(items) for items in (movies,) + tuple(particle_sets)]
        self.closed = all(items.isStreamClosed() for items in opened)
        aligned = [m.getObjId() for m in enabled_items(opened[0]) if m.getAlignment() is not None and len(m.getAlignment().getShifts()[0])]
        self.counts = {identifier: 0 if particle_sets else 1 for identifier in aligned}
        self.sets_of, self.n_sets = {identifier: set() for identifier in aligned}, len(particle_sets)
        for number, (particles, match) in enumerate(zip(opened[1:], matches_of(opened[0], opened[1:]))):
            for micrograph, count in micrograph_counts(particles).items():
                movie = match.movie_of.get(micrograph)
                if movie in self.counts:
                    self.counts[movie] += count
                    self.sets_of[movie].add(number)
        for items in opened:
            items.close()


class Watch:
    """Looks at growing sets; files that did not change since are not read again."""

    def __init__(self, movies, *particle_sets):
        self.sets, self.stamp, self.last = (movies,) + particle_sets, None, None

    def look(self):
        """The current :class:`Look`; the last one while a set is being written."""
        stamp = [_stamp(name) for items in self.sets for name in (items.getFileName(), items.getFileName() + "-wal")]
        if stamp != self.stamp:
            try:
                self.last, self.stamp = Look(self.sets[0], self.sets[1:]), stamp
            except BUSY as error:
                log.info("a set is being written, looked at again later: %s", error)
        return self.last


def _stamp(name):
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


class Batches:
    """Which movies were taken in which batch, kept in ``path``, so that a run that was stopped goes on with the same batches.

    A movie is taken when its number of particles was the same at two looks, or when the sets are closed. If more of its particles
    come later it is taken again. The first batch, which later ones take the amplitude of the reference from, is as large as
    ``first_particles`` and a particle of each set make it.
    """

    def __init__(self, path, key, size, patience_seconds=60.0, first_particles=1):
        self.path, self.key, self.size, self.patience, self.first_particles = path, key, size, patience_seconds, first_particles
        kept = read_json(path)
        self.taken = [{int(k): v for k, v in batch.items()} for batch in kept["batches"]] if kept and kept["key"] == key else []
        self.before, self.waiting, self.since = {}, {}, time.monotonic()

    @staticmethod
    def belong_to(path, key):
        """True if ``path`` holds the batches of a run with the same parameters."""
        kept = read_json(path)
        return isinstance(kept, dict) and kept.get("key") == key

    def counted(self):
        """{movie id: particles when it was taken last}."""
        found = {}
        for batch in self.taken:
            found.update(batch)
        return found

    def take(self, look):
        """New batches (lists of movie ids) of what is ready now; [] if it is worth waiting for more."""
        known = self.counted()
        ready = {movie: count for movie, count in look.counts.items()
                 if count > known.get(movie, 0) and (look.closed or self.before.get(movie) == count)}
        self.before = dict(look.counts)
        if ready != self.waiting:
            self.waiting, self.since = ready, time.monotonic()
        movies = sorted(ready)
        needed = self.size if self.taken else self._needed_at_first(movies, look)
        if not movies or not look.closed and (needed is None or not self._worth_it(ready)):
            return []
        begins = [0] + list(range(needed or len(movies), len(movies), self.size))
        new = [{movie: ready[movie] for movie in movies[begin:end]} for begin, end in zip(begins, begins[1:] + [len(movies)])]
        self.taken += new
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        write_json(self.path, {"key": self.key, "batches": [{str(k): v for k, v in batch.items()} for batch in self.taken]})
        return [sorted(batch) for batch in new]

    def _needed_at_first(self, movies, look):
        """How many of these movies the first batch takes; None if all are too few."""
        count, found = 0, set()
        for number, movie in enumerate(movies, start=1):
            count += look.counts[movie]
            found |= look.sets_of[movie]
            if count >= self.first_particles and len(found) == look.n_sets:
                return max(number, self.size)
        return None

    def _worth_it(self, ready):
        return len(ready) >= self.size or bool(ready) and time.monotonic() - self.since > self.patience

    def exhausted(self, look):
        """True if nothing more will come and all that came was taken."""
        known = self.counted()
        return look.closed and all(count <= known.get(movie, 0) for movie, count in look.counts.items())
