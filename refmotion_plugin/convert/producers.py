"""What the programs that aligned a set of movies leave unsaid in it, told from the marks they leave on its movies.

Names of attributes and files are those that scipion-em-motioncorr and scipion-em-xmipp write.
"""
import glob
import itertools
import os

import numpy as np

from ..contract.conventions import eer_upsampling
from ..contract.errors import InputError
from .sets import first_item

_FLEXALIGN_MARK = "_xmipp_ShiftX"
_TIFF = (".tif", ".tiff")
_MOTIONCOR_LOGS = ("%s-Patch-Full.log", "%s-Full.log")
_MOTIONCOR_RUNS = "*_ProtMotionCorr*"
_LOG_DIGITS = 0.011         # the log has two decimals
_OUR_IMPORT = "_ProtImportRelionMovies"


def reading_of(movies):
    """How the frames of a set (or None) have to be read where that differs from the usual: a dict of keys of InputSpec.

    FlexAlign does not turn TIFF movies, and turns their gain instead; RELION and MotionCor do the opposite.
    """
    first = first_item(movies) if movies is not None else None
    if first is None or not _aligned_by_flexalign(first) or not first.getFileName().lower().endswith(_TIFF):
        return {}
    return {"movie_flip_y": False, "gain_flip": 1}


def whole(optics, column, default):
    """A whole number of an optics row; ``default`` where it has none: our import too writes None for groups without movies."""
    text = optics.get(column, "")
    return default if text in ("", "None") else int(float(text))


def gain_is_turned(movies):
    """Whether the gain of a set is the one that RELION used, which it writes turned already: our import links it into its own run."""
    return _OUR_IMPORT in (movies.getGain() or "")


def upsampling_of(optics):
    """How much finer than the sensor movies of an optics row were rendered."""
    return max(1, eer_upsampling(whole(optics, "rlnEERUpsampling", 1)))


def eer_of(movie, optics, dim, n_shifts):
    """(upsampling, frames per fraction) of a movie; (0, 1) if it is no EER.

    ``optics``: row of its optics group; ``dim``: (x, y, frames) of the set. RELION and MotionCor say it in the optics table. FlexAlign does
    not: it cuts the file into as many fractions as there are shifts. Raises InputError if nothing says it.
    """
    if not movie.getFileName().lower().endswith(".eer"):
        return 0, 1
    grouping = whole(optics, "rlnEERGrouping", None)
    if grouping is not None:
        return upsampling_of(optics), max(1, grouping)
    if not _aligned_by_flexalign(movie) or not dim:
        raise InputError("%s is an EER movie, but the set does not say how many of its frames make one fraction (rlnEERGrouping in its "
                         "optics table): align the movies with RELION or, with the RELION plugin installed, with MotionCor"
                         % movie.getFileName())
    return 1, max(1, dim[2] // n_shifts)


def _aligned_by_flexalign(movie):
    return movie.getAttributeValue(_FLEXALIGN_MARK, None) is not None


def log_folders(set_file):
    """Where logs of MotionCor may be for a set of this file: beside it, and in the project's runs of MotionCor if another protocol made the set from theirs."""
    run = os.path.dirname(set_file or "")
    others = glob.glob(os.path.join(glob.escape(os.path.dirname(run)), _MOTIONCOR_RUNS))
    return [os.path.join(folder, "extra") for folder in [run] + sorted(others, reverse=True)]


def shifts_with_origin(movie, shift_xy_px, folders):
    """Shifts (frame, 2) as MotionCor applied them.

    MotionCor aligns to the central frame, so its micrographs show that frame's place; the set holds shifts relative to the first
    frame. Its log in one of ``folders`` (see :func:`log_folders`) has what was applied: taken if it has the same motion.
    """
    stem = os.path.splitext(os.path.basename(movie.getFileName()))[0]
    for folder, pattern in itertools.product(folders, _MOTIONCOR_LOGS):
        applied = _read_log(os.path.join(folder, pattern % stem))
        if applied is not None and applied.shape == shift_xy_px.shape:
            relative = applied - applied[0] - (shift_xy_px - shift_xy_px[0])
            if np.abs(relative).max() < 2 * _LOG_DIGITS:
                return applied
    return shift_xy_px


def _read_log(path):
    """(frame, 2) shifts in x and y of a MotionCor log, or None."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = [line.split()[1:3] for line in file if line.strip() and "#" not in line]
        return np.array(rows, dtype=float).reshape(-1, 2)
    except (OSError, ValueError):
        return None
