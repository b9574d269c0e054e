"""SetOfParticles -> a particle STAR file that RELION reads; everything the set knows is in it."""
import os
from dataclasses import dataclass
from typing import List

import numpy as np

from ..contract.errors import InputError
from ..contract.star import StarTable, read_tables, write_tables
from .acquisition import optics_rows
from .geometry import angles_and_origins
from .movies import number_text
from .sets import enabled_items, first_item

HALF_ATTRIBUTE = "_rlnRandomSubset"
_KEPT = {"_rlnGroupName": "rlnGroupName", "_rlnGroupNumber": "rlnGroupNumber", "_rlnClassNumber": "rlnClassNumber",
         "_rlnNormCorrection": "rlnNormCorrection"}       # carried for RELION's sake; the engine does not use them


@dataclass(frozen=True)
class _Columns:
    """One list per quantity, all of the same length; ``identifier`` is Scipion's id of the particle."""

    identifier: List[int]
    image: List[str]
    micrograph: list            # (micName, micId)
    coordinate_xy_px: np.ndarray
    matrix: np.ndarray          # (n, 4, 4)
    ctf: np.ndarray             # (n, 4) U, V (A), angle, phase shift (degrees)
    optics_group: List[int]
    extra: dict


def micrograph_counts(particles):
    """(micName, micId) -> number of particles; a query of the set's own file, fast enough for a form."""
    columns = ["_coordinate._micName", "_coordinate._micId"]
    rows = particles.aggregate(["COUNT"], "_coordinate._x", columns)        # every particle has it; some have no name, and nothing is not counted
    return {(row[columns[0]] or "", row[columns[1]]): row["COUNT"] for row in rows}


def _micrograph(particle):
    coordinate = particle.getCoordinate()
    return coordinate.getMicName() or "", coordinate.getMicId()


def movie_pixel_coordinates(coordinate_xy_px, coordinate_pixel_angstrom, movie_pixel_angstrom):
    """Coordinates in unbinned movie px from coordinates in px of ``coordinate_pixel_angstrom``; px 0 is the origin of both."""
    return np.asarray(coordinate_xy_px, dtype=float) * (coordinate_pixel_angstrom / movie_pixel_angstrom)


def write_particles(particles, path, match, micrographs, coordinate_pixel_angstrom, movie_pixel_angstrom, only=None, add=False):
    """Write a particle STAR file.

    Parameters
    ----------
    particles : SetOfParticles with projection alignment, CTF and coordinates.
    path : file to write, relative to the project.
    match : MovieMatch of its micrographs.
    micrographs : dict, movie id -> rlnMicrographName, of the movies that were written.
    coordinate_pixel_angstrom, movie_pixel_angstrom : A/px of the coordinates in the set and of the unbinned movie.
    only : movie ids whose particles are written; none: all particles.
    add : keep the rows that the file has, and write those of particles that are not among them after these.

    Particles without a movie are written too (not with ``only``), with their own micrograph's name: the job lists them with the reason.
    Returns how many were written. Raises InputError when CTF, coordinates or half-sets are incomplete.
    """
    before = read_tables(path)["particles"] if add and os.path.exists(path) else None
    known = set() if before is None else set(before.integers("rlnParticleId").tolist())
    columns = _read(p for p in enabled_items(particles) if p.getObjId() not in known
                    and (only is None or match.movie_of.get(_micrograph(p)) in only))
    names = [micrographs.get(match.movie_of.get(mic), mic[0] or "micrograph_%s" % mic[1]) for mic in columns.micrograph]
    body = _particle_columns(columns, names, particles.getSamplingRate(),
                             movie_pixel_coordinates(columns.coordinate_xy_px, coordinate_pixel_angstrom, movie_pixel_angstrom))
    table = StarTable("particles", body) if before is None else _joined(before, body)
    write_tables(path, [_optics_table(particles, table.integers("rlnOpticsGroup").tolist()), table])
    return len(columns.identifier)


def _joined(before, body):
    """Rows of a file and new ones after them."""
    if not next(iter(body.values())):
        return before
    if not len(before):             # which attributes particles have is not known from none
        return StarTable("particles", body)
    if set(body) != set(before.columns):
        raise InputError("%s: particles that came later lack, or have more than, the attributes %s of the earlier ones: they must come from the "
                         "same refinement" % (before.source, ", ".join(sorted(set(body) ^ set(before.columns)))))
    return StarTable("particles", {name: values + body[name] for name, values in before.columns.items()})


def _read(items):
    identifier, image, micrograph, coordinate, matrix, ctf, group = [], [], [], [], [], [], []
    extra = {name: [] for name in (HALF_ATTRIBUTE, "_rlnCtfBfactor", "_rlnCtfScalefactor") + tuple(_KEPT)}
    for particle in items:
        _require_complete(particle)
        identifier.append(particle.getObjId())
        image.append("%06d@%s" % particle.getLocation())
        micrograph.append(_micrograph(particle))
        coordinate.append(particle.getCoordinate().getPosition())
        matrix.append(particle.getTransform().getMatrix())
        model = particle.getCTF()
        ctf.append((model.getDefocusU(), model.getDefocusV(), model.getDefocusAngle(), model.getPhaseShift() or 0.0))
        group.append(int(particle.getAttributeValue("_rlnOpticsGroup", 1) or 1))
        for name, values in extra.items():
            values.append(particle.getAttributeValue(name, None))
    shaped = [np.array(values, dtype=float).reshape((-1,) + shape) for values, shape in ((coordinate, (2,)), (matrix, (4, 4)), (ctf, (4,)))]
    return _Columns(identifier, image, micrograph, *shaped, group, _complete_columns(extra))


def _require_complete(particle):
    lacks = [name for name, value in (("coordinates", particle.getCoordinate()), ("a CTF", particle.getCTF()),
                                      ("an orientation", particle.getTransform())) if value is None]
    if lacks:
        raise InputError("particle %d has no %s: give particles with coordinates, CTF and orientations"
                         % (particle.getObjId(), " and no ".join(lacks)))


def _complete_columns(extra):
    """Columns that all particles have; those that none has are dropped, half-filled half-sets are an error."""
    half = extra[HALF_ATTRIBUTE]
    missing = sum(v is None for v in half)
    if 0 < missing < len(half):
        raise InputError("%d of %d particles have no half-set (%s): give the particles of one gold-standard refinement"
                         % (missing, len(half), HALF_ATTRIBUTE.strip("_")))
    return {name: values for name, values in extra.items() if all(v is not None for v in values)}


def _particle_columns(columns, micrographs, particle_pixel, coordinate_xy):
    rotation, origin_px = angles_and_origins(columns.matrix)
    numbers = {
        "rlnCoordinateX": coordinate_xy[:, 0], "rlnCoordinateY": coordinate_xy[:, 1],
        "rlnAngleRot": rotation[:, 0], "rlnAngleTilt": rotation[:, 1], "rlnAnglePsi": rotation[:, 2],
        "rlnOriginXAngst": origin_px[:, 0] * particle_pixel, "rlnOriginYAngst": origin_px[:, 1] * particle_pixel,
        "rlnDefocusU": columns.ctf[:, 0], "rlnDefocusV": columns.ctf[:, 1], "rlnDefocusAngle": columns.ctf[:, 2],
        "rlnPhaseShift": columns.ctf[:, 3]}
    body = {"rlnParticleId": columns.identifier, "rlnImageName": columns.image, "rlnMicrographName": micrographs,
            "rlnOpticsGroup": columns.optics_group, **numbers}
    renamed = dict(_KEPT, **{HALF_ATTRIBUTE: "rlnRandomSubset", "_rlnCtfBfactor": "rlnCtfBfactor", "_rlnCtfScalefactor": "rlnCtfScalefactor"})
    body.update({renamed[name]: values for name, values in columns.extra.items()})
    return {name: [number_text(v) for v in values] for name, values in body.items()}


def _optics_table(particles, groups):
    """The set's own optics table (aberrations and all), completed with what Scipion keeps outside of it."""
    acquisition, box = particles.getAcquisition(), particles.getDim()[0]
    rows = optics_rows(acquisition) or [{} for _ in set(groups)]
    numbers = sorted(set(groups)) if not optics_rows(acquisition) else [int(float(r.get("rlnOpticsGroup", 1))) for r in rows]
    lost = sorted(set(groups) - set(numbers))
    if lost:
        raise InputError("particles are of optics group %d, which the set's optics table does not have: import them again, or assign "
                         "optics groups" % lost[0])
    complete = [_optics_row(row, number, acquisition, particles.getSamplingRate(), box, len(rows) > 1)
                for row, number in zip(rows, numbers)]
    names = dict.fromkeys(name for row in complete for name in row)
    return StarTable("optics", {name: [number_text(row.get(name, "0")) for row in complete] for name in names})


def _optics_row(row, number, acquisition, pixel, box, several):
    complete = {"rlnOpticsGroupName": "opticsGroup%d" % number, "rlnOpticsGroup": number, "rlnVoltage": acquisition.getVoltage(),
                "rlnSphericalAberration": acquisition.getSphericalAberration(), "rlnAmplitudeContrast": acquisition.getAmplitudeContrast(),
                "rlnImageDimensionality": 2}
    complete.update(row)
    # One group: the set knows best, its images may have been scaled since. Several may differ from each other: theirs stand.
    if not several or "rlnImagePixelSize" not in row:
        complete.update(rlnImagePixelSize=pixel, rlnImageSize=box)
    return complete


def half_sets_present(particles):
    """True if the first particle says which half-set it belongs to."""
    first = first_item(particles)
    return first is not None and first.getAttributeValue(HALF_ATTRIBUTE, None) in (1, 2)


def coordinate_extent_xy(particles):
    """Largest x and y of the coordinates, in the set's own px; (0, 0) without coordinates."""
    largest = particles.aggregate(["MAX"], "_coordinate._x", []), particles.aggregate(["MAX"], "_coordinate._y", [])
    return tuple(float(rows[0]["MAX"] or 0) if rows else 0.0 for rows in largest)
