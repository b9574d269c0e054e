"""Small STAR and text files of RELION's polishing: B-factors per frame, particle tracks, the three sigmas."""
from collections import namedtuple

import numpy as np

from .errors import InputError
from .reading import read_text
from .startable import StarTable, read_table, read_tables, write_tables

FrameBfactors = namedtuple("FrameBfactors", "b_factor_A2 scale")
"""Arrays (frame,): amplitude of frame f is ``scale * exp(-b_factor k^2 / 4)``, so damage has positive B."""


def write_bfactors_star(path, b_factor_A2, scale):
    """Write B-factors and scales per frame as RELION's bfactors.star.

    RELION stores ``-B`` (damage is negative) and ``ln(scale)`` and counts these frames from 0. B below zero is written
    as it is; RELION shifts all of them when it reads the file.
    """
    columns = {"rlnMovieFrameNumber": [str(f) for f in range(len(b_factor_A2))],
               "rlnBfactorUsedForSharpening": ["%.5f" % -b for b in b_factor_A2],
               "rlnFittedInterceptGuinierPlot": ["%.6f" % np.log(max(s, 1e-12)) for s in scale]}
    write_tables(path, [StarTable("perframe_bfactors", columns)])


def read_bfactors_star(path):
    """:class:`FrameBfactors` of a RELION bfactors.star. Raises InputError if it is not one or misses frames."""
    table = read_table(path, "perframe_bfactors")
    frame = table.integers("rlnMovieFrameNumber")
    if sorted(frame) != list(range(len(frame))):
        raise InputError("%s does not have one row per frame counted from 0: give the bfactors.star of a polishing job" % path)
    order = np.argsort(frame)
    b_factor = -table.numbers("rlnBfactorUsedForSharpening")
    return FrameBfactors(b_factor[order], np.exp(table.numbers("rlnFittedInterceptGuinierPlot", 0.0))[order])


def write_tracks_star(path, displacement_yx_angstrom):
    """Write RELION's ``<movie>_tracks.star``: block ``general``, then one block per particle named by its 0-based number.

    ``displacement_yx_angstrom`` (particle, frame, 2): where the particle is seen minus its catalogue position. RELION
    keeps plus the displacement, in A, under the names of the origins.
    """
    tables = [StarTable("general", {"rlnParticleNumber": [str(len(displacement_yx_angstrom))]})]
    for number, track in enumerate(np.asarray(displacement_yx_angstrom)):
        tables.append(StarTable(str(number), {"rlnOriginXAngst": ["%.6f" % v for v in track[:, 1]],
                                              "rlnOriginYAngst": ["%.6f" % v for v in track[:, 0]]}))
    write_tables(path, tables, single_row=("general",))


def read_tracks_star(path):
    """Displacements (particle, frame, 2) in (y, x) order, A, of a RELION ``_tracks.star``."""
    tables = read_tables(path)
    count = int(tables["general"].number("rlnParticleNumber")) if "general" in tables else 0
    missing = [p for p in range(count) if str(p) not in tables]
    if not count or missing:
        raise InputError("%s lacks the track of particle %s: give the _tracks.star of a polishing job" % (path, missing[:1] or 0))
    return np.stack([np.stack([tables[str(p)].numbers("rlnOriginYAngst"), tables[str(p)].numbers("rlnOriginXAngst")], axis=-1)
                     for p in range(count)])


def read_relion_sigmas(path):
    """(velocity, divergence, acceleration) of RELION's ``opt_params*.txt`` of a training run."""
    try:
        values = tuple(float(v) for v in read_text(path).split())
    except (OSError, ValueError) as error:
        raise InputError("%s cannot be read as RELION's three sigmas (%s): give the opt_params file of a training run"
                         % (path, error)) from None
    if len(values) != 3 or not all(0 < v < np.inf for v in values):
        raise InputError("%s holds %d numbers where three positive sigmas (velocity, divergence, acceleration) were expected"
                         % (path, len(values)))
    return values
