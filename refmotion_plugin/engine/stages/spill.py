"""Tensors that wait on the disk for temporary files. The file has no name: whatever ends the process, nothing is left behind."""
import os
import tempfile
from dataclasses import dataclass

import numpy as np
import torch

from refmotion_plugin.contract.errors import InputError


@dataclass(frozen=True)
class Place:
    """Where a tensor is in the file, and what it was."""

    offset: int
    shape: tuple
    dtype: np.dtype


class Spill:
    """One file in ``folder`` (none: where temporary files go), made when the first tensor comes."""

    def __init__(self, folder=None):
        self.folder, self._file, self.nbytes = folder, None, 0

    def put(self, tensor):
        """Write a tensor; returns its :class:`Place`. Raises InputError when the disk is full or cannot be written."""
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="refmotion_spill_", dir=self.folder, buffering=0)
            data, done = memoryview(array).cast("B"), 0
            while done < array.nbytes:
                done += os.pwrite(self._file.fileno(), data[done:], self.nbytes + done)
        except OSError as error:
            raise InputError("%.1f GiB do not fit into the memory meant for them, and they cannot wait in the folder for temporary files (%s): give more "
                             "with --cache and --memory, or set TMPDIR to a folder with more space, and give the same command again"
                             % ((self.nbytes + array.nbytes) / 2 ** 30, error)) from None
        place = Place(self.nbytes, array.shape, array.dtype)
        self.nbytes += array.nbytes
        return place

    def get(self, place):
        """The tensor that was put there, on the CPU. Raises InputError if the file became shorter."""
        array = np.empty(place.shape, place.dtype)
        data, done = memoryview(array).cast("B"), 0
        while done < array.nbytes:
            count = os.preadv(self._file.fileno(), [data[done:]], place.offset + done)
            if not count:
                raise InputError("what was written to a temporary file is not there any more: see whether the disk for temporary files is sound")
            done += count
        return torch.from_numpy(array)

    def close(self):
        """Free the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None
