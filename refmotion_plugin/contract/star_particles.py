"""Particle STAR files: RELION's rows to ParticleTable, and back with everything kept that is not changed."""
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Dict

import numpy as np

from .errors import InputError
from .layout import located
from .records import OpticsGroup, ParticleTable
from .startable import StarTable, read_tables, write_tables


@dataclass(frozen=True)
class ParticleSet:
    """One particle STAR file: the arrays the engine uses and the full text of every table."""

    path: str
    reference: int
    table: ParticleTable
    optics: Dict[int, OpticsGroup]
    tables: Dict[str, StarTable]          # every block of the file, as text

    def __len__(self):
        return len(self.table)


def read_particles(path, reference_index=0, coordinate_pixel_angstrom=1.0, half_sets_from_order=False):
    """A RELION 3.1+ particle STAR file as :class:`ParticleSet`.

    Parameters: ``coordinate_pixel_angstrom`` is the size of one pixel of rlnCoordinateX/Y in A: a number, or a callable
    that takes the particles' micrograph names (an array) and returns one number per particle.
    Raises InputError when poses, CTF, half-sets or the optics table are missing or not finite.
    """
    tables = read_tables(path)
    if "optics" not in tables or "particles" not in tables:
        raise InputError("%s has no optics table (blocks data_optics and data_particles), so it is no particle file of RELION 3.1 "
                         "or later: convert an older one with 'relion_convert_star --i %s --o converted.star'" % (path, path))
    rows, optics = tables["particles"], _read_optics(tables["optics"])
    if not len(rows):
        raise InputError("%s holds no particles: give a file with at least one row" % path)
    micrograph = rows.text("rlnMicrographName")
    pixel = coordinate_pixel_angstrom(micrograph) if callable(coordinate_pixel_angstrom) else coordinate_pixel_angstrom
    groups = _groups(rows, optics)
    table = ParticleTable(
        row=np.arange(len(rows)), reference=np.full(len(rows), reference_index, np.int32), micrograph=micrograph,
        coordinate_yx_angstrom=_yx(rows, "rlnCoordinateX", "rlnCoordinateY") * np.broadcast_to(pixel, len(rows))[:, None],
        origin_yx_angstrom=_origins(rows, optics, groups), rotation_zyz_degree=_rotations(rows),
        half=_halves(rows, half_sets_from_order), optics_group=groups,
        defocus_u_angstrom=rows.numbers("rlnDefocusU"), defocus_v_angstrom=rows.numbers("rlnDefocusV"),
        defocus_angle_degree=rows.numbers("rlnDefocusAngle"), phase_shift_degree=rows.numbers("rlnPhaseShift", 0.0),
        ctf_bfactor_A2=rows.numbers("rlnCtfBfactor", 0.0), ctf_scale=rows.numbers("rlnCtfScalefactor", 1.0))
    return ParticleSet(str(path), reference_index, table, optics, tables)


def _yx(rows, column_x, column_y, default=None):
    return np.stack([rows.numbers(column_y, default), rows.numbers(column_x, default)], axis=1)


def _rotations(rows):
    if "rlnAngleRot" not in rows or "rlnAngleTilt" not in rows:
        raise InputError("%s has no orientations (rlnAngleRot, rlnAngleTilt, rlnAnglePsi): give the particles of a 3D refinement"
                         % rows.source)
    return np.stack([rows.numbers("rlnAngleRot"), rows.numbers("rlnAngleTilt"), rows.numbers("rlnAnglePsi")], axis=1)


def _origins(rows, optics, groups):
    """Origins in A; files converted from RELION 3.0 may have them in px of the particle images."""
    if "rlnOriginXAngst" not in rows and "rlnOriginX" in rows:
        pixel = np.array([optics[g].image_pixel_angstrom for g in groups])
        return _yx(rows, "rlnOriginX", "rlnOriginY") * pixel[:, None]
    return _yx(rows, "rlnOriginXAngst", "rlnOriginYAngst", 0.0)


def _halves(rows, from_order):
    if "rlnRandomSubset" not in rows:
        if from_order:
            return (np.arange(len(rows)) % 2 + 1).astype(np.int8)
        raise InputError("%s has no half-sets (column rlnRandomSubset): give the particles of a gold-standard 3D refinement, the "
                         "ones its two half-maps were made of" % rows.source)
    half = rows.integers("rlnRandomSubset")
    wrong = np.flatnonzero((half != 1) & (half != 2))
    if len(wrong):
        raise InputError("%s: rlnRandomSubset of row %d is %d where 1 or 2 was expected: give the particles of a gold-standard 3D "
                         "refinement" % (rows.source, wrong[0] + 1, half[wrong[0]]))
    return half.astype(np.int8)


def _groups(rows, optics):
    default = next(iter(optics)) if len(optics) == 1 else None
    groups = rows.integers("rlnOpticsGroup", default).astype(np.int32)
    unknown = sorted(set(np.unique(groups).tolist()) - set(optics))
    if unknown:
        raise InputError("%s: particles have optics group %d, but its optics table has only %s: correct the file"
                         % (rows.source, unknown[0], ", ".join(map(str, sorted(optics)))))
    return groups


def _read_optics(table):
    groups = {}
    for i in range(len(table)):
        group = _optics_group(table.rows([i]))
        groups[group.number] = group
    if not groups:
        raise InputError("%s has an empty optics table: a row per optics group was expected" % table.source)
    return groups


def _optics_group(row):
    """One row of the optics table (a StarTable of one row)."""
    number = int(row.number("rlnOpticsGroup", 1))
    size = int(row.number("rlnImageSize"))
    return OpticsGroup(
        number=number, name=str(row.text("rlnOpticsGroupName", "opticsGroup%d" % number)[0]),
        voltage_kilovolt=row.number("rlnVoltage"), spherical_aberration_millimetre=row.number("rlnSphericalAberration"),
        amplitude_contrast=row.number("rlnAmplitudeContrast"), image_pixel_angstrom=row.number("rlnImagePixelSize"),
        image_size_px=size,
        micrograph_original_pixel_angstrom=(row.number("rlnMicrographOriginalPixelSize")
                                            if "rlnMicrographOriginalPixelSize" in row else None),
        beam_tilt_xy_milliradian=(row.number("rlnBeamTiltX", 0.0), row.number("rlnBeamTiltY", 0.0)),
        odd_zernike=_vector(row, "rlnOddZernike"), even_zernike=_vector(row, "rlnEvenZernike"),
        magnification_matrix=tuple(row.number("rlnMagMat" + ij, default)
                                   for ij, default in (("00", 1.0), ("01", 0.0), ("10", 0.0), ("11", 1.0))),
        mtf_file=_mtf(row), ctf_premultiplied=bool(row.number("rlnCtfDataAreCtfPremultiplied", 0)))


def _mtf(row):
    name = str(row.text("rlnMtfFileName", "")[0])
    return located(name, row.source) if name and name != "None" else None


def _vector(row, column):
    """RELION writes a vector as [a,b,c]."""
    if column not in row:
        return ()
    try:
        return tuple(float(v) for v in row.columns[column][0].strip("[]").split(",") if v)
    except ValueError:
        raise InputError("%s: %s is %r where a list like [0.1,0.2] was expected: correct the optics table"
                         % (row.source, column, row.columns[column][0])) from None


def _stem(name):
    return PurePosixPath(name).with_suffix("").name


def match_micrographs(particle_micrographs, micrographs):
    """Which movie each particle belongs to, by the exact rlnMicrographName first, by base name without extension second.

    Parameters: names (n,) of the particles and a list of the movies' names. Returns an int array (n,): index into
    ``micrographs``, -1 for none. A base name matches only if one movie and one of the particles' names have it: of two micrographs of that
    name in other folders, one may have no movie in the list.
    """
    exact = {name: i for i, name in enumerate(micrographs)}
    names, inverse = np.unique(np.asarray(particle_micrographs), return_inverse=True)
    movies, sharing = _by_stem(micrographs), _by_stem(names.tolist())
    found = [exact.get(name, movies[_stem(name)][0] if len(movies.get(_stem(name), ())) == len(sharing[_stem(name)]) == 1 else -1)
             for name in names.tolist()]
    return np.array(found, dtype=np.int64)[inverse]


def _by_stem(names):
    """Base name without extension -> the places of ``names`` that have it."""
    places = {}
    for i, name in enumerate(names):
        places.setdefault(_stem(name), []).append(i)
    return places


def write_particles(path, particles, rows, image_names, output_pixel_and_box, moved_px_and_angstrom=None):
    """Write polished particles: all columns and the order of the input kept, images and optics brought up to date, half-sets added if there were none.

    Parameters: ``particles`` a ParticleSet; ``rows`` (m,) rows of the input that leave, in input order; ``image_names``
    (m,) ``number@stack``; ``output_pixel_and_box`` maps optics group -> (A/px, px) of the new images;
    ``moved_px_and_angstrom``: given when images were recentred, two arrays (m, 2) in (y, x) order, what leaves the origins
    and enters the coordinates, in px of the coordinates and in A.
    """
    rows = np.asarray(rows)
    body = particles.tables["particles"].rows(rows.tolist()).with_columns(rlnImageName=image_names)
    if "rlnRandomSubset" not in body:       # by their order in the input, which is not the order of those that leave
        body = body.with_columns(rlnRandomSubset=particles.table.half[rows])
    if moved_px_and_angstrom is not None:
        body = _moved(body, particles.table.origin_yx_angstrom[rows], *moved_px_and_angstrom)
    elif "rlnOriginXAngst" not in body and "rlnOriginX" in body:        # which counts in px of the images, and these are others now
        body = _with_origins(body, particles.table.origin_yx_angstrom[rows])
    optics = particles.tables["optics"]
    numbers = optics.integers("rlnOpticsGroup", 1).tolist()
    pixel = ["%.6f" % output_pixel_and_box[n][0] if n in output_pixel_and_box else old
             for n, old in zip(numbers, optics.columns["rlnImagePixelSize"])]
    size = [str(output_pixel_and_box[n][1]) if n in output_pixel_and_box else old
            for n, old in zip(numbers, optics.columns["rlnImageSize"])]
    optics = optics.with_columns(rlnImagePixelSize=pixel, rlnImageSize=size, rlnCtfDataAreCtfPremultiplied=["0"] * len(numbers))
    others = [t for name, t in particles.tables.items() if name not in ("optics", "particles")]
    write_tables(path, [optics, body] + others)


def _moved(body, origin_yx_angstrom, moved_yx_px, moved_yx_angstrom):
    coordinate = _yx(body, "rlnCoordinateX", "rlnCoordinateY") - moved_yx_px
    return _with_origins(_with_yx(body, "rlnCoordinateX", "rlnCoordinateY", coordinate), origin_yx_angstrom - moved_yx_angstrom)


def _with_origins(body, origin_yx_angstrom):
    body = _with_yx(body, "rlnOriginXAngst", "rlnOriginYAngst", origin_yx_angstrom)
    return replace(body, columns={k: v for k, v in body.columns.items() if k not in ("rlnOriginX", "rlnOriginY")})


def _with_yx(body, column_x, column_y, values_yx):
    return body.with_columns(**{name: ["%.6f" % v for v in values_yx[:, i]] for name, i in ((column_x, 1), (column_y, 0))})


def write_left_out(path, entries):
    """Write the particles that do not leave. ``entries``: (ParticleSet, row, reason) each; nothing is dropped in silence."""
    columns = {name: [] for name in ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "refmotionReference",
                                     "refmotionRow", "refmotionReason")}
    for particles, row, reason in entries:
        source = particles.tables["particles"].columns
        for name in ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"):
            columns[name].append(source[name][row])
        columns["refmotionReference"].append(str(particles.reference + 1))
        columns["refmotionRow"].append(str(row + 1))
        columns["refmotionReason"].append(reason)
    write_tables(path, [StarTable("particles", columns)])
