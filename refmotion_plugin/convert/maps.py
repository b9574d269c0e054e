"""Half-maps and masks: file names as the engine takes them, headers that say what Scipion knows."""
import os
import shutil
from collections import namedtuple

import mrcfile
from pwem.emlib.image import ImageHandler

MapHeader = namedtuple("MapHeader", "shape_zyx voxel_angstrom")


def map_file(name):
    """File name without Scipion's format suffix (``map.mrc:mrc``)."""
    return name[:-4] if name.endswith(":mrc") else name


def half_map_files(volume):
    """The two half-map files of a Volume, or () if it has none."""
    if not volume.hasHalfMaps():
        return ()
    return tuple(map_file(name) for name in volume.getHalfMaps(asList=True))


def is_mrc(path):
    """True for a map that the engine reads; others (Xmipp's .vol, Spider's .spi) are converted."""
    return os.path.splitext(path)[1].lower() in (".mrc", ".map", ".mrcs", ".rec", ".ccp4")


def read_header(path):
    """:class:`MapHeader` of a map; the voxel size is 0 in formats that do not know it. Raises OSError or ValueError if it cannot be read."""
    if not is_mrc(path):
        try:
            x, y, z, _ = ImageHandler.getDimensions(path)
        except Exception as error:          # xmippLib raises its own kind
            raise ValueError(str(error)) from None
        return MapHeader((int(z), int(y), int(x)), 0.0)
    with mrcfile.open(path, mode="r", permissive=True, header_only=True) as file:
        header = file.header
        return MapHeader((int(header.nz), int(header.ny), int(header.nx)), float(file.voxel_size.x))


def with_voxel_size(path, pixel_angstrom, copy):
    """``path`` itself if its header has this voxel size, otherwise the new file ``copy`` that has it.

    Many programs leave the header's voxel size empty; Scipion keeps it beside the file and the engine reads the header. Maps in
    other formats than MRC are converted. A copy that is made again has the same modification time, by which the engine tells files
    apart.
    """
    path = map_file(path)
    if is_mrc(path):
        if abs(read_header(path).voxel_angstrom - pixel_angstrom) <= 1e-3 * pixel_angstrom:
            return path
        shutil.copyfile(path, copy)
    else:
        ImageHandler().convert(path, copy)
    with mrcfile.open(copy, mode="r+", permissive=True) as file:
        file.voxel_size = pixel_angstrom
    # the source's time, and a second per 0.001 A: with another voxel size it is another file
    modified = os.stat(path).st_mtime_ns + round(1000 * pixel_angstrom) * 10 ** 9
    os.utime(copy, ns=(modified, modified))
    return copy
