"""Frames on their way from a file to torch."""
import numpy as np

from refmotion_plugin.contract.errors import MovieError

from .parallel import each

TURNED_BYTES = 1 << 18      # of rows that change places at a time: they stay in the CPU's cache


def sound_frame(reader, index, upside_down, out, rows=None):
    """Frame ``index`` of a MovieReader in ``out`` (H, W) of its type, turned if need be; or some ``rows`` of its file, where they belong.

    MovieError if it holds values that are not finite.
    """
    if rows is not None:
        out = out[len(out) - rows.stop:len(out) - rows.start] if upside_down else out[rows]
    frame = reader.frame(index, out, rows)
    if frame.dtype.kind == "f" and not np.isfinite(frame).all():
        raise MovieError("movie %s holds values that are not finite: make it again from the raw data" % reader.path)
    if frame is not out:
        out[...] = frame[::-1] if upside_down else frame
    elif upside_down:
        turn_over(out)
    return out


def turn_over(frame):
    """Turn the rows of ``frame`` (H, W) upside down where they are."""
    height = len(frame)
    step = max(1, TURNED_BYTES // frame[:1].nbytes)
    for top in range(0, height // 2, step):
        above, below = slice(top, min(top + step, height // 2)), slice(height - min(top + step, height // 2), height - top)
        kept = frame[above].copy()
        frame[above] = frame[below][::-1]
        frame[below] = kept[::-1]


def torch_type(values, threads=1):
    """torch computes little with uint16: int16 (the same memory) where all of ``values`` (..., H, W) fit, else int32. Others pass."""
    if values.dtype != np.uint16:
        return values
    largest = max(each(np.max, values.reshape((-1,) + values.shape[-2:]), threads))
    return values.view(np.int16) if largest < 1 << 15 else values.astype(np.int32)
