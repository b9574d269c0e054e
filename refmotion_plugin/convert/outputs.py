"""Particle STAR file of a finished job -> SetOfParticles: new images, everything else as in the input set."""
import numpy as np
from pwem.constants import NO_INDEX
from pyworkflow.object import Integer

from ..contract.errors import InputError
from ..contract.particle_pairs import image_pixel
from ..contract.star import read_tables
from ..contract.startable import table_text
from .geometry import set_origin
from .particles import HALF_ATTRIBUTE, half_sets_present


def fill_particles(output, source, star_file, movie_pixel_angstrom):
    """Fill ``output`` with the particles of ``source`` that ``star_file`` holds.

    Parameters
    ----------
    output, source : SetOfParticles; ``source`` is the set the job was made from.
    star_file : particle STAR file that the job wrote; ``rlnParticleId`` names the particle of ``source``.
    movie_pixel_angstrom : pixel of rlnCoordinateX/Y in it.

    Ids, half-sets, CTF, orientation and every other attribute stay; half-sets that the job made up are added. Origins, coordinates and
    pixel size follow the new images: coordinates are in px of the particle image again. Returns the number of particles. Raises
    InputError if the file does not fit the set.
    """
    update = _prepared(output, source, star_file, movie_pixel_angstrom)
    rows = update.rows
    output.copyItems(source, updateItemCallback=update, doClone=False)
    if update.count != len(rows):
        raise InputError("%s holds %d particles of which %d are in the input set: the set has changed since the job was made, "
                         "restart the protocol" % (star_file, len(rows), update.count))
    return update.count


def add_particles(output, source, star_file, movie_pixel_angstrom):
    """Like ``fill_particles`` for an output that has some of the particles already: the others are added. Returns their number."""
    there = set(output.getIdSet()) if output.getSize() else set()
    update = _prepared(output, source, star_file, movie_pixel_angstrom, there)
    if not update.row_of:
        return 0
    output.enableAppend()
    for particle in source.iterItems(where="id>=%d AND id<=%d" % (min(update.row_of), max(update.row_of))):
        update(particle, None)
        if particle._appendItem:
            output.append(particle)
    return update.count


def _prepared(output, source, star_file, movie_pixel_angstrom, known=()):
    """The output's properties brought up to date, and the callback that brings particles up to date."""
    tables = read_tables(star_file)
    rows, optics = tables["particles"], tables["optics"]
    pixel, dim = image_pixel(optics, rows), output.getDim() if output.getSize() else None
    output.copyInfo(source)
    if dim is not None:         # of images that are in it already: the source's have another box
        output.setDim(dim)
    output.setSamplingRate(pixel)
    output.setIsPhaseFlipped(False)
    output.setIsAmplitudeCorrected(False)
    _update_optics(output.getAcquisition(), optics)
    row_of = {identifier: i for i, identifier in enumerate(rows.integers("rlnParticleId").tolist()) if identifier not in known}
    return _Update(rows, row_of, pixel, movie_pixel_angstrom, not half_sets_present(source))


class _Update:
    """Callback of ``copyItems``: brings one particle up to date or leaves it out."""

    def __init__(self, rows, row_of, pixel, movie_pixel, halves_made_up):
        self.rows, self.row_of, self.count = rows, row_of, 0
        self.half = rows.integers("rlnRandomSubset").tolist() if halves_made_up else None
        self.locations = [_location(name) for name in rows.columns["rlnImageName"]]
        self.coordinate = np.stack([rows.numbers("rlnCoordinateX"), rows.numbers("rlnCoordinateY")], axis=1)
        self.origin = np.stack([rows.numbers("rlnOriginXAngst"), rows.numbers("rlnOriginYAngst")], axis=1) / pixel
        self.pixel, self.movie_pixel = pixel, movie_pixel

    def __call__(self, particle, _):
        row = self.row_of.get(particle.getObjId())
        if row is None:
            particle._appendItem = False
            return
        particle._appendItem = True
        self.count += 1
        particle.setLocation(*self.locations[row])
        particle.setSamplingRate(self.pixel)
        if self.half is not None:
            setattr(particle, HALF_ATTRIBUTE, Integer(self.half[row]))
        set_origin(particle.getTransform(), self.origin[row])
        particle.getCoordinate().setPosition(*np.rint(self.coordinate[row] * self.movie_pixel / self.pixel).astype(int).tolist())


def _location(image_name):
    number, separator, path = image_name.partition("@")
    return (int(number), path) if separator else (NO_INDEX, image_name)


def _update_optics(acquisition, optics):
    """The optics text of the output: the job's table, so that later RELION protocols see the new box and pixel size."""
    if not acquisition.opticsGroupInfo.get():
        return
    acquisition.opticsGroupInfo.set(table_text(optics).strip() + "\n")
