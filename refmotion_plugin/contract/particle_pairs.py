"""Which image of the input a polished image was made from."""
from collections import namedtuple

import numpy as np

from .errors import InputError
from .layout import located
from .markers import polished_parts
from .motion_summary import spread
from .star import read_table

ParticlePairs = namedtuple("ParticlePairs", "before after before_pixel_angstrom after_pixel_angstrom micrographs")
"""Images of the same particles as [(path of the stack, 0-based number)] each; ``before`` is None if the input names no images."""


def particle_pairs(results, reference=0, count=8):
    """:class:`ParticlePairs` of up to ``count`` polished particles of one reference, spread evenly over the job; None before there are any.

    ``results`` is a JobResults. Raises InputError if the input particles cannot be read any more.
    """
    entries, pixel = [], None
    n_references = len(results.spec.references)
    for movie in results.movies():
        if movie.polish != "done":
            continue
        for part in polished_parts(results.layout, movie.key, n_references) or []:
            if part["reference"] == reference and part["rows"]:
                stack = results.layout.polished(movie.key, reference, n_references)
                entries += [(row, (str(stack), number), movie.micrograph) for number, row in enumerate(part["rows"])]
                pixel = pixel or float(part["pixel_angstrom"])
    if not entries:
        return None
    chosen = spread(entries, count)
    before, before_pixel = _inputs(results.spec.references[reference].particles, [row for row, _, _ in chosen])
    return ParticlePairs(before, [image for _, image, _ in chosen], before_pixel, pixel, [name for _, _, name in chosen])


def _inputs(star, rows):
    """Images of some rows of a particle STAR file and their pixel size; (None, None) if it names none."""
    table = read_table(star, "particles")
    if "rlnImageName" not in table:
        return None, None
    names = [table.columns["rlnImageName"][row].partition("@") for row in rows]
    try:
        pixel = image_pixel(read_table(star, "optics"), table.rows(rows))
    except InputError:
        return None, None
    return [(str(located(path, star)), int(number) - 1) for number, _, path in names], pixel


def image_pixel(optics, particles):
    """A/px of the images of some rows of a particle table, from their optics table, which may have groups that none of the rows is of."""
    used = np.isin(optics.integers("rlnOpticsGroup", 1), particles.integers("rlnOpticsGroup", 1))
    return optics.rows(np.flatnonzero(used).tolist() or range(len(optics))).number("rlnImagePixelSize")
