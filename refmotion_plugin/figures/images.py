"""Images for the eye: micrographs made small, particles from stacks, contrast and low-pass."""
import functools
import logging
from collections import namedtuple

import mrcfile
import numpy as np

log = logging.getLogger(__name__)

Background = namedtuple("Background", "grey extent_xy_angstrom")
"""``grey`` (h, w) in 0 ... 1, row 0 at y = 0; ``extent_xy_angstrom`` (x0, x1, y0, y1) of its edges."""

UNREADABLE = (OSError, ValueError, IndexError, AttributeError, OverflowError)       # of mrcfile, by what is no MRC file or cut off: it may have no data
LONGEST_SIDE_PX = 512
SEEN_PERCENTILES = (1.0, 99.0)


def read_background(path, pixel_angstrom=None):
    """A micrograph (MRC, 2D) as a small :class:`Background`, or None if it cannot be read: the plot does without.

    ``pixel_angstrom``: none takes the header's.
    """
    try:
        with mrcfile.mmap(str(path), mode="r", permissive=True) as file:
            pixel = pixel_angstrom or float(file.voxel_size.x)
            data = file.data if file.data.ndim == 2 else file.data[0]
            factor = max(1, int(np.ceil(max(data.shape) / LONGEST_SIDE_PX)))
            small = bin_image(np.asarray(data, dtype=np.float32), factor)
    except UNREADABLE as error:
        log.info("micrograph %s is not shown: %s", path, error)
        return None
    return as_background(small, factor * pixel) if pixel > 0 and small.size else None


def as_background(image, pixel_angstrom):
    """An image (h, w) of any values as a :class:`Background`."""
    height, width = image.shape
    half = 0.5 * pixel_angstrom                # coordinates are counted from the centre of the first pixel
    return Background(stretched(image), (-half, width * pixel_angstrom - half, -half, height * pixel_angstrom - half))


def stretched(image):
    """Values scaled so that the 1st and 99th percentile are 0 and 1."""
    low, high = np.percentile(image, SEEN_PERCENTILES)
    return np.clip((image - low) / max(high - low, 1e-12), 0.0, 1.0)


def bin_image(image, factor):
    """Means over squares of ``factor`` pixels; an incomplete rim is left out."""
    height, width = (n // factor * factor for n in image.shape)
    return image[:height, :width].reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))


def read_particles(names):
    """Images of a list of (stack, 0-based number) as float32 (n, box, box), or None if one cannot be read or sizes differ."""
    images, stacks = [], {}
    for path, number in names:
        try:
            if path not in stacks:
                with mrcfile.mmap(str(path), mode="r", permissive=True) as file:
                    stacks[path] = file.data if file.data.ndim == 3 else file.data[None]
            images.append(np.array(stacks[path][number], dtype=np.float32))
        except UNREADABLE as error:
            log.info("particle image %d of %s is not shown: %s", number + 1, path, error)
            return None
    return np.stack(images) if images and len({i.shape for i in images}) == 1 else None


def frequency(box_px, pixel):
    """Frequencies of a half-transform (box, box // 2 + 1), 1/A."""
    return np.hypot(np.fft.fftfreq(box_px, pixel)[:, None], np.fft.rfftfreq(box_px, pixel)[None, :])


def low_pass(image, pixel, resolution_angstrom=20.0):
    """Gaussian low-pass that halves the amplitude at a resolution."""
    spectrum = np.fft.rfft2(image) * np.exp(-np.log(2.0) * (frequency(image.shape[0], pixel) * resolution_angstrom) ** 2)
    return np.fft.irfft2(spectrum, s=image.shape)


def ring_sums(values, box_px):
    """Sums of a half-transform's values over rings of one Fourier pixel, (box // 2,)."""
    return np.bincount(_rings(box_px), np.asarray(values, dtype=float).ravel())[:box_px // 2]


@functools.lru_cache(maxsize=2)
def _rings(box_px):
    """Ring of each value of a half-transform, flat."""
    return np.rint(frequency(box_px, 1.0) * box_px).astype(int).ravel()
