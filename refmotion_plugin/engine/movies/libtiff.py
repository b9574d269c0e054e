"""One frame of LZW strips decoded by libtiff, whose LZW is 1.6 times as fast as imagecodecs' own.

libtiff wants a file, so the strips get one in memory: a header, the strips, one directory. The directory is ours, so nothing of
the movie file but its compressed bytes is interpreted by it.
"""
import struct

import imagecodecs
import numpy as np

LZW = 5
HEADER, DIRECTORY = 8, 2 + 11 * 12 + 4           # bytes
LARGEST = 2 ** 31       # bytes of compressed strips; offsets in the container have 32 bits
SHORT, LONG = 3, 4
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def decode_lzw_strips(lengths, fill, shape_yx, dtype, rows_per_strip, predictor=1, byte_order="<", out=None):
    """Pixels (H, W) of the given ``dtype``, or None where libtiff finds fault with the strips.

    Parameters: ``lengths`` in bytes of the strips from top to bottom; ``fill(room)`` puts them one after the other into ``room``, bytes that
    can be written to, and says whether it could; ``predictor`` 1 none, 2 differences; ``byte_order`` of the movie file, < or >; ``out``
    contiguous array to put the pixels into. None means that the strips are damaged, or of a kind that is decoded strip by strip.

    Several threads do this at once beside another that feeds a GPU: hardly anything here keeps Python's lock for long.
    """
    ends = np.cumsum(np.append(HEADER, lengths))
    if predictor not in (1, 2) or ends[-1] >= LARGEST:
        return None
    directory = _directory(ends, shape_yx, np.dtype(dtype), rows_per_strip, predictor, byte_order)
    container = np.empty(int(ends[-1]) + len(directory), np.uint8)
    if not fill(memoryview(container)[HEADER:ends[-1]]):
        return None
    at = int(ends[-1]) + len(directory) - DIRECTORY
    struct.pack_into(byte_order + "2sHI", container, 0, b"II" if byte_order == "<" else b"MM", 42, at)
    container[ends[-1]:] = np.frombuffer(directory, np.uint8)
    try:
        image = imagecodecs.tiff_decode(container, out=out)
    except Exception:       # damaged strips: the codec's own error, or an IndexError of its wrapping
        return None
    if image.shape != tuple(shape_yx) or image.dtype != dtype:
        return None
    return image if out is None else out        # the codec returns a view of it


def _directory(ends, shape_yx, dtype, rows_per_strip, predictor, order):
    """What follows the strips, which end at ``ends[1:]``: where they are, if several, and the directory in the last ``DIRECTORY`` bytes."""
    count, table = len(ends) - 1, bytes(ends[-1] % 2)
    first = int(ends[-1]) + len(table)
    single = count == 1                                 # a single value stands in the directory itself
    listed = {273: int(ends[0]) if single else first, 279: int(ends[1] - ends[0]) if single else first + 4 * count}
    table += np.concatenate([ends[:-1], np.diff(ends)]).astype(order + "u4").tobytes()
    tags = [(256, LONG, shape_yx[1]), (257, LONG, shape_yx[0]), (258, SHORT, 8 * dtype.itemsize), (259, SHORT, LZW), (262, SHORT, 1),
            (273, LONG, None), (277, SHORT, 1), (278, LONG, rows_per_strip), (279, LONG, None), (317, SHORT, predictor),
            (339, SHORT, SAMPLE_FORMATS[dtype.kind])]
    parts = [struct.pack(order + "H", len(tags))]
    for tag, kind, value in tags:
        if value is None:
            parts.append(struct.pack(order + "HHII", tag, kind, count, listed[tag]))
        elif kind == SHORT:
            parts.append(struct.pack(order + "HHIHH", tag, kind, 1, value, 0))
        else:
            parts.append(struct.pack(order + "HHII", tag, kind, 1, value))
    return table + b"".join(parts) + struct.pack(order + "I", 0)
