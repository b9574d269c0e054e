"""MRC movies: plain, bzip2 or gzip. Header after MRC2014 (Cheng et al. 2015) with IMOD's stamp and 4-bit mode."""
import bz2
import gzip
import os
import struct
import threading
import zlib
from dataclasses import dataclass

import numpy as np

from refmotion_plugin.contract.errors import MovieError

HEADER_BYTES = 1024
SKIPPED_BYTES = 1 << 20
IMOD_STAMP = 1146047817          # "IMOD" as an integer, at byte 152; its flags follow at byte 156
IMOD_SIGNED_BYTES = 1            # flag: mode 0 holds signed bytes
IMOD_PACKED_NIBBLES = 16         # flag: mode 0 holds two 4-bit values per byte
PACKED_MODE = 101
DTYPES = {1: "i2", 2: "f4", 6: "u2", 12: "f2"}
SUPPORTED_MODES = (0, 1, 2, 6, 12, PACKED_MODE)
NIBBLE_PAIRS = ((np.arange(256) & 15) | ((np.arange(256) >> 4) << 8)).astype("<u2")      # low nibble first


def unpack_nibbles(packed):
    """Two pixels, uint8 (..., 2 w), from each byte (..., w), that of its low four bits first."""
    return NIBBLE_PAIRS[packed].view(np.uint8)


@dataclass(frozen=True)
class MrcLayout:
    """Where the frames of an MRC file lie and how they are stored."""

    n_frames: int
    shape_yx: tuple
    stored: np.dtype      # as in the file, with byte order; uint8 where packed
    packed: bool          # two pixels a byte
    offset: int           # of the first frame

    @property
    def row_bytes(self):
        """Bytes of one row; a packed row of odd width ends with half a byte of padding."""
        return (self.shape_yx[1] + 1) // 2 if self.packed else self.shape_yx[1] * self.stored.itemsize

    @property
    def frame_bytes(self):
        """Bytes of one frame."""
        return self.row_bytes * self.shape_yx[0]

    @property
    def as_stored(self):
        """Whether the bytes of the file are those of the pixels in memory."""
        return not self.packed and self.stored.isnative

    def decode(self, data):
        """One frame (H, W) in native byte order from its bytes."""
        height, width = self.shape_yx
        if not self.packed:
            return np.frombuffer(data, self.stored).reshape(height, width).astype(self.stored.newbyteorder("="), copy=False)
        return unpack_nibbles(np.frombuffer(data, np.uint8)).reshape(height, 2 * self.row_bytes)[:, :width]


def parse_header(header, path):
    """Layout from the first 1024 bytes.

    Mode 0: signed bytes in MRC2014, but programs that count electrons store unsigned ones. IMOD and SerialEM leave a
    stamp and say in a flag which it is; without the stamp the bytes are taken as unsigned where the header's maximum
    does not fit signed bytes, else as signed.

    Raises MovieError for a file that is not MRC or has an unsupported mode.
    """
    order = _byte_order(header, path)
    nx, ny, nz, mode = struct.unpack_from(order + "4i", header)
    maximum = struct.unpack_from(order + "f", header, 80)[0]
    extended = struct.unpack_from(order + "i", header, 92)[0]
    stamp, flags = struct.unpack_from(order + "2i", header, 152)
    stamped = stamp == IMOD_STAMP
    packed = mode == PACKED_MODE
    if mode == 0 and stamped and flags & IMOD_PACKED_NIBBLES:
        packed, nx = True, 2 * nx
    if packed:
        stored = "u1"
    elif mode == 0:
        signed = flags & IMOD_SIGNED_BYTES if stamped else not maximum > 127
        stored = "i1" if signed else "u1"
    else:
        stored = DTYPES[mode]
    return MrcLayout(nz, (ny, nx), np.dtype(stored).newbyteorder(order), packed, HEADER_BYTES + max(extended, 0))


def _byte_order(header, path):
    if len(header) < HEADER_BYTES:
        raise MovieError("movie %s is truncated: it has %d bytes, fewer than the %d of an MRC header; copy it again"
                         % (path, len(header), HEADER_BYTES))
    modes = []
    for order in ("<", ">"):
        nx, ny, nz, mode = struct.unpack_from(order + "4i", header)
        if 0 < nx < 1 << 20 and 0 < ny < 1 << 20 and 0 < nz < 1 << 20 and 0 <= mode <= 255:
            if mode in SUPPORTED_MODES:
                return order
            modes.append(mode)
    if modes:
        raise MovieError("movie %s is MRC of mode %d, which is not supported: convert it to mode 0, 1, 2, 6, 12 or 101"
                         % (path, modes[0]))
    raise MovieError("movie %s is not an MRC file (its header makes no sense): check what it is, or copy it again" % path)


class MrcFrames:
    """Random access to the frames of an uncompressed MRC file; ``frame`` may be called from several threads."""

    concurrent = True

    def __init__(self, path):
        self.path = path
        self._file = open(path, "rb")
        self._layout = parse_header(self._file.read(HEADER_BYTES), path)
        layout = self._layout
        expected = layout.offset + layout.n_frames * layout.frame_bytes
        actual = os.fstat(self._file.fileno()).st_size
        if actual < expected:
            raise MovieError("movie %s is truncated: its header promises %d frames of %d x %d px, %d bytes, and the file has %d; "
                             "copy it again" % (path, layout.n_frames, *layout.shape_yx[::-1], expected, actual))
        self.n_frames, self.shape_yx = layout.n_frames, layout.shape_yx
        self.dtype = np.dtype(layout.stored.newbyteorder("="))

    def frame(self, index, out=None):
        """Frame ``index`` (H, W), 0-based; in ``out``, if given, unless it had to be another array."""
        layout = self._layout
        direct = out is not None and layout.as_stored
        data = out if direct else np.empty(layout.frame_bytes, np.uint8)
        done = os.preadv(self._file.fileno(), [memoryview(data).cast("B")], layout.offset + index * layout.frame_bytes)
        if done < layout.frame_bytes:
            raise MovieError("movie %s is truncated in frame %d: copy it again" % (self.path, index + 1))
        return out if direct else layout.decode(data)

    def close(self):
        """Close the file."""
        self._file.close()


class CompressedMrcFrames:
    """Frames of an MRC file in bzip2 or gzip: a stream, so fast only when read in order, by one thread."""

    concurrent = False

    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()
        self._stream = None
        self._open()
        self._layout = parse_header(self._take(HEADER_BYTES, "its header"), path)
        self._skip(self._layout.offset - HEADER_BYTES, "its header")
        self.n_frames, self.shape_yx = self._layout.n_frames, self._layout.shape_yx
        self.dtype = np.dtype(self._layout.stored.newbyteorder("="))

    def _open(self):
        if self._stream is not None:
            self._stream.close()
        self._stream = (bz2.open if self.path.lower().endswith(".bz2") else gzip.open)(self.path, "rb")
        self._next = 0

    def _read(self, n_bytes, where):
        try:
            return self._stream.read(n_bytes)
        except EOFError:
            raise MovieError("movie %s is truncated: the compressed stream ends inside %s; copy it again" % (self.path, where)) from None
        except (OSError, zlib.error) as error:
            raise MovieError("movie %s cannot be decompressed (%s): copy it again" % (self.path, error)) from None

    def _take(self, n_bytes, where):
        data = self._read(n_bytes, where)
        if len(data) < n_bytes:
            raise MovieError("movie %s is truncated: the compressed stream ends inside %s; copy it again" % (self.path, where))
        return data

    def _skip(self, n_bytes, where):
        """Read and forget; piece by piece, since a damaged header may promise any number."""
        while n_bytes > 0:
            n_bytes -= len(self._take(min(n_bytes, SKIPPED_BYTES), where))

    def frame(self, index, out=None):
        """Frame ``index`` (H, W), 0-based, never in ``out``; going back starts the stream again."""
        layout = self._layout
        with self._lock:
            if index < self._next:
                self._open()
                self._skip(layout.offset, "its header")
            while self._next < index:
                self._skip(layout.frame_bytes, "frame %d" % (self._next + 1))
                self._next += 1
            data = self._take(layout.frame_bytes, "frame %d" % (index + 1))
            self._next += 1
            if self._next == layout.n_frames:
                self._read(1, "its checksum")   # beyond the data the stream checks itself
        return layout.decode(data)

    def close(self):
        """Close the stream."""
        self._stream.close()
