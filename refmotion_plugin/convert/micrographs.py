"""Averages of movies -> SetOfMicrographs: new images, everything else as the movies have it."""
from pwem.objects import Micrograph
from pyworkflow.object import Integer

from ..contract.startable import StarTable, table_text
from .movies import enabled_items, number_text, optics_rows


def fill_micrographs(output, movies, paths, pixel_angstrom):
    """Fill a SetOfMicrographs with the averages of some movies.

    Parameters: ``movies`` SetOfMovies that were averaged; ``paths`` {movie id: image}; ``pixel_angstrom`` A/px of the images. Ids,
    names, dose and optics groups are the movies', so that CTFs, coordinates and particles of either go with the other. Movies that
    ``output`` has already are left as they are. Returns how many were added.
    """
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
        output.append(micrograph)
    return added


def _update_optics(acquisition, pixel_angstrom):
    """The optics text that travels with the set, with the micrographs' own pixel size."""
    rows = optics_rows(acquisition)
    if not rows:
        return
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["rlnMicrographPixelSize"] = [number_text(float(pixel_angstrom))] * len(rows)
    acquisition.opticsGroupInfo.set(table_text(StarTable("optics", columns)).strip() + "\n")
