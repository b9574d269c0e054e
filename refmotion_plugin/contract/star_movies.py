"""Motion correction STAR files: the list of corrected micrographs and one file per movie."""
from collections import namedtuple
from pathlib import Path

import numpy as np

from .conventions import N_LOCAL_COEFFICIENTS, eer_upsampling
from .errors import InputError, MovieError
from .layout import located
from .records import MovieMetadata
from .startable import read_tables

MOST_FRAMES, LARGEST_SIZE_PX = 100000, 131072      # beyond them a file is damaged
NOT_OBSERVED = -9999.0      # RELION's shift of a frame that it did not use

Micrograph = namedtuple("Micrograph", "name metadata_star optics_group")
"""One row of corrected_micrographs.star: rlnMicrographName, rlnMicrographMetadata, rlnOpticsGroup."""


def read_corrected_micrographs(path):
    """The movies of a motion correction job.

    Returns ``(micrographs, optics)``: a list of :class:`Micrograph` and the optics table (a StarTable, or None in files
    older than RELION 3.1). Raises InputError if the file is not such a list, is empty or names a micrograph twice.
    """
    tables = read_tables(path)
    table = tables.get("micrographs") or tables.get("")
    if table is None or not len(table):
        raise InputError("%s lists no micrographs (block data_micrographs): give the corrected_micrographs.star of a motion "
                         "correction job" % path)
    if "rlnMicrographMetadata" not in table:
        raise InputError("%s has no column rlnMicrographMetadata, so the movies' motion is unknown: give the corrected_micrographs.star "
                         "of a RELION motion correction job (not of CTF estimation or of an import)" % path)
    groups = table.integers("rlnOpticsGroup", 1)
    names = table.text("rlnMicrographName").tolist()
    repeated = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise InputError("%s names the micrograph %s more than once: remove the repeated rows" % (path, repeated[0]))
    stars = [located(star, path) for star in table.text("rlnMicrographMetadata").tolist()]
    return [Micrograph(*row) for row in zip(names, stars, groups.tolist())], tables.get("optics")


def read_movie_metadata(star_path, micrograph, optics_voltage_kilovolt=None):
    """What the STAR file of one movie says of it, a MovieMetadata.

    ``micrograph`` is the rlnMicrographName that particles refer to. Without block global_shift the shifts start at zero
    (as RELION does). Raises MovieError with one sentence if the file is missing, damaged or lacks what is needed.
    """
    try:
        tables = read_tables(star_path)
        if "general" not in tables:
            raise InputError("%s has no block data_general: it is not a motion correction file of one movie" % star_path)
        return _metadata(tables, micrograph, optics_voltage_kilovolt)
    except InputError as error:
        raise MovieError(str(error)) from None


def _metadata(tables, micrograph, optics_voltage_kilovolt):
    general = tables["general"]
    start_frame = _whole(general, "rlnMicrographStartFrame", MOST_FRAMES, 1)
    shift = _global_shift(tables.get("global_shift"), _whole(general, "rlnImageSizeZ", MOST_FRAMES), start_frame)
    return MovieMetadata(
        micrograph=micrograph,
        movie_file=_movie_file(general),
        size_yx=(_whole(general, "rlnImageSizeY", LARGEST_SIZE_PX), _whole(general, "rlnImageSizeX", LARGEST_SIZE_PX)),
        n_frames=len(shift),
        original_pixel_angstrom=_positive(general, "rlnMicrographOriginalPixelSize"),
        binning=_positive(general, "rlnMicrographBinning", 1.0),
        dose_per_frame_e_per_A2=_positive(general, "rlnMicrographDoseRate"),
        pre_exposure_e_per_A2=general.number("rlnMicrographPreExposure", 0.0),
        voltage_kilovolt=_positive(general, "rlnVoltage", optics_voltage_kilovolt),
        start_frame=start_frame,
        global_shift_xy_px=shift,
        local_coefficients=_local_coefficients(tables),
        hot_pixels_xy=_hot_pixels(tables.get("hot_pixels")),
        gain_file=located(_optional_text(general, "rlnMicrographGainName"), general.source),
        defect_file=located(_optional_text(general, "rlnMicrographDefectFile"), general.source),
        eer_grouping=_optional_integer(general, "rlnEERGrouping"),
        eer_upsampling=eer_upsampling(_optional_integer(general, "rlnEERUpsampling")))


def _movie_file(general):
    """The movie; never the micrograph beside its STAR file, which has the movie's own name if that is an MRC too."""
    return located(str(general.text("rlnMicrographMovieName")[0]), general.source, Path(general.source).with_suffix(".mrc"))


def _positive(table, column, default=None):
    value = table.number(column, default)
    if value <= 0:
        raise InputError("%s: %s is %g where a positive number was expected: correct the file" % (table.source, column, value))
    return value


def _whole(table, column, most, default=None):
    value = table.number(column, default)
    if not (value == int(value) and 1 <= value <= most):
        raise InputError("%s: %s is %g where a whole number from 1 to %d was expected: correct the file" % (table.source, column, value, most))
    return int(value)


def _optional_text(table, column):
    value = str(table.text(column)[0]) if column in table else ""
    return value if value and value != "None" else None


def _optional_integer(table, column):
    value = table.number(column, 0)
    return _whole(table, column, MOST_FRAMES) if value > 0 else None


def _global_shift(table, frames_of_file, start_frame):
    """(frame, 2) in (x, y) order, px of the unbinned movie, of the frames that were aligned: from ``start_frame`` (1-based, like the
    table's numbers) to the last one that is not marked as not observed. Frames that the table does not name keep the last shift known.
    """
    if not 1 <= start_frame <= frames_of_file:
        raise InputError("the movie's STAR file says that frame %d was the first used and that there are %d frames: run motion "
                         "correction again" % (start_frame, frames_of_file))
    if table is None or not len(table):
        return np.zeros((frames_of_file - start_frame + 1, 2))
    frame = table.integers("rlnMicrographFrameNumber") - 1
    if frame.min() < 0 or frame.max() >= frames_of_file:
        raise InputError("%s has a shift for frame %d but says the movie has %d frames (rlnImageSizeZ): run motion correction again"
                         % (table.source, frame.max() + 1, frames_of_file))
    values = np.stack([table.numbers("rlnMicrographShiftX"), table.numbers("rlnMicrographShiftY")], axis=1)
    order = np.argsort(frame, kind="stable")
    frame, values = frame[order], values[order]
    seen = (values > NOT_OBSERVED + 1).all(axis=1) & (frame >= start_frame - 1)
    if not seen.any():
        raise InputError("%s has no shift of any frame from %d on: run motion correction again" % (table.source, start_frame))
    unused = frame[~seen & (frame > frame[seen][-1])]
    last = unused[0] if len(unused) else frames_of_file
    inside = np.clip(np.searchsorted(frame[seen], np.arange(start_frame - 1, last), side="right") - 1, 0, None)
    return values[seen][inside]


def _local_coefficients(tables):
    """(36,) polynomial coefficients, or None when the model is absent."""
    table = tables.get("local_motion_model")
    if table is None or not len(table) or int(tables["general"].number("rlnMotionModelVersion", 1)) == 0:
        return None
    coefficients = np.zeros(N_LOCAL_COEFFICIENTS)
    index = table.integers("rlnMotionModelCoeffsIdx")
    if len(index) != N_LOCAL_COEFFICIENTS or sorted(index) != list(range(N_LOCAL_COEFFICIENTS)):
        raise InputError("%s has %d local motion coefficients where %d were expected: run motion correction again"
                         % (table.source, len(index), N_LOCAL_COEFFICIENTS))
    coefficients[index] = table.numbers("rlnMotionModelCoeff")
    return coefficients


def _hot_pixels(table):
    if table is None or not len(table):
        return None
    return np.stack([table.integers("rlnCoordinateX"), table.integers("rlnCoordinateY")], axis=1)


