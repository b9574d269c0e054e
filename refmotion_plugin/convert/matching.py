"""Which movie a particle came from: by name first, by id second, and counted."""
import os
import re
from dataclasses import dataclass
from typing import Dict, List, Tuple

_SUFFIXES = re.compile(r"(_aligned_mic(_dw)?|_doseweighted|_dws?|_patch_aligned(_doseweighted)?|_rigid_aligned|_fractions|_frames|_noduplicates)$",
                       re.IGNORECASE)
_CRYOSPARC_PREFIX = re.compile(r"^\d{15,}_")
_EXTENSIONS = (".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".bz2", ".gz", ".st", ".stk", ".dm4")


@dataclass(frozen=True)
class MovieMatch:
    """``movie_of``: (micName, micId) of the particles -> movie id; counts are of particles."""

    movie_of: Dict[Tuple[str, int], int]
    matched: int
    unmatched: int
    by: Dict[str, int]
    examples: List[str]

    def sentence(self):
        """What was matched, in words."""
        ways = ", ".join("%d by %s" % (count, way) for way, count in self.by.items() if count)
        text = "%d of %d particles belong to one of the movies (%s)" % (self.matched, self.matched + self.unmatched, ways or "none")
        if self.unmatched:
            text += "; %d do not, for example of micrograph %s" % (self.unmatched, ", ".join(self.examples))
        return text


def bare_name(name):
    """Name without folder, extensions, and what motion correction programs append or put before it."""
    stem = os.path.basename(str(name or ""))
    while stem.lower().endswith(_EXTENSIONS):
        stem = os.path.splitext(stem)[0]
    previous = None
    while previous != stem:
        previous, stem = stem, _SUFFIXES.sub("", stem)
    return _CRYOSPARC_PREFIX.sub("", stem)


def match_movies(movie_names, micrograph_counts):
    """Match micrographs of particles with movies.

    Parameters
    ----------
    movie_names : dict, movie id -> micName.
    micrograph_counts : dict, (micName, micId) of particles -> number of particles.

    A name decides where it is unique, exactly first and then bare. The id decides for particles without a name, and for
    all if no name at all was recognised (a protocol renamed them).
    """
    exact, bare = _unique(movie_names, str), _unique(movie_names, bare_name)
    known = any(name in exact or bare_name(name) in bare for name, _ in micrograph_counts if name)
    movie_of, by, unmatched, examples = {}, {"name": 0, "similar name": 0, "id": 0}, 0, []
    for (name, identifier), count in micrograph_counts.items():
        ways = (("name", exact.get(name)), ("similar name", bare.get(bare_name(name)) if name else None),
                ("id", identifier if identifier in movie_names and not (name and known) else None))
        way, movie = next(((w, m) for w, m in ways if m is not None), (None, None))
        if movie is None:
            unmatched += count
            examples = (examples + ["%r" % (name or identifier)])[:3]
        else:
            movie_of[(name, identifier)] = movie
            by[way] += count
    return MovieMatch(movie_of, sum(by.values()), unmatched, by, examples)


def _unique(movie_names, simplify):
    """simplified name -> movie id, for names that only one movie has."""
    found = {}
    for identifier, name in movie_names.items():
        found.setdefault(simplify(name), []).append(identifier)
    return {name: ids[0] for name, ids in found.items() if len(ids) == 1}
