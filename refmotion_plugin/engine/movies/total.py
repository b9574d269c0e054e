"""Sum over the frames of a movie."""
import numpy as np
import torch

from .parallel import each
from .scratch import ScratchFrames

BAND_PX = 1 << 20       # summed at a time: the sum stays in the CPU's cache while the frames pass by; smaller ones ask more often for Python's lock


def sum_frames(frames, threads=1, gain=None):
    """Sum over frames times the gain: tensor (H, W) float32; whole numbers are summed exactly.

    ``frames``: array (frame, H, W), ScratchFrames or StreamedFrames; ``gain`` tensor (H, W) float32 or None. Every pixel's frames are
    added in the same order whatever the number of threads.
    """
    height, width = frames.shape[1:]
    in_bands = isinstance(frames, (np.ndarray, ScratchFrames))      # of others each band would decode all frames anew
    rounds = -(-height * width // (BAND_PX * threads))             # of all threads, none of which waits for the last bands
    step = -(-height // (rounds * threads)) if in_bands else height
    total = np.empty((height, width), np.float32)

    def add(top):
        rows = slice(top, top + step)
        total[rows] = _sum(frames, rows)
        if gain is not None:
            total[rows] *= gain[rows].numpy()

    each(add, range(0, height, step), threads)
    return torch.from_numpy(total)


def _sum(frames, rows):
    """Sum of some rows over frames, one after the other: whole numbers in the narrowest type that holds it (speed), others in float32."""
    if isinstance(frames, np.ndarray):
        return frames[:, rows].sum(axis=0, dtype=_wide(frames.dtype, len(frames)))          # a single step: each asks for Python's lock
    total = None
    for f in range(len(frames)):
        part = frames.raw(f, rows)
        if total is None:
            total = np.zeros(part.shape, _wide(part.dtype, len(frames)))
        total += part
    return total


def _wide(dtype, frames):
    if dtype.kind not in "iu":
        return np.float32
    return np.uint16 if dtype == np.uint8 and frames <= 257 else np.int32
