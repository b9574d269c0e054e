"""Numbers a person would otherwise work out before filling in a form, from the inputs themselves. The wizards put them into words."""
from collections import Counter, namedtuple

from ..contract.errors import InputError
from .acquisition import require_exposures
from .maps import half_map_files, read_header
from .movies import grid_size, read_movies
from .particles import coordinate_extent_xy

FrameSummary = namedtuple("FrameSummary", "first last movies other dose_per_frame")
"""Frames (counted from 1) that most movies have aligned and e/A^2 in each, how many movies those are and how many have others."""
CoordinateFit = namedtuple("CoordinateFit", "pixel_angstrom reach_xy_px size_xy_px")
"""How far the coordinates reach on the movie, in its px, if they are in px of ``pixel_angstrom``."""


def even_box(extent_angstrom, pixel_angstrom):
    """The even number of px nearest to an extent, as the engine rounds it."""
    return 2 * int(round(extent_angstrom / pixel_angstrom / 2))


def map_extent(volume):
    """Width of a volume's half-maps in A. Raises InputError if it has none or they cannot be read."""
    halves = half_map_files(volume)
    if len(halves) != 2:
        raise InputError("The input volume has no two half-maps: give the volume of a gold-standard refinement")
    return _header(halves[0]).shape_zyx[-1] * volume.getSamplingRate()


def frame_summary(movies):
    """:class:`FrameSummary` of a SetOfMovies. Raises InputError without an alignment or dose."""
    rows, _ = read_movies(movies)
    if not rows:
        raise InputError("The input movies have no alignment: give the output of a movie alignment")
    require_exposures(movies)
    (first, last, dose), count = Counter((row.first_frame, row.last_frame, row.fraction_dose) for row in rows).most_common(1)[0]
    return FrameSummary(first, last, count, len(rows) - count, dose)


def coordinate_fit(movies, particles, pixel_angstrom):
    """:class:`CoordinateFit` of a set of particles on its movies."""
    scale = pixel_angstrom / movies.getSamplingRate()
    return CoordinateFit(pixel_angstrom, tuple(scale * v for v in coordinate_extent_xy(particles)), grid_size(movies))


def _header(path):
    try:
        return read_header(path)
    except (OSError, ValueError) as error:
        raise InputError("The map %s cannot be read as MRC (%s): give an MRC file" % (path, error)) from None
