"""How far two half-maps agree, for a form's wizard; the engine finds its own limit."""
from collections import namedtuple

import mrcfile
import numpy as np
import scipy.fft
from pwem.emlib.image import ImageHandler

from ..contract.errors import InputError
from .maps import half_map_files, is_mrc, map_file

MapResolution = namedtuple("MapResolution", "at_half_angstrom at_0143_angstrom")
"""Where the FSC of half-maps first falls below 0.5 and below 0.143."""


def map_resolution(volume, mask=None):
    """:class:`MapResolution` of a Volume's half-maps, inside a VolumeMask if one is given; the mask's own effect is not corrected for."""
    halves = [_read(path) for path in half_map_files(volume)]
    if len(halves) != 2:
        raise InputError("The input volume has no two half-maps: give the volume of a gold-standard refinement")
    inside = _read(map_file(mask.getFileName())) if mask is not None else None
    if len({m.shape for m in halves + ([inside] if inside is not None else [])}) != 1 or len(set(halves[0].shape)) != 1:
        raise InputError("Half-maps and mask have different boxes or are no cubes: give maps on one grid")
    curve = shell_correlation(*(half if inside is None else half * inside for half in halves))
    extent = halves[0].shape[0] * volume.getSamplingRate()
    return MapResolution(*(extent / _crossing(curve, threshold) for threshold in (0.5, 0.143)))


def shell_correlation(first, second):
    """Fourier shell correlation of two real cubes (box, box, box), float64 for shells 0 .. box // 2; shell i is at i / box per px."""
    box = first.shape[0]
    shells = box // 2 + 1
    a, b = (scipy.fft.rfftn(np.asarray(cube, dtype=np.float32), workers=-1) for cube in (first, second))
    frequency = scipy.fft.fftfreq(box, 1.0 / box)
    x = np.arange(a.shape[-1])
    twice = np.where((x == 0) | ((box % 2 == 0) & (x == box // 2)), 1.0, 2.0)     # the other half of space is not stored
    sums = np.zeros((3, shells))
    for z in range(box):                                                          # slice by slice: no third array of this size
        radius = np.rint(np.sqrt(frequency[z] ** 2 + frequency[:, None] ** 2 + x ** 2)).astype(int)
        near = radius < shells
        weight = np.broadcast_to(twice, radius.shape)[near]
        p, q = a[z][near], b[z][near]
        for row, value in enumerate(((p * q.conj()).real, np.abs(p) ** 2, np.abs(q) ** 2)):
            sums[row] += np.bincount(radius[near], value * weight, minlength=shells)
    power = np.sqrt(sums[1] * sums[2])
    return np.divide(sums[0], power, out=np.zeros(shells), where=power > 0)


def _crossing(curve, threshold):
    """Shell, as a real number, where a curve first falls below a threshold; the last shell if it never does."""
    below = np.flatnonzero(curve[1:] < threshold)
    if not len(below):
        return float(len(curve) - 1)
    shell = int(below[0]) + 1
    high, low = curve[shell - 1], curve[shell]
    return max(1.0, shell - 1 + (high - threshold) / (high - low))


def _read(path):
    if not is_mrc(path):
        try:
            return np.squeeze(ImageHandler().read(path).getData()).astype(np.float32)
        except Exception as error:          # xmippLib raises its own kind
            raise InputError("The map %s cannot be read (%s): give an MRC file" % (path, error)) from None
    try:
        with mrcfile.open(path, mode="r", permissive=True) as file:
            return np.array(file.data, dtype=np.float32)
    except (OSError, ValueError) as error:
        raise InputError("The map %s cannot be read as MRC (%s): give an MRC file" % (path, error)) from None
