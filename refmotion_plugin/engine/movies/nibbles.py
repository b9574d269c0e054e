"""Two counts in a byte: a frame of counts below 16, as nearly all of counting cameras are, in half of its room.

The rows of the lower half of the frame share the bytes of those of the upper half, which has one row more if their number is odd: so whole
rows are packed and unpacked at once. numpy makes products and quotients of bytes faster than shifts and remainders.
"""
import numpy as np

BASE = np.uint8(16)


def packed_rows(height):
    """Rows of bytes that so many rows of counts take."""
    return (height + 1) // 2


def can_be_packed(frame):
    """Whether all of ``frame`` are uint8 counts that are small enough."""
    return frame.dtype == np.uint8 and frame.max() < BASE


def pack(frame, begin, end):
    """Rows ``begin`` to before ``end`` of bytes, (rows, W), of counts (H, W)."""
    half = packed_rows(len(frame))
    above, below = frame[begin:end], frame[half + begin:half + end]          # of the last row of an odd number there is none below
    packed = np.empty_like(above)
    np.multiply(below, BASE, out=packed[:len(below)])
    packed[len(below):] = 0
    packed += above
    return packed


def holding(first, last, height):
    """(begin, end) of the rows of bytes that hold rows ``first`` to before ``last`` of so many rows of counts."""
    half = packed_rows(height)
    if last <= half:
        return first, last
    return (first - half, last - half) if first >= half else (0, half)


def unpack(packed, begin, counts, first, height):
    """Put the counts in ``packed``, rows of bytes from ``begin`` on, where they belong in ``counts`` (rows, W), rows from ``first`` on
    of ``height``; those of other rows are left out."""
    half = packed_rows(height)
    for above, limit, take in ((0, half, lambda rows, out: np.bitwise_and(rows, BASE - 1, out=out)),
                               (half, height, lambda rows, out: np.floor_divide(rows, BASE, out=out))):
        low, high = max(begin + above, first), min(begin + above + len(packed), first + len(counts), limit)
        if low < high:
            take(packed[low - above - begin:high - above - begin], counts[low - first:high - first])
