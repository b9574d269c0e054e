"""One frame of LZW strips decoded by libtiff, whose LZW is 1.6 times as fast as imagecodecs' own.

libtiff wants a file, so the strips get one in memory: a header, the strips, one directory. The directory is ours, so nothing of
the movie file but its compressed bytes is interpreted by it.
"""
import struct

import imagecodecs
import numpy as np

LZW = 5
LARGEST = 2 ** 31       # bytes of compressed strips; offsets in the container have 32 bits
SHORT, LONG = 3, 4
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def decode_lzw_strips(strips, shape_yx, dtype, rows_per_strip, predictor=1, byte_order="<", out=None):
    """Pixels (H, W) of the given ``dtype``, or None where libtiff finds fault with the strips.

    Parameters: ``strips`` bytes of each from top to bottom, taken one after the other; ``predictor`` 1 none, 2 differences;
    ``byte_order`` of the movie file, < or >; ``out`` contiguous array to put the pixels into. None means that the strips are damaged,
    or of a kind that is decoded strip by strip.
    """
    if predictor not in (1, 2):
        return None
    container = _container(strips, shape_yx, np.dtype(dtype), rows_per_strip, predictor, byte_order)
    if len(container) >= LARGEST:
        return None
    try:
        image = imagecodecs.tiff_decode(container, out=out)
    except Exception:       # damaged strips: the codec's own error, or an IndexError of its wrapping
        return None
    if image.shape != tuple(shape_yx) or image.dtype != dtype:
        return None
    return image if out is None else out        # the codec returns a view of it


def _container(strips, shape_yx, dtype, rows_per_strip, predictor, order):
    """Header, strips, where they are, directory: in this order, so that the strips are copied to their place as they come."""
    container, offsets = bytearray(8), []
    for strip in strips:
        offsets.append(len(container))
        container += strip
        if len(container) >= LARGEST:
            return container
    count, lengths = len(offsets), np.diff(offsets + [len(container)]).tolist()
    container += bytes(len(container) % 2)
    table = len(container)
    single = count == 1                                 # a single value stands in the directory itself
    listed = {273: offsets[0] if single else table, 279: lengths[0] if single else table + 4 * count}
    container += struct.pack(order + "%dI" % (2 * count), *offsets, *lengths)
    tags = [(256, LONG, shape_yx[1]), (257, LONG, shape_yx[0]), (258, SHORT, 8 * dtype.itemsize), (259, SHORT, LZW), (262, SHORT, 1),
            (273, LONG, None), (277, SHORT, 1), (278, LONG, rows_per_strip), (279, LONG, None), (317, SHORT, predictor),
            (339, SHORT, SAMPLE_FORMATS[dtype.kind])]
    struct.pack_into(order + "2sHI", container, 0, b"II" if order == "<" else b"MM", 42, len(container))
    container += struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        if value is None:
            container += struct.pack(order + "HHII", tag, kind, count, listed[tag])
        elif kind == SHORT:
            container += struct.pack(order + "HHIHH", tag, kind, 1, value, 0)
        else:
            container += struct.pack(order + "HHII", tag, kind, 1, value)
    container += struct.pack(order + "I", 0)
    return container
