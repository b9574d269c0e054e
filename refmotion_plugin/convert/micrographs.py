"""Averages of movies -> SetOfMicrographs: new images, everything else as the movies have it."""
import numpy as np
from pwem.objects import Micrograph
from pyworkflow.object import Float, Integer

from ..contract.startable import StarTable, table_text
from .movies import movie_settings, number_text, optics_rows, read_movies
from .sets import enabled_items

EARLY_DOSE = 4.0        # e/A^2, as RELION's motion correction counts early motion


def fill_micrographs(output, movies, paths, pixel_angstrom):
    """Fill a SetOfMicrographs with the averages of some movies.

    Parameters: ``movies`` SetOfMovies that were averaged; ``paths`` {movie id: image}; ``pixel_angstrom`` A/px of the images. Ids,
    names, dose and optics groups are the movies', so that CTFs, coordinates and particles of either go with the other. How far the
    frames moved is noted as RELION's motion correction does, for protocols that select by it. Movies that ``output`` has already are
    left as they are. Returns how many were added.
    """
    settings = movie_settings(movies)
    motion = {row.identifier: accumulated_motion(row, settings) for row in read_movies(movies)[0] if row.identifier in paths}
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
        micrograph = Micrograph(location=paths[movie.getObjId()])
        micrograph.copyObjId(movie)
        micrograph.setMicName(movie.getMicName())
        micrograph.setSamplingRate(pixel_angstrom)
        micrograph.setAcquisition(output.getAcquisition())
        group = movie.getAttributeValue("_rlnOpticsGroup", None)
        if group is not None:
            micrograph._rlnOpticsGroup = Integer(group)
        for name, value in zip(("_rlnAccumMotionTotal", "_rlnAccumMotionEarly", "_rlnAccumMotionLate"), motion[movie.getObjId()]):
            setattr(micrograph, name, Float(value))
        output.append(micrograph)
    return added


def accumulated_motion(row, settings):
    """Length of the rigid motion of a movie (a MovieRow) in A: in all, in the first 4 e/A^2, and after."""
    steps = np.linalg.norm(np.diff(row.shift_xy_px, axis=0), axis=1) * settings.pixel_angstrom
    dose = settings.fraction_dose(row)
    before = settings.dose_initial + dose * (row.skipped_frames + row.first_frame - 1)
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
