"""Results on disk: arrays as NPZ whose keys are the records' own names (which carry the unit), numbers as JSON. No pickle."""
import io
from dataclasses import MISSING, asdict, fields

import numpy as np

from .errors import InputError
from .layout import atomic_write, read_json, write_json
from .reading import read_arrays
from .records import DoseWeights, FccTable, Hyperparameters, Trajectories
from .spec import DEFAULT_HYPERPARAMETERS, SCHEMA
from .verdict import JudgedMovie

_MAY_BE_ZERO = ("early_factor", "jitter_angstrom", "global_angstrom", "movie_spread", "common_sigma")
_TEXT_FIELDS = ("micrograph", "stop_reason", "normalisation", "source")


def _save(path, record):
    known = {f.name: getattr(record, f.name) for f in fields(record)}
    _save_arrays(path, schema=np.int64(SCHEMA), **{name: np.asarray(value) for name, value in known.items() if value is not None})


def _save_arrays(path, **arrays):
    """Made in memory: an archive that a full disk interrupts complains once more, with a traceback, when Python throws it away."""
    whole = io.BytesIO()
    np.savez(whole, **arrays)
    with atomic_write(path) as file:
        file.write(whole.getbuffer())


def _load(path, kind):
    try:
        data = read_arrays(path)
        schema = int(data.pop("schema", -1))
    except (ValueError, TypeError) as error:
        raise InputError("%s cannot be read as %s (%s): give a file that a job wrote, or run the job again"
                         % (path, kind.__name__, error)) from None
    expected, needed = {f.name for f in fields(kind)}, {f.name for f in fields(kind) if f.default is MISSING}      # files of earlier versions lack others
    odd = sorted((set(data) - expected) | (needed - set(data)))
    if schema != SCHEMA or odd:
        raise InputError("%s does not hold %s of schema %d (schema %d%s): run the job again with this version"
                         % (path, kind.__name__, SCHEMA, schema, ", differs in " + ", ".join(odd) if odd else ""))
    record = kind(**{k: str(v) if k in _TEXT_FIELDS else v for k, v in data.items()})
    odd = _odd_field(record, _SHAPES[kind])
    if odd:
        raise InputError("%s holds no sound %s (%s): run the job again" % (path, kind.__name__, odd))
    return record


_SHAPES = {
    Trajectories: {"reference": "n", "row": "n", "position_yx_angstrom": "n2", "displacement_yx_angstrom": "nf2", "deviation_sd_angstrom": "nf", "motion_sd_angstrom": "nf",
                   "initial_yx_angstrom": "nf2", "dose_e_per_A2": "f"},
    FccTable: {"frequency_per_angstrom": "s", "dose_e_per_A2": "f", "cross": "gfs", "power_movie": "gfs", "power_reference": "gfs",
               "components": "gfs"},
    DoseWeights: {"weight": "gfs", "frequency_per_angstrom": "s", "dose_e_per_A2": "f", "b_factor_A2": "gf", "scale": "gf",
                  "b_factor_error_A2": "gf", "scale_error": "gf"},
    JudgedMovie: {"reference": "n", "row": "n", "held_out": "n", "start": "n", "unknown_A2": "n"}}
"""Axes of each array: letters stand for numbers that are the same wherever they occur, digits for themselves."""
_MAY_BE_INFINITE = ("deviation_sd_angstrom", "motion_sd_angstrom", "b_factor_error_A2", "scale_error")


def _odd_field(record, shapes):
    """What is wrong with the first array whose kind, shape or values are; None if nothing is."""
    lengths = {}
    for name, axes in shapes.items():
        array = getattr(record, name)
        if array is None:
            continue
        if array.dtype.kind not in "fiu" or array.ndim != len(axes):
            return "%s is an array of %s with %d axes" % (name, array.dtype, array.ndim)
        for axis, length in zip(axes, array.shape):
            wanted = int(axis) if axis.isdigit() else lengths.setdefault(axis, length)
            if wanted != length:
                return "%s has the shape %s" % (name, " x ".join(map(str, array.shape)))
        if name not in _MAY_BE_INFINITE and not np.isfinite(array).all():
            return "%s has values that are not finite" % name
    return None


def save_trajectories(path, trajectories):
    """Write Trajectories as NPZ."""
    _save(path, trajectories)


def load_trajectories(path):
    """Trajectories of an NPZ. Raises InputError if it is not whole or of another schema."""
    return _load(path, Trajectories)


def save_fcc(path, table):
    """Write an FccTable as NPZ."""
    _save(path, table)


def load_fcc(path):
    """FccTable of an NPZ. Raises InputError if it is not whole or of another schema."""
    return _load(path, FccTable)


def save_weights(path, weights):
    """Write DoseWeights as NPZ."""
    _save(path, weights)


def load_weights(path):
    """DoseWeights of an NPZ. Raises InputError if it is not whole or of another schema."""
    return _load(path, DoseWeights)


def save_judged(path, judged):
    """Write a JudgedMovie as NPZ."""
    _save(path, judged)


def load_judged(path):
    """JudgedMovie of an NPZ. Raises InputError if it is not whole or of another schema."""
    return _load(path, JudgedMovie)


def save_thumbnail(path, image, pixel_angstrom):
    """Write a small average of a movie: ``image`` (h, w) uint8, ``pixel_angstrom`` of it."""
    _save_arrays(path, image=image, pixel_angstrom=np.float64(pixel_angstrom))


def load_thumbnail(path):
    """(image (h, w) uint8, its pixel size in A), or None if there is none or it cannot be read: plots do without."""
    try:
        data = read_arrays(path)
        image, pixel = data["image"], float(data["pixel_angstrom"])
    except (ValueError, KeyError, TypeError):
        return None
    return (image, pixel) if image.ndim == 2 and image.dtype == np.uint8 and image.size and 0 < pixel < np.inf else None


def save_hyperparameters(path, hyperparameters):
    """Write Hyperparameters as JSON."""
    write_json(path, dict(asdict(hyperparameters), schema=SCHEMA))


def load_hyperparameters(path):
    """Hyperparameters of a JSON file.

    Raises InputError for an unknown key, a missing one (all or none) or a value that is no positive number.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError("hyperparameters file %s cannot be read as JSON: give the hyperparameters.json of a job" % path)
    data.pop("schema", None)
    names = [f.name for f in fields(Hyperparameters)]
    data = {**{f.name: f.default for f in fields(Hyperparameters) if f.default is not MISSING}, **data}     # files of earlier versions lack them
    unknown, missing = sorted(set(data) - set(names)), [n for n in names if n not in data]
    if unknown or missing:
        raise InputError("hyperparameters file %s has %s: all of %s are needed and nothing else" % (
            path, "the unknown key %r" % unknown[0] if unknown else "no %s" % ", ".join(missing), ", ".join(names)))
    return _checked(path, data)


def _checked(path, data):
    for name, value in data.items():
        wanted = type(getattr(DEFAULT_HYPERPARAMETERS, name))
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            data[name] = value = float(value)
        may_be_zero = name in _MAY_BE_ZERO
        if not isinstance(value, wanted) or (wanted is float and not (np.isfinite(value) and (value > 0 or may_be_zero and value == 0))):
            raise InputError("hyperparameters file %s: %s is %r where a %s was expected"
                             % (path, name, value, {float: "positive number", str: "word", bool: "true or false"}[wanted]))
    if data["kernel"] not in ("matern", "exponential"):
        raise InputError("hyperparameters file %s: kernel is %r where matern or exponential was expected" % (path, data["kernel"]))
    return Hyperparameters(**data)
