"""Two counts in a byte: a frame of counts below 16, as nearly all of counting cameras are, in half of its room.

The rows of the lower half of the frame share the bytes of those of the upper half, which has one row more if their number is odd: so
whole rows are packed and unpacked at once. Products and quotients of bytes are several times faster than shifts and remainders.
"""
import numpy as np

BASE = np.uint8(16)


def packed_rows(height):
    """Rows of bytes that so many rows of counts take."""
    return (height + 1) // 2


def pack(frame):
    """Bytes (packed rows, W) of counts (H, W); None if one is too large or they are not uint8."""
    if frame.dtype != np.uint8 or frame.max() >= BASE:
        return None
    half = packed_rows(len(frame))
    packed = frame[:half].copy()
    packed[:len(frame) - half] += frame[half:] * BASE
    return packed


def unpack(read, first, last, height):
    """Rows from ``first`` to before ``last`` of counts (height, W): uint8 (rows, W). ``read(first, last)`` gives rows of bytes."""
    half = packed_rows(height)
    middle = min(max(half, first), last)        # the rows from here on are in the lower half
    spans = [span for span in ((first, middle), (middle - half, last - half)) if span[0] < span[1]]
    begin = min(span[0] for span in spans)
    packed = read(begin, max(span[1] for span in spans))
    counts = np.empty((last - first, packed.shape[1]), np.uint8)
    upper, lower = counts[:middle - first], counts[middle - first:]
    if len(upper):
        np.bitwise_and(packed[first - begin:middle - begin], BASE - 1, out=upper)
    if len(lower):
        np.floor_divide(packed[middle - half - begin:last - half - begin], BASE, out=lower)
    return counts
