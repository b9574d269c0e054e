"""SetOfMovies -> corrected_micrographs.star and one STAR per movie, as a RELION motion correction job leaves them."""
import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import numpy as np

from ..contract.conventions import relion_eer_upsampling
from ..contract.errors import InputError
from ..contract.star import StarTable, write_tables
from ..contract.star_movies import NOT_OBSERVED
from . import producers
from .acquisition import exposure_of, optics_of, optics_rows, require_exposures
from .sets import enabled_items, first_item


@dataclass(frozen=True)
class MovieRow:
    """What is read of one Movie, its shifts in the convention of the files (to apply, unbinned movie px)."""

    identifier: int
    mic_name: str
    file_name: str
    first_frame: int                        # of the file, counted from 1
    last_frame: int
    skipped_frames: int                     # frames of the exposure before the file's first
    shift_xy_px: np.ndarray                 # (frame, 2) from first to last frame
    local_coefficients: Tuple[float, ...]   # 36 or none
    hot_pixels_xy: Tuple[Tuple[int, int], ...]
    optics: Dict[str, str]
    eer: Tuple[int, int]                    # upsampling and frames per fraction; (0, 1) for other formats
    roi: Tuple[int, ...]                    # x, y, width, height that the micrograph was cropped to; empty: the whole frame
    dose_per_frame: Optional[float]         # e/A^2, of EER movies per hardware frame; None: not known
    dose_initial: float                     # e/A^2 before the exposure's first frame
    voltage: float                          # kV

    @property
    def fraction_dose(self):
        """e/A^2 per frame as it was aligned; Scipion keeps the dose of EER movies per hardware frame."""
        return self.dose_per_frame * self.eer[1]

    @property
    def is_interpolated(self):
        """True if the file is an aligned stack: nothing is left to apply."""
        return len(self.shift_xy_px) > 1 and not np.any(self.shift_xy_px) and not self.local_coefficients


def read_movies(movies):
    """All movies that have an alignment, as ``MovieRow``, and the micNames of those that have none."""
    rows, without = [], []
    optics, logs = optics_rows(movies.getAcquisition()), producers.log_folders(movies.getFileName())
    for movie in enabled_items(movies):
        if movie.getAlignment() is None or not len(movie.getAlignment().getShifts()[0]):
            without.append(movie.getMicName())
        else:
            rows.append(_movie_row(movie, optics, movies, logs))
    return rows, without


def first_movie(movies):
    """``MovieRow`` of the first movie, or None without movies or alignment. Raises InputError like ``read_movies``."""
    first = first_item(movies)
    if first is None or first.getAlignment() is None or not len(first.getAlignment().getShifts()[0]):
        return None
    return _movie_row(first, optics_rows(movies.getAcquisition()), movies, producers.log_folders(movies.getFileName()))


def _movie_row(movie, optics, movies, logs):
    alignment = movie.getAlignment()
    shift_x, shift_y = alignment.getShifts()
    shift = np.stack([np.array(list(shift_x), dtype=float), np.array(list(shift_y), dtype=float)], axis=-1)
    skipped, own_optics = _skipped_frames(movie), optics_of(movie, optics)
    first = max(alignment.getRange()[0], 1) - skipped
    if not np.isfinite(shift).all():
        raise InputError("the alignment of movie %s has a shift that is not a number: run its motion correction again, or leave "
                         "the movie out" % movie.getMicName())
    dose, before, voltage = exposure_of(movie, movies)
    return MovieRow(
        dose_per_frame=dose, dose_initial=before, voltage=voltage,
        identifier=movie.getObjId(), mic_name=movie.getMicName() or "", file_name=movie.getFileName(), first_frame=first,
        last_frame=first + len(shift) - 1, skipped_frames=skipped, optics=own_optics,
        shift_xy_px=producers.shifts_with_origin(movie, shift, logs),
        eer=producers.eer_of(movie, own_optics, movies.getDim(), len(shift)),
        local_coefficients=tuple(float(c) for c in _json_list(movie, "_rlnMotionModelCoeff")),
        hot_pixels_xy=tuple((int(float(x)), int(float(y))) for x, y in _json_list(movie, "_rlnHotPixels")), roi=_roi(alignment))


def _skipped_frames(movie):
    """Frames before the first one in the file: a stack that was written with some frames only begins later in the exposure."""
    first, _, index = list(movie.getFramesRange())
    return max(first - index, 0)


def _roi(alignment):
    roi = [int(v) for v in (alignment.getRoi() or [])]
    return tuple(roi) if any(roi) else ()


def _json_list(item, attribute):
    text = item.getAttributeValue(attribute, None)
    return json.loads(text) if text else []


@dataclass(frozen=True)
class MovieSettings:
    """What all movies of a set share."""

    size_xy: Tuple[int, int]
    n_frames_of_file: int
    pixel_angstrom: float
    voltage: float
    spherical_aberration: float
    amplitude_contrast: float
    gain: Optional[str]


def frame_dose(movies):
    """e/A^2 per frame as the movies were aligned; that of EER movies' fractions. None if it is not known.

    Raises InputError where nothing says what a fraction is, or movies differ in their dose.
    """
    doses, first = {exposure_of(movie, movies)[0] for movie in enabled_items(movies)}, first_item(movies)
    if len(doses) > 1:
        raise InputError("the movies have several doses per frame: give the dose per frame")
    dose = doses.pop() if doses else movies.getAcquisition().getDosePerFrame()
    if not dose or first is None:
        return dose
    aligned = first_movie(movies)
    if aligned is None and first.getFileName().lower().endswith(".eer"):
        raise InputError("%s is an EER movie without an alignment, so it is not known how many of its frames make one fraction: give the dose per frame, or aligned movies"
                         % first.getFileName())
    return dose * (aligned.eer[1] if aligned is not None else 1)


def grid_size(movies):
    """(width, height) in px of the set's pixel size: of EER movies that of the grid they were rendered on, which coordinates are counted on.

    The finest if the optics groups differ. Raises InputError if the size of the movies is not known.
    """
    upsampling = max([producers.upsampling_of(row) for row in optics_rows(movies.getAcquisition())] + [1])
    return tuple(size * upsampling for size in _dimensions(movies)[:2])


def _dimensions(movies):
    dim = movies.getDim()
    if dim is None:
        raise InputError("the size of the movies is not known: the set is empty or its first movie could not be read at import")
    return dim


def movie_settings(movies):
    """Settings of a SetOfMovies. Raises InputError if dose or size are unknown, which decide the result, or if the voltages differ."""
    require_exposures(movies)
    acquisition, dim = movies.getAcquisition(), _dimensions(movies)
    return MovieSettings(
        size_xy=tuple(dim[:2]), n_frames_of_file=dim[2], pixel_angstrom=movies.getSamplingRate(),
        voltage=acquisition.getVoltage(), spherical_aberration=acquisition.getSphericalAberration(),
        amplitude_contrast=acquisition.getAmplitudeContrast(), gain=movies.getGain() or None)


def write_movies(movies, folder, only=None, known=None):
    """Write the movies' STAR files into ``folder``.

    Parameters: ``movies`` SetOfMovies; ``folder`` relative to the project; ``only`` movie ids to write (none: all); ``known`` {movie id:
    rlnMicrographName} of movies that were written before, in the order they shall keep: they come first, and their own files stand.
    Returns (path of corrected_micrographs.star, {movie id: rlnMicrographName}, micNames left out for want of an alignment).
    """
    found, without = read_movies(movies)
    by_id, known = {row.identifier: row for row in found}, known or {}
    new = [row for row in found if row.identifier not in known and (only is None or row.identifier in only)]
    rows = [by_id[identifier] for identifier in known if identifier in by_id] + new
    if not rows:
        raise InputError("none of the %d movies has both particles and an alignment: give the output of a movie alignment"
                         % movies.getSize())
    settings = movie_settings(movies)
    names = dict(list(known.items()) + list(_micrograph_names(new, known.values()).items()))
    metadata = {row.identifier: os.path.join(folder, "movies", names[row.identifier][:-4] + ".star") for row in rows}
    for row in new:
        _write_movie(row, settings, metadata[row.identifier])
    path = os.path.join(folder, "corrected_micrographs.star")
    write_tables(path, [_optics_table([row.optics for row in rows] + optics_rows(movies.getAcquisition()), settings), _micrograph_table(rows, names, metadata)])
    return path, names, without


def _micrograph_names(rows, taken=()):
    """rlnMicrographName per movie id: the micName with the extension mrc, and with the id where two would be the same."""
    stems = [os.path.splitext(os.path.basename(row.mic_name or row.file_name))[0] for row in rows]
    seen = Counter(stems + [os.path.splitext(name)[0] for name in taken])
    unique = [stem if seen[stem] == 1 else "%s_%d" % (stem, row.identifier) for stem, row in zip(stems, rows)]
    return {row.identifier: stem + ".mrc" for stem, row in zip(unique, rows)}


def _write_movie(row, settings, path):
    """One per-movie STAR: blocks general, global_shift, local_motion_model and hot_pixels."""
    general = _general(row, settings)
    tables = [StarTable("general", _single(general)), _shift_table(row, general["rlnImageSizeZ"])]
    if row.local_coefficients:
        tables.append(StarTable("local_motion_model", _texts({
            "rlnMotionModelCoeffsIdx": range(len(row.local_coefficients)), "rlnMotionModelCoeff": row.local_coefficients})))
    if row.hot_pixels_xy:
        x, y = zip(*row.hot_pixels_xy)
        tables.append(StarTable("hot_pixels", _texts({"rlnCoordinateX": x, "rlnCoordinateY": y})))
    write_tables(path, tables, single_row=("general",))


def _general(row, settings):
    upsampling, grouping = row.eer
    general = {
        "rlnImageSizeX": settings.size_xy[0] * max(upsampling, 1),
        "rlnImageSizeY": settings.size_xy[1] * max(upsampling, 1),
        "rlnImageSizeZ": row.last_frame if upsampling else max(settings.n_frames_of_file, row.last_frame),
        "rlnMicrographMovieName": row.file_name,
        "rlnMicrographBinning": 1.0,
        "rlnMicrographOriginalPixelSize": settings.pixel_angstrom,
        "rlnMicrographDoseRate": row.fraction_dose,
        "rlnMicrographPreExposure": row.dose_initial + row.fraction_dose * row.skipped_frames,
        "rlnVoltage": row.voltage,
        "rlnMicrographStartFrame": row.first_frame,
        "rlnMotionModelVersion": 1 if row.local_coefficients else 0}
    for name, value in (("rlnMicrographGainName", _named(row, "rlnMicrographGainName") or settings.gain),
                        ("rlnMicrographDefectFile", _named(row, "rlnMicrographDefectFile"))):
        if value:
            general[name] = value
    if upsampling:
        general.update(rlnEERUpsampling=relion_eer_upsampling(upsampling), rlnEERGrouping=grouping)
    return general


def _named(row, column):
    """A file that the optics group names, or None."""
    value = row.optics.get(column, "").strip('"')
    return value if value not in ("", "None") else None


def _shift_table(row, frames_of_file):
    """Shifts of all frames of the file; those outside the alignment's range are marked as RELION marks them."""
    shift = np.full((frames_of_file, 2), NOT_OBSERVED)
    shift[row.first_frame - 1:row.last_frame] = row.shift_xy_px
    return StarTable("global_shift", _texts({
        "rlnMicrographFrameNumber": range(1, frames_of_file + 1),
        "rlnMicrographShiftX": shift[:, 0], "rlnMicrographShiftY": shift[:, 1]}))


def _optics_table(rows, settings):
    """The sets' own optics table, completed: those of its ``rows`` that movies have first, and groups of which there is no movie; one group where there is none."""
    known = {}
    for optics in rows:
        known.setdefault(optics.get("rlnOpticsGroup", "1"), optics)
    needed = {"rlnMicrographOriginalPixelSize": settings.pixel_angstrom, "rlnVoltage": settings.voltage,
              "rlnSphericalAberration": settings.spherical_aberration, "rlnAmplitudeContrast": settings.amplitude_contrast,
              "rlnMicrographPixelSize": settings.pixel_angstrom}
    complete = [dict(needed, **dict({"rlnOpticsGroupName": "opticsGroup%s" % number, "rlnOpticsGroup": number}, **optics))
                for number, optics in sorted(known.items(), key=lambda pair: float(pair[0]))]
    columns = ["rlnOpticsGroupName", "rlnOpticsGroup"] + [c for c in complete[0] if c not in ("rlnOpticsGroupName", "rlnOpticsGroup")]
    return StarTable("optics", _texts({c: [optics.get(c, "0") for optics in complete] for c in columns}))


def _micrograph_table(rows, names, metadata):
    return StarTable("micrographs", _texts({
        "rlnMicrographName": [names[row.identifier] for row in rows],
        "rlnMicrographMetadata": [metadata[row.identifier] for row in rows],
        "rlnOpticsGroup": [row.optics.get("rlnOpticsGroup", "1") for row in rows]}))


def number_text(value):
    """A number with all its digits, as STAR text."""
    return repr(float(value)) if isinstance(value, (float, np.floating)) else str(value)


def _texts(columns):
    return {name: [number_text(v) for v in values] for name, values in columns.items()}


def _single(columns):
    return _texts({name: [value] for name, value in columns.items()})
