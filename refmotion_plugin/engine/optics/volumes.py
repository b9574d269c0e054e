"""Maps from MRC files, checked."""
import bz2
import gzip
import logging
import warnings
import zlib
from pathlib import Path

import mrcfile
import numpy as np

from ...contract.errors import InputError
from .reference import build_reference

LARGEST_BOX_PX, LARGEST_COMPRESSED_VOXELS = 4096, 1024 ** 3
LARGEST_DENSITY = 1e12      # maps in any unit stay far below; sums of squares of much larger ones have no place in single precision
_MODES = (0, 1, 2, 3, 4, 6, 12, 101)
log = logging.getLogger(__name__)


def read_map(path, what="map"):
    """A cubic map; ``what`` it is called in messages.

    Returns float32 (z, y, x) and the voxel size in A. Raises InputError, in a sentence, for a file that is missing, not MRC,
    not a cube, with other axis orders, without a voxel size or with different ones per axis, not finite, far too large, or all zero.
    """
    if not Path(path).is_file():
        raise InputError("map %s %s: give the MRC file of a map" % (path, "is a folder" if Path(path).is_dir() else "does not exist"))
    _check_plausible(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mrcfile.open(path, permissive=True) as mrc:
                data, header = mrc.data, mrc.header
                voxel = [float(mrc.voxel_size[axis]) for axis in "xyz"]
                axes = [int(header[name]) for name in ("mapc", "mapr", "maps")]
                data = None if data is None else np.array(data)
    except MemoryError as error:
        raise InputError("map %s needs more memory than there is (%s): give the job more, or see whether the file is a map of this size" % (path, error)) from None
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError("map %s cannot be read as MRC (%s): give an MRC file" % (path, error)) from None
    _check_header(path, data, voxel, axes)
    data = data.astype(np.float32, copy=False)
    _check_values(path, data, what)
    return data, round(voxel[0], 6)


def _check_plausible(path):
    """Refuse other files before their bytes are taken for sizes and gigabytes are asked for."""
    for unpack in (open, gzip.open, bz2.open):
        try:
            with unpack(path, "rb") as file:
                head = file.read(16)
        except (OSError, EOFError, zlib.error):
            continue
        for order in "<>":
            numbers = np.frombuffer(head, dtype=order + "i4") if len(head) == 16 else np.zeros(4, np.int32)
            if numbers[3] in _MODES and all(0 < n <= LARGEST_BOX_PX for n in numbers[:3]):
                promised = int(np.prod(numbers[:3].astype(np.int64)))               # a byte per voxel at least, but in mode 101
                if unpack is not open and promised > LARGEST_COMPRESSED_VOXELS:
                    raise InputError("map %s promises %d voxels, too many for a compressed file: decompress it first" % (path, promised))
                if unpack is not open or promised // 2 <= Path(path).stat().st_size:
                    return
    raise InputError("map %s is not an MRC file: give the MRC file of a map" % path)


def _check_header(path, data, voxel, axes):
    if data is None or np.iscomplexobj(data):
        raise InputError("map %s cannot be read as MRC (no real data in it): give an MRC file of a map" % path)
    if data.ndim != 3 or len(set(data.shape)) != 1:
        raise InputError("map %s has the size %s (z, y, x): a cube was expected, pad or crop it"
                         % (path, " x ".join(str(s) for s in data.shape)))
    if data.shape[0] < 16:
        raise InputError("map %s is only %d voxels wide: a map of a particle was expected" % (path, data.shape[0]))
    if axes not in ([1, 2, 3], [0, 0, 0]):
        raise InputError("map %s stores its axes in the order %s: columns x, rows y, sections z (1, 2, 3) were expected, "
                         "rewrite it with e2proc3d or relion_image_handler" % (path, axes))
    if not all(np.isfinite(v) and v > 0 for v in voxel):
        raise InputError("map %s has no voxel size in its header: set it, e.g. with relion_image_handler --rescale_angpix "
                         "or e2proc3d --apix" % path)
    if max(voxel) - min(voxel) > 1e-3 * max(voxel):
        raise InputError("map %s has different voxel sizes in x, y and z (%s A): resample it to cubic voxels"
                         % (path, ", ".join("%.4f" % v for v in voxel)))


def _check_values(path, data, what):
    bad = int(data.size - np.count_nonzero(np.isfinite(data)))
    if bad:
        raise InputError("map %s holds %d voxels that are not numbers (NaN or infinite): give an intact map" % (path, bad))
    largest = max(float(data.max()), -float(data.min()))
    if largest > LARGEST_DENSITY:
        raise InputError("map %s holds values as large as %.1g, which no density has: the file is damaged, copy or make it again" % (path, largest))
    if not largest:
        remedy = "give a mask that is 1 inside the particle" if what == "mask" else "give the map of a particle"
        raise InputError("%s %s is zero everywhere: %s" % (what, path, remedy))


def load_reference(spec, device="cpu"):
    """:class:`~.reference.Reference` of a ReferenceSpec, on ``device``.

    Raises InputError for unreadable or unfit maps (see :func:`read_map`), halves and mask that differ in box or voxel size,
    the same file given as both halves, or a mask with values outside [0, 1].
    """
    if Path(spec.half1).resolve() == Path(spec.half2).resolve():
        raise InputError("half-map 1 and half-map 2 are the same file %s: give the two independent half-maps" % spec.half1)
    first, pixel = read_map(spec.half1)
    second, pixel2 = read_map(spec.half2)
    _check_same("half-map 2", spec.half2, second, pixel2, spec.half1, first, pixel)
    if np.array_equal(first, second):
        log.warning("half-maps %s and %s are identical: nothing measured against them is independent", spec.half1, spec.half2)
    mask = None if spec.mask is None else _read_mask(spec, first, pixel)
    reference = build_reference((first, second), mask, pixel, device, overwrite=True)
    log.info("reference %s: box %d px of %.4f A, resolution %.2f A, FSC vanishes at %.2f A, radius %.0f A", spec.half1,
             reference.box_px, pixel, reference.resolution_angstrom, reference.limit_angstrom,
             reference.particle_radius_angstrom)
    return reference


def _read_mask(spec, first, pixel):
    mask, mask_pixel = read_map(spec.mask, "mask")
    _check_same("mask", spec.mask, mask, mask_pixel, spec.half1, first, pixel)
    low, high = float(mask.min()), float(mask.max())
    if low < -1e-3 or high > 1.0 + 1e-3:
        raise InputError("mask %s has values from %.3g to %.3g: 0 (outside) to 1 (inside) was expected, make it with e.g. "
                         "relion_mask_create" % (spec.mask, low, high))
    if high < 0.5:
        raise InputError("mask %s is nowhere above %.3g: 1 inside the particle was expected" % (spec.mask, high))
    return np.clip(mask, 0.0, 1.0)


def _check_same(what, path, data, pixel, path1, first, pixel1):
    if data.shape != first.shape:
        raise InputError("%s %s is %d px wide but half-map 1 %s is %d px: give maps of the same box"
                         % (what, path, data.shape[0], path1, first.shape[0]))
    if abs(pixel - pixel1) > 1e-3 * pixel1:
        raise InputError("%s %s has voxels of %.4f A but half-map 1 %s of %.4f A: give maps of the same voxel size, or "
                         "correct the header" % (what, path, pixel, path1, pixel1))
