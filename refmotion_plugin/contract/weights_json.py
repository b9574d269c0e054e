"""Dose weights as JSON: everything the .npz holds, one line per row of numbers, to be read and edited by people.

A file written by hand needs little: ``what``, ``dose_e_per_A2`` and a group with either ``weight`` (then with
``frequency_per_angstrom``) or ``b_factor_A2``. Where both stand in a group, ``weight`` counts.
"""
import json

import numpy as np

from .errors import InputError
from .layout import atomic_write, read_json
from .records import DoseWeights
from .spec import SCHEMA
from .weighting import B_FACTOR_AXIS_PER_ANGSTROM, b_factors, band_to, normalise, relative_amplitude

KIND = "dose weights"
PER_FRAME = ("b_factor_A2", "b_factor_error_A2", "scale", "scale_error")
_KEYS = ("what", "schema", "normalisation", "source", "dose_e_per_A2", "frequency_per_angstrom", "groups")


def write_json_weights(path, weights):
    """Write DoseWeights as JSON; the line of a frame can be found and changed."""
    def row(values):
        return "[%s]" % ", ".join("%.9g" % v for v in values)

    groups = []
    for g in range(len(weights.weight)):
        lines = ['      "%s": %s' % (name, row(getattr(weights, name)[g])) for name in PER_FRAME]
        frames = ",\n".join("        " + row(frame) for frame in weights.weight[g])
        groups.append("    {\n%s,\n      \"weight\": [\n%s\n      ]\n    }" % (",\n".join(lines), frames))
    head = [("what", KIND), ("schema", SCHEMA), ("normalisation", weights.normalisation), ("source", weights.source)]
    lines = ['  "%s": %s' % (name, json.dumps(value, ensure_ascii=False)) for name, value in head]
    lines += ['  "%s": %s' % (name, row(getattr(weights, name))) for name in ("dose_e_per_A2", "frequency_per_angstrom")]
    with atomic_write(path, "w") as file:
        file.write("{\n%s,\n  \"groups\": [\n%s\n  ]\n}\n" % (",\n".join(lines), ",\n".join(groups)))


def read_json_weights(path):
    """DoseWeights of a JSON file; raises InputError with one sentence on the first thing that is wrong."""
    data = read_json(path)
    if not isinstance(data, dict) or data.get("what") != KIND or data.get("schema", SCHEMA) != SCHEMA:
        raise InputError("%s is not a JSON file of dose weights (\"what\": \"%s\", \"schema\": %d): give one that refmotion wrote, or "
                         "correct it" % (path, KIND, SCHEMA))
    unknown = sorted(set(data) - set(_KEYS))
    if unknown:
        raise InputError("%s: unknown key %r: %s were expected" % (path, unknown[0], ", ".join(_KEYS)))
    doses, k = _axes(path, data)
    normalisation, groups = data.get("normalisation", "sum"), data.get("groups")
    if normalisation not in ("sum", "power", "peak"):
        raise InputError("%s: normalisation is %r where sum, power or peak was expected" % (path, normalisation))
    if not isinstance(groups, list) or not groups or not all(isinstance(g, dict) for g in groups):
        raise InputError("%s has no groups: a list with an object for each optics group was expected" % path)
    parts = [_group(path, group, len(doses), k, normalisation) for group in groups]
    return DoseWeights(frequency_per_angstrom=k, dose_e_per_A2=doses, normalisation=normalisation, source=str(data.get("source", path)),
                       **{name: np.stack([part[name] for part in parts]) for name in PER_FRAME + ("weight",)})


def _axes(path, data):
    doses = _numbers(path, data, "dose_e_per_A2", None)
    if (np.diff(doses) <= 0).any():
        raise InputError("%s: dose_e_per_A2 must grow from frame to frame" % path)
    k = _numbers(path, data, "frequency_per_angstrom", None) if "frequency_per_angstrom" in data else B_FACTOR_AXIS_PER_ANGSTROM
    if len(k) < 2 or k[0] < 0 or (np.diff(k) <= 0).any():
        raise InputError("%s: frequency_per_angstrom must be two or more growing numbers from 0 up" % path)
    return doses, k


def _group(path, group, n_frames, k, normalisation):
    """Weights and B-factors of one group; each can stand for the other, errors may be left out."""
    unknown = sorted(set(group) - set(PER_FRAME) - {"weight"})
    if unknown:
        raise InputError("%s: unknown key %r in a group: %s and weight were expected" % (path, unknown[0], ", ".join(PER_FRAME)))
    part = {name: _numbers(path, group, name, (n_frames,)) for name in PER_FRAME if name in group}
    if "weight" in group:
        weight = _numbers(path, group, "weight", (n_frames, len(k)))
        if (weight < 0).any() or (weight.sum(0) <= 0).any():
            raise InputError("%s: weights must not be negative, nor 0 in all frames of a frequency" % path)
        described = dict(zip(("b_factor_A2", "scale"), b_factors(weight, k, band_to(0.5 * k[-1], k))))
        part = dict(described, **part)
    elif "b_factor_A2" in part:
        part.setdefault("scale", np.ones(n_frames))
        weight = relative_amplitude(part["b_factor_A2"], part["scale"], k)
    else:
        raise InputError("%s: a group has neither weight nor b_factor_A2: give one of them" % path)
    zero = np.zeros(n_frames)
    return dict({"b_factor_error_A2": zero, "scale_error": zero}, weight=normalise(weight, normalisation), **part)


def _numbers(path, data, name, shape):
    """A finite array of ``shape`` (none: any one-dimensional, not empty) under ``name``."""
    try:
        array = np.array(data.get(name), dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    fits = array.ndim == 1 and len(array) if shape is None else array.shape == shape
    if not fits or not np.isfinite(array).all():
        raise InputError("%s: %s must be %s finite numbers" % (path, name, "a list of" if shape is None else " x ".join(map(str, shape))))
    return array
