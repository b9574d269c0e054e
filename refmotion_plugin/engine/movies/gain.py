"""Gain references.

The conventions of RELION 3.1 to 5, which upstream motion correction has used:

* Frames are multiplied by the gain. An exception are EER movies: there a gain in MRC or TIFF is divided by (its mean over
  it is the multiplier), while a ``.gain`` file (a TIFF that newer Falcon software writes) is multiplied.
* A TIFF gain is turned upside down on reading, like a TIFF movie; an MRC gain is not; a ``.gain`` of an EER movie is not,
  since EER events are not.
* Zero means a bad pixel.
* Rotation and flip are MotionCor's RotGain and FlipGain: 90 degrees counter-clockwise as seen with row 0 at the bottom
  (clockwise with row 0 on top), then the flip. RELION writes the turned gain to a new file and names that in the movies'
  STAR files, so nothing is to be turned again there.
* EER: a gain of half or twice the size of the rendered frames is replicated or averaged.
"""
import functools
import os
from dataclasses import dataclass

import numpy as np
import torch

from refmotion_plugin.contract.errors import MovieError

from .images import read_image


@dataclass(frozen=True)
class Gain:
    """What frames are multiplied by, and the pixels that have no gain."""

    multiplier: torch.Tensor   # (H, W) float32, 1 at bad pixels
    bad_yx: np.ndarray         # (m, 2) int64


def load_gain(path, shape_yx, rotation=0, flip=0, is_eer=False, turn_tiff=True):
    """Gain for frames of ``shape_yx``; the last two are kept in memory.

    Parameters
    ----------
    path : MRC, TIFF or .gain file.
    shape_yx : of the frames it must fit.
    rotation : times 90 degrees counter-clockwise (row 0 at the bottom), 0..3.
    flip : 0 none, 1 upside down, 2 left to right, after the rotation.
    is_eer : the movie is EER, see the conventions above.
    turn_tiff : turn TIFF gains upside down; False when the TIFF movies are not turned either.

    Returns
    -------
    Gain

    Raises
    ------
    MovieError
        Missing, unreadable, of another shape than the frames, or without a usable pixel.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise MovieError("gain reference %s cannot be read (%s): check its path" % (path, error.strerror)) from None
    return _load(os.fspath(path), stat.st_mtime_ns, stat.st_size, tuple(shape_yx), rotation, flip, is_eer, turn_tiff)


@functools.lru_cache(maxsize=2)
def _load(path, _mtime, _size, shape_yx, rotation, flip, is_eer, turn_tiff):
    own_format = path.lower().endswith(".gain")
    image = read_image(path, "gain reference", turn_tiff and not (is_eer and own_format))
    image = turn(image.astype(np.float32), rotation, flip)
    if is_eer:
        image = _fit_eer(image, shape_yx)
    _check_shape(image.shape, shape_yx, path)
    good = np.isfinite(image) & (image > 0)
    if not good.any():
        raise MovieError("gain reference %s has no positive pixel: give the right file or none" % path)
    if is_eer and not own_format:
        image = np.divide(image.mean(dtype=np.float64, where=good), image, out=np.ones_like(image), where=good)
    multiplier = np.where(good, image, np.float32(1)).astype(np.float32)
    return Gain(torch.from_numpy(multiplier), np.argwhere(~good))


def turn(image, rotation, flip):
    """Rotated, then flipped image; numbers as MotionCor's RotGain and FlipGain (rows counted from the bottom)."""
    image = np.rot90(image, -rotation)
    return image[::-1] if flip == 1 else image[:, ::-1] if flip == 2 else image


def _fit_eer(image, shape_yx):
    for factor in (2, 4):
        if tuple(n * factor for n in image.shape) == shape_yx:
            return image.repeat(factor, axis=0).repeat(factor, axis=1)
        if tuple(n * factor for n in shape_yx) == image.shape:
            return image.reshape(shape_yx[0], factor, shape_yx[1], factor).mean(axis=(1, 3))
    return image


def _check_shape(gain_yx, movie_yx, path):
    if tuple(gain_yx) == tuple(movie_yx):
        return
    if tuple(gain_yx[::-1]) == tuple(movie_yx):
        remedy = "a rotation by 90 degrees would fit: set the gain rotation to 1 or 3"
    else:
        remedy = "a rotation would not help either: give the gain reference that belongs to these movies"
    raise MovieError("gain reference %s is %d x %d px (after rotation) and the movie %d x %d px; %s"
                     % (path, gain_yx[1], gain_yx[0], movie_yx[1], movie_yx[0], remedy))
