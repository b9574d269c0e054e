"""MRC files of what a job computes: whole or not there, and the same data are the same file."""
import mrcfile

from refmotion_plugin.contract.layout import atomic_path

LABEL = "Written by refmotion"      # mrcfile's own holds the time


def write_mrc(path, data, pixel_angstrom):
    """Write a micrograph (h, w), or a stack of images (n, h, w); float32 or float16."""
    with atomic_path(path) as temporary:
        with mrcfile.new(str(temporary), overwrite=True) as file:
            file.set_data(data)
            if data.ndim == 3:
                file.set_image_stack()
            file.header.label[0] = LABEL
            file.voxel_size = (pixel_angstrom, pixel_angstrom, 1.0)
