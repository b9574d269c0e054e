"""Decoded frames on the disk for temporary files: for movies that are needed again later or do not fit into memory.

Reading a frame back takes much less time than decoding it; frames of small counts take half a byte per pixel. The files have no name:
whatever ends the process, nothing is left behind.
"""
import logging
import math
import os
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch

from refmotion_plugin.contract.errors import MovieError

from .frames import torch_type
from .nibbles import can_be_packed, holding, pack, packed_rows, unpack

LARGEST_SHARE = 0.5                     # of what is free on the disk
IN_MEMORY = ("tmpfs", "ramfs")          # kinds of file systems that are no disk
PACKED_BYTES = 1 << 19                  # packed and written, or read and unpacked, at a time: few enough to stay in the CPU's cache, and not too many calls

log = logging.getLogger(__name__)
_living = weakref.WeakSet()             # of this process


class ScratchError(Exception):
    """Frames could not be written: the disk is full or broken."""


class ScratchFrames:
    """Stands in for a tensor (frame, H, W): frames are written once, ``frames[f]`` reads one. Each has its place in the file, which a packed
    one fills by half: what is not written there takes no room."""

    def __init__(self, shape, dtype, folder):
        self.shape, self.dtype = torch.Size(shape), np.dtype(dtype)
        self._row = shape[2] * self.dtype.itemsize
        self._place = shape[1] * self._row          # of each frame, whether it is filled or not
        self._packed = np.zeros(shape[0], bool)
        self._file = tempfile.TemporaryFile(prefix="refmotion_frames_", dir=folder, buffering=0)
        _living.add(self)

    @property
    def nbytes(self):
        """Room on the disk, as far as is known what the frames take."""
        return sum(self._rows_of(f) for f in range(len(self))) * self._row

    def _rows_of(self, f):
        """Rows that frame ``f`` takes in the file."""
        return packed_rows(self.shape[1]) if self._packed[f] else self.shape[1]

    def __len__(self):
        return self.shape[0]

    def write(self, f, frame):
        """Put frame ``f`` (H, W) there; several threads may, of different frames. Raises ScratchError."""
        self._packed[f] = can_be_packed(frame)
        if not self._packed[f]:
            self._put(f, 0, frame)
            return
        for begin, end in self._bands(0, self._rows_of(f)):
            self._put(f, begin, pack(frame, begin, end))

    def raw(self, f, rows=slice(None)):
        """Frame ``f`` (H, W) or some of its rows, numpy, in the file's type."""
        first, last, _ = rows.indices(self.shape[1])
        if not self._packed[f]:
            return self._read(f, first, last)
        counts = np.empty((last - first, self.shape[2]), np.uint8)
        for begin, end in self._bands(*holding(first, last, self.shape[1])):
            unpack(self._read(f, begin, end), begin, counts, first, self.shape[1])
        return counts

    def _bands(self, begin, end):
        """Rows from ``begin`` to before ``end``, a few at a time."""
        step = max(1, PACKED_BYTES // self._row)
        return [(row, min(row + step, end)) for row in range(begin, end, step)]

    def _put(self, f, row, values):
        """Write rows from ``row`` on."""
        data, done, begin = memoryview(np.ascontiguousarray(values)).cast("B"), 0, f * self._place + row * self._row
        try:
            while done < len(data):
                done += os.pwrite(self._file.fileno(), data[done:], begin + done)
        except OSError as error:
            raise ScratchError(str(error)) from None

    def _read(self, f, first, last):
        """Rows as they are in the file."""
        part = np.empty((last - first, self.shape[2]), self.dtype)
        data, done = memoryview(part).cast("B"), 0
        while done < part.nbytes:
            count = os.preadv(self._file.fileno(), [data[done:]], f * self._place + first * self._row + done)
            if not count:
                raise MovieError("frame %d was written to a temporary file and %d of its %d bytes are there: see whether the disk for "
                                 "temporary files is sound, or give --scratch 0" % (f + 1, first * self._row + done, self._rows_of(f) * self._row))
            done += count
        return part

    def __getitem__(self, f):
        """Frame ``f`` (H, W) in a type torch computes with."""
        return torch.from_numpy(torch_type(self.raw(f)))


class Scratch:
    """Room for decoded frames in ``folder`` (none: where temporary files go): ``most_bytes`` for this process, and half of what is free."""

    def __init__(self, most_bytes, folder=None):
        self.most_bytes, self.folder = most_bytes, folder or tempfile.gettempdir()

    def frames(self, shape, dtype):
        """:class:`ScratchFrames` to be written, or None where there is no room for them."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if sum(frames.nbytes for frames in _living) + size > self.most_bytes:
            return None
        try:
            if size > LARGEST_SHARE * shutil.disk_usage(self.folder).free or file_system(self.folder) in IN_MEMORY:
                return None
            return ScratchFrames(shape, dtype, self.folder)
        except OSError as error:
            log.warning("no decoded frames are kept in %s: %s", self.folder, error)
            return None


def file_system(folder, mounts=Path("/proc/self/mounts")):
    """Kind of the file system that a folder is on, as the system names it; empty where it does not say."""
    place, kind = os.path.realpath(str(folder)), ("", "")
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for _, point, name in (line.split(" ")[:3] for line in lines if line.count(" ") >= 2):
        point = point.replace("\\040", " ")
        if os.path.commonpath([point, place]) == point and len(point) >= len(kind[0]):      # of two at one point the last is seen
            kind = point, name
    return kind[1]
