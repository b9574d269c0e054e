"""A small average of a movie for the eye: the grey background of its trajectories where upstream left no micrograph."""
import numpy as np
import torch

from ..maths.binning import binned_sums
from ..movies.stack import MovieStack
from ..movies.streamed import StreamedFrames

LONGEST_SIDE_PX = 512
MOST_FRAMES, LEAST_FRAMES = 16, 4
ENOUGH_PIXELS = 512          # of the movie in one of the image: enough counts for the eye, whatever the frames
SEEN_PERCENTILES = (0.5, 99.5)


def thumbnail(movie, stack: MovieStack, plan, device="cpu"):
    """Average of 4 to 16 frames, moved along the rigid motion by whole pixels of the small image and scaled to grey levels.

    Parameters: ``movie`` MovieMetadata, ``stack`` its decoded frames, ``plan`` the FramePlan they were decoded by, ``device`` where they are. Returns (image (h, w) uint8, its pixel size in A), or None for
    a movie that is held neither in memory nor on the disk for temporary files: decoding it once more would cost too much.
    """
    if isinstance(stack.frames, StreamedFrames):
        return None
    factor = max(1, -(-max(stack.shape_yx) // LONGEST_SIDE_PX))
    height, width = (n // factor for n in stack.shape_yx)
    if not height or not width:
        return None
    wanted = min(MOST_FRAMES, max(LEAST_FRAMES, -(-ENOUGH_PIXELS // factor ** 2)))
    frames = np.unique(np.linspace(0, stack.n_frames - 1, wanted).round().astype(int))
    known, shift_xy_px = np.arange(len(movie.global_shift_xy_px)), movie.global_shift_xy_px             # r_aligned = r_frame + shift
    shift_yx_px = np.stack([np.interp(plan.upstream[frames], known, shift_xy_px[:, axis]) for axis in (1, 0)], axis=-1) / factor
    total = np.zeros((height, width), np.float32)
    small = torch.stack([binned_sums(stack.recorded(f, device), factor) for f in frames.tolist()]).cpu().numpy()
    for image, shift in zip(small, np.rint(shift_yx_px).astype(int)):
        total += np.roll(image, shift, axis=(0, 1))
    if stack.gain is not None:              # near enough for the eye: the mean gain of what is put together
        total *= binned_sums(stack.gain, factor).numpy() / factor ** 2
    return _grey(total), factor * stack.pixel_angstrom


def _grey(image):
    low, high = np.percentile(image, SEEN_PERCENTILES)
    return np.rint(255.0 * np.clip((image - low) / max(high - low, 1e-12), 0.0, 1.0)).astype(np.uint8)
