"""One frame of LZW strips decoded by libtiff, whose LZW is 1.6 times as fast as imagecodecs' own.

libtiff wants a file, so the strips get one in memory: a header, one directory, the strips. The directory is ours, so nothing of
the movie file but its compressed bytes is interpreted by it.
"""
import struct

import imagecodecs
import numpy as np

LZW = 5
LARGEST = 2 ** 31       # bytes of compressed strips; offsets in the container have 32 bits
SHORT, LONG = 3, 4
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def decode_lzw_strips(strips, shape_yx, dtype, rows_per_strip, predictor=1, byte_order="<"):
    """Pixels (H, W) of the given ``dtype``, or None where libtiff finds fault with the strips.

    Parameters: ``strips`` list of bytes from top to bottom; ``predictor`` 1 none, 2 differences; ``byte_order`` of the movie
    file, < or >. None means that the strips are damaged, or of a kind that is decoded strip by strip.
    """
    if sum(map(len, strips)) >= LARGEST or predictor not in (1, 2):
        return None
    try:
        image = imagecodecs.tiff_decode(_container(strips, shape_yx, np.dtype(dtype), rows_per_strip, predictor, byte_order))
    except Exception:       # damaged strips: the codec's own error, or an IndexError of its wrapping
        return None
    return image if image.shape == tuple(shape_yx) and image.dtype == dtype else None


def _container(strips, shape_yx, dtype, rows_per_strip, predictor, order):
    count = len(strips)
    tags = [(256, LONG, shape_yx[1]), (257, LONG, shape_yx[0]), (258, SHORT, 8 * dtype.itemsize), (259, SHORT, LZW), (262, SHORT, 1),
            (273, LONG, None), (277, SHORT, 1), (278, LONG, rows_per_strip), (279, LONG, None), (317, SHORT, predictor),
            (339, SHORT, SAMPLE_FORMATS[dtype.kind])]
    table = 8 + 2 + 12 * len(tags) + 4                  # where the offsets of the strips stand, then their lengths, then they
    lengths = [len(s) for s in strips]
    offsets = (table + 8 * count + np.concatenate([[0], np.cumsum(lengths)[:-1]])).tolist()
    single = {273: offsets[0], 279: lengths[0]}         # a single value stands in the directory itself
    listed = {273: table, 279: table + 4 * count}
    parts = [struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8), struct.pack(order + "H", len(tags))]
    for tag, kind, value in tags:
        if value is None:
            parts.append(struct.pack(order + "HHII", tag, kind, count, single[tag] if count == 1 else listed[tag]))
        elif kind == SHORT:
            parts.append(struct.pack(order + "HHIHH", tag, kind, 1, value, 0))
        else:
            parts.append(struct.pack(order + "HHII", tag, kind, 1, value))
    parts.append(struct.pack(order + "I", 0))
    parts += [struct.pack(order + "%dI" % count, *values) for values in (offsets, lengths)]
    return b"".join(parts + list(strips))
