"""Frames on their way from a file to torch."""
import numpy as np

from refmotion_plugin.contract.errors import MovieError


def sound_frame(reader, index, upside_down):
    """Frame ``index`` of a MovieReader, numpy (H, W) in the file's type, turned if need be. MovieError if it holds values that are not finite."""
    frame = reader.frame(index)
    if frame.dtype.kind == "f" and not np.isfinite(frame).all():
        raise MovieError("movie %s holds values that are not finite: make it again from the raw data" % reader.path)
    return frame[::-1] if upside_down else frame


def torch_type(values):
    """torch computes little with uint16: int16 (the same memory) where all values fit, else int32. Others pass."""
    if values.dtype != np.uint16:
        return values
    return values.view(np.int16) if values.max() < 1 << 15 else values.astype(np.int32)
