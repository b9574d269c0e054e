"""Particles that are given more than once: their images and the evidence would count so too, and none could be judged without its twin."""
import logging

import numpy as np
from scipy.spatial import cKDTree

from refmotion_plugin.contract.errors import InputError

NEAR_ANGSTROM = 5.0     # two particles beside each other are farther apart, the refined places of one that was picked twice rarely are
TELLING_SHARE = 0.05    # of the particles: fewer twins change a verdict by less than what it calls a gain worth having
SAME_ANGSTROM = 0.01    # to which coordinates and origins are compared

log = logging.getLogger(__name__)


class TwinWatch:
    """Looks at the particles of one movie after the other, of all ``sets`` (ParticleSets) that take part."""

    def __init__(self, sets):
        self.sets = sets
        self.particles = self.repeated = self.near = 0
        self.first_repeated = self.first_near = None

    def look(self, particles):
        """Count the twins among one movie's particles (a ParticleTable)."""
        self.particles += len(particles)
        pairs = _repeated(particles)
        if len(pairs):
            self.repeated += len(pairs)
            self.first_repeated = self.first_repeated or self._named(particles, pairs[0])
        elif not self.repeated:         # the job is refused anyway
            pairs = _near(particles.position_yx_angstrom)
            self.near += len(pairs)
            self.first_near = self.first_near or (self._named(particles, pairs[0]) if len(pairs) else None)

    def warnings(self):
        """What looks wrong, sentences. Raises InputError when a particle is given more than once with the same coordinates and origin."""
        if self.repeated:
            raise InputError(
                "%d of %d particles repeat another one of the same micrograph, coordinates and origin, such as %s. Each would count as evidence "
                "more than once: remove the repeated rows (RELION: relion_star_handler --remove_duplicates 5; Scipion: 'Remove duplicates' where sets are joined), put each "
                "particle in one set only, and give symmetry-expanded particles as they were before the expansion" % (self.repeated, self.particles, self.first_repeated))
        if not self.near:
            return ()
        text = ("%d of %d particles are less than %g A from another, such as %s: if these are the same particles, remove one of each pair "
                "(relion_star_handler --remove_duplicates), for they count as evidence twice" % (self.near, self.particles, NEAR_ANGSTROM, self.first_near))
        if self.near >= TELLING_SHARE * self.particles:
            return (text,)
        log.info(text)
        return ()

    def _named(self, particles, pair):
        """Both rows of a pair, with the coordinates as their files have them."""
        (one, first), (other, second) = [(self.sets[r], i) for r, i in sorted((int(particles.reference[i]), int(particles.row[i])) for i in pair)]
        x, y = (one.tables["particles"].columns[name][first] for name in ("rlnCoordinateX", "rlnCoordinateY"))
        where = "rows %d and %d of %s" % (first + 1, second + 1, one.path) if one is other else "row %d of %s and row %d of %s" % (
            first + 1, one.path, second + 1, other.path)
        return "%s (x %s, y %s of %s)" % (where, x, y, particles.micrograph[pair[0]])


def _repeated(particles):
    """(n, 2) indices: particles with the coordinates and the origin of another one, and that."""
    values = np.rint(np.hstack([particles.coordinate_yx_angstrom, particles.origin_yx_angstrom]) / SAME_ANGSTROM)
    order = np.lexsort(values.T)
    same = (np.diff(values[order], axis=0) == 0).all(1)
    return np.stack([order[1:][same], order[:-1][same]], axis=1)


def _near(position_yx_angstrom):
    """(n, 2) indices: particles that have another one near, and the nearest."""
    distance, found = cKDTree(position_yx_angstrom).query(position_yx_angstrom, k=2, distance_upper_bound=NEAR_ANGSTROM)
    own = np.arange(len(found))
    column = (found[:, 0] == own).astype(int)           # of two at one place either may come first
    near = np.flatnonzero(np.isfinite(distance[own, column]))
    return np.stack([near, found[near, column[near]]], axis=1)
