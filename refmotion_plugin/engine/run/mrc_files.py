"""MRC files of what a job computes: whole or not there, and the same data are the same file."""
import math

import numpy as np
from mrcfile.mrcfile import MrcFile

from refmotion_plugin.contract.layout import atomic_path

LABEL = "Written by refmotion"      # mrcfile's own holds the time
PART_PX = 1 << 16                   # of which statistics are made at a time: they stay in the CPU's cache


def write_mrc(path, images, pixel_angstrom, half=False):
    """Write a micrograph (h, w), or a stack of images (n, h, w), of float32; as float16 if ``half``."""
    data, (least, largest, *others) = images.astype(np.float16) if half else images, statistics(images)
    known = *(np.float32(data.dtype.type(limit)) for limit in (least, largest)), *others         # limits are rounded as their pixels are
    with atomic_path(path) as temporary, _Described(temporary, known) as file:
        file.set_data(data)
        if images.ndim == 3:
            file.set_image_stack()
        file.header.label[0] = LABEL
        file.voxel_size = (pixel_angstrom, pixel_angstrom, 1.0)


def statistics(images):
    """(least, largest, mean, standard deviation) of float32 values (..., w)."""
    flat, mean, square = images.reshape(-1), [], 0.0
    parts = [flat[begin:begin + PART_PX] for begin in range(0, flat.size, PART_PX)]
    for part in parts:
        mean.append(float(part.mean()))
        centred = part - np.float32(mean[-1])
        square += float(centred @ centred)
    size = np.array([part.size for part in parts])
    middle = float(np.average(mean, weights=size))
    between = float((size * np.square(np.array(mean) - middle)).sum())
    return min(part.min() for part in parts), max(part.max() for part in parts), middle, math.sqrt((square + between) / flat.size)


class _Described(MrcFile):
    """A new MRC file whose statistics are known: mrcfile's own take longer on numbers of half precision than all the rest."""

    def __init__(self, path, known):
        self._known = known
        super().__init__(str(path), mode="w+", overwrite=True)

    def update_header_stats(self):
        """Write the known ones."""
        self.header.dmin, self.header.dmax, self.header.dmean, self.header.rms = self._known
