"""Writers of the movie formats that no library writes, in arithmetic of their own, and a test that they are sane."""
import struct

import numpy as np

MRC_MODES = {np.dtype(np.int8): 0, np.dtype(np.uint8): 0, np.dtype(np.int16): 1, np.dtype(np.float32): 2,
             np.dtype(np.uint16): 6, np.dtype(np.float16): 12}


def mrc_bytes(stack, mode=None, order="<", imod_flags=None, maximum=0.0, extended=0, width=None):
    """An MRC file as bytes; ``stack`` (frame, H, W) is written as it is, ``width`` replaces the header's nx."""
    stack = np.asarray(stack)
    header = bytearray(1024)
    mode = MRC_MODES[stack.dtype.newbyteorder("=")] if mode is None else mode
    struct.pack_into(order + "4i", header, 0, width or stack.shape[2], stack.shape[1], stack.shape[0], mode)
    struct.pack_into(order + "3f", header, 76, 0.0, maximum, 0.0)
    struct.pack_into(order + "i", header, 92, extended)
    if imod_flags is not None:
        struct.pack_into(order + "2i", header, 152, 1146047817, imod_flags)
    return bytes(header) + b"\1" * extended + stack.astype(stack.dtype.newbyteorder(order)).tobytes()


def pack_nibbles(stack):
    """(frame, H, W) of 0..15 as bytes (frame, H, (W + 1) // 2): the even pixel in the low four bits."""
    out = np.zeros(stack.shape[:2] + ((stack.shape[2] + 1) // 2,), np.uint8)
    for x in range(stack.shape[2]):
        out[:, :, x // 2] += stack[:, :, x].astype(np.uint8) * (16 if x % 2 else 1)
    return out


def run_length_code(events, n_pixels, skip_bits=7, wasteful=False):
    """Events [(pixel, quarter x, quarter y)], sorted by pixel, in the code of EER, bit by bit."""
    bits, position, full = [], 0, (1 << skip_bits) - 1

    def put(value, n_bits):
        bits.extend((value >> i) & 1 for i in range(n_bits))

    def skip(gap):
        for _ in range(gap // full):
            put(full, skip_bits)
            put(0, 4 if wasteful else 0)
        put(gap % full, skip_bits)

    for pixel, quarter_x, quarter_y in events:
        skip(pixel - position)
        put(quarter_x ^ 2, 2)
        put(quarter_y ^ 2, 2)
        position = pixel + 1
    skip(n_pixels - position)
    put(0, 4 if wasteful else 0)
    bits += [0] * (-len(bits) % 8)
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def eer_bytes(frames, shape_yx, compression=65001):
    """An EER file: BigTIFF with one directory a detector frame; ``frames`` are lists of events."""
    height, width = shape_yx
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    for events in frames:
        code = run_length_code(events, height * width, 8 if compression == 65000 else 7, compression == 65000)
        offset = len(out)
        out += code + b"\0" * (len(code) % 2)
        struct.pack_into("<Q", out, link, len(out))
        tags = [(256, 4, width), (257, 4, height), (258, 3, 1), (259, 3, compression), (262, 3, 1), (273, 16, offset),
                (277, 3, 1), (278, 4, height), (279, 16, len(code))]
        out += struct.pack("<Q", len(tags))
        for tag, kind, value in tags:
            out += struct.pack("<HHQQ", tag, kind, 1, value)
        link = len(out)
        out += struct.pack("<Q", 0)
    return bytes(out)


def random_events(rng, n_pixels, n_events):
    """Events of one detector frame."""
    pixels = np.sort(rng.choice(n_pixels, n_events, replace=False))
    return [(int(p), int(x), int(y)) for p, x, y in zip(pixels, rng.integers(0, 4, n_events), rng.integers(0, 4, n_events))]


def test_run_length_code_by_hand():
    # gap 3 = 0000011, quarters 1^2 = 3 and 0^2 = 2, then the gap of 4 pixels to the end; lowest bits first
    bits = "1100000" + "11" + "01" + "0010000"
    expected = np.packbits(np.array([int(b) for b in bits.ljust(24, "0")], np.uint8), bitorder="little").tobytes()
    assert run_length_code([(3, 1, 0)], 8) == expected


def test_nibbles_by_hand():
    assert pack_nibbles(np.array([[[1, 2, 3]]])).tolist() == [[[0x21, 0x03]]]
