"""Averages of movies -> SetOfMicrographs: new images, everything else as the movies have it."""
import numpy as np
from pwem.objects import Micrograph
from pyworkflow.object import Float, Integer

from ..contract.startable import StarTable, table_text
from .acquisition import optics_rows
from .movies import number_text, read_movies
from .sets import enabled_items

EARLY_DOSE = 4.0        # e/A^2, as RELION's motion correction counts early motion


def fill_micrographs(output, movies, paths, pixel_angstrom):
    """Fill a SetOfMicrographs with the averages of some movies.

    Parameters: ``movies`` SetOfMovies that were averaged; ``paths`` {movie id: image}; ``pixel_angstrom`` A/px of the images. Ids,
    names, dose and optics groups are the movies', so that CTFs, coordinates and particles of either go with the other. How far the
    frames moved is noted as RELION's motion correction does, for protocols that select by it. Movies that ``output`` has already are
    left as they are. Returns how many were added.
    """
    rows = {row.identifier: row for row in read_movies(movies)[0] if row.identifier in paths}
    known = set(output.getIdSet()) if output.getSize() else set()
    output.copyInfo(movies)
    output.setSamplingRate(pixel_angstrom)
    _update_optics(output.getAcquisition(), pixel_angstrom)
    if known:
        output.enableAppend()
    added = 0
    for movie in enabled_items(movies):
        if movie.getObjId() not in paths or movie.getObjId() in known:
            continue
        added += 1
        row = rows[movie.getObjId()]
        micrograph = Micrograph(location=paths[movie.getObjId()])
        micrograph.copyObjId(movie)
        micrograph.setMicName(movie.getMicName())
        micrograph.setSamplingRate(pixel_angstrom)
        micrograph.setAcquisition(_acquisition_of(row, output.getAcquisition()))
        group = movie.getAttributeValue("_rlnOpticsGroup", None)
        if group is not None:
            micrograph._rlnOpticsGroup = Integer(group)
        for name, value in zip(("_rlnAccumMotionTotal", "_rlnAccumMotionEarly", "_rlnAccumMotionLate"), accumulated_motion(row, movies.getSamplingRate())):
            setattr(micrograph, name, Float(value))
        output.append(micrograph)
    return added


def _acquisition_of(row, common):
    """That of the set with what is a movie's own (a MovieRow)."""
    acquisition = common.clone()
    acquisition.setDosePerFrame(row.dose_per_frame)
    acquisition.setDoseInitial(row.dose_initial)
    acquisition.setVoltage(row.voltage)
    return acquisition


def accumulated_motion(row, pixel_angstrom):
    """Length of the rigid motion of a movie (a MovieRow; ``pixel_angstrom`` A/px) in A: in all, in the first 4 e/A^2, and after."""
    steps = np.linalg.norm(np.diff(row.shift_xy_px, axis=0), axis=1) * pixel_angstrom
    dose = row.fraction_dose
    before = row.dose_initial + dose * (row.skipped_frames + row.first_frame - 1)
    early = before + dose * np.arange(2, len(steps) + 2) <= EARLY_DOSE        # dose after the frame that a step leads to
    return float(steps.sum()), float(steps[early].sum()), float(steps[~early].sum())


def _update_optics(acquisition, pixel_angstrom):
    """The optics text that travels with the set, with the micrographs' own pixel size."""
    rows = optics_rows(acquisition)
    if not rows:
        return
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["rlnMicrographPixelSize"] = [number_text(float(pixel_angstrom))] * len(rows)
    acquisition.opticsGroupInfo.set(table_text(StarTable("optics", columns)).strip() + "\n")
