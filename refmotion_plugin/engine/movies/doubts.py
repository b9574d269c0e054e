"""What looks wrong with a movie that can be read: said in the log, since it may be as it should be."""
import logging

import numpy as np

from .scratch import ScratchFrames

LEAST_SHARE = 0.1       # of the electrons that the dose promises: cameras that count miss no more than half, and gains have a mean near 1
NAMED = 5               # frames in a sentence

log = logging.getLogger(__name__)


def warn_of_flat_frames(path, frames, first):
    """Warn of frames that hold one value only.

    ``frames`` (frame, H, W) array or ScratchFrames (others would have to be decoded once more and are not looked at), the first of which is the
    file's ``first`` (0-based).
    """
    flat = [str(first + f + 1) for f in range(len(frames)) if _is_flat(frames, f)]
    if flat:
        log.warning("movie %s holds one value only in %d of its frames (%s%s): leave them out if that is not as it should be",
                    path, len(flat), ", ".join(flat[:NAMED]), ", ..." if len(flat) > NAMED else "")


def warn_of_counts(metadata, total, n_frames, grouping=None, whole_numbers=False):
    """Warn of a movie (MovieMetadata) of ``whole_numbers`` whose counts are far too few: ``total`` tensor (H, W) is the sum of ``n_frames`` frames,
    of ``grouping`` detector frames each if it is EER."""
    counts, electrons = float(total.mean()), _electrons_per_px(metadata, n_frames, grouping)
    if whole_numbers and float(total.min()) >= 0 and counts < LEAST_SHARE * electrons:
        log.warning("movie %s holds %.2g counts per pixel where its dose makes %.2g electrons: see whether it was exposed and leave it out if not",
                    metadata.movie_file, counts, electrons)


def _electrons_per_px(metadata, n_frames, grouping):
    """What the dose of so many frames makes of a pixel that counts electrons; it is known of upstream's frames."""
    upstream = n_frames * grouping / metadata.eer_grouping if grouping and metadata.eer_grouping else n_frames
    return upstream * metadata.dose_per_frame_e_per_A2 * metadata.original_pixel_angstrom ** 2


def _is_flat(frames, f):
    """Whether all pixels of a frame are the same; a single row shows that of nearly all they are not."""
    if isinstance(frames, ScratchFrames):
        rows = lambda part: frames.raw(f, part)
    elif isinstance(frames, np.ndarray):
        rows = lambda part: frames[f, part]
    else:
        return False
    return all(values.min() == values.max() for values in map(rows, (slice(0, 1), slice(None))))
