"""Number types of frames on their way from a file to torch."""
import numpy as np


def torch_type(values):
    """torch computes little with uint16: int16 (the same memory) where all values fit, else int32. Others pass."""
    if values.dtype != np.uint16:
        return values
    return values.view(np.int16) if values.max() < 1 << 15 else values.astype(np.int32)
