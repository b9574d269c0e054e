"""One way to open movies of all formats.

Orientation, as RELION 3.1 to 5, IMOD and MotionCor have it: a TIFF image is turned upside down on reading, an MRC image is
not, and EER events are not. Readers give rows in the order of the file and say in ``file_is_upside_down`` whether the
convention turns them; whoever loads a movie turns it.
"""
import os

from refmotion_plugin.contract.errors import MovieError

from .eer import EerFrames
from .mrc import CompressedMrcFrames, MrcFrames
from .tiff import open_tiff

TIFF_EXTENSIONS = (".tif", ".tiff")
MRC_EXTENSIONS = (".mrc", ".mrcs", ".st")
EER_EXTENSIONS = (".eer",)
COMPRESSED_MRC_EXTENSIONS = tuple(mrc + packed for mrc in MRC_EXTENSIONS for packed in (".bz2", ".gz"))


class MovieReader:
    """Frames of one movie file; a context manager.

    Attributes: ``n_frames``; ``shape_yx`` in px of the file; ``dtype`` numpy; ``concurrent``: frames may be decoded by several
    threads at once; ``file_is_upside_down``: the convention turns this format; ``is_eer``; ``n_detector_frames`` (EER, else
    the same as ``n_frames``).
    """

    def __init__(self, path, frames, file_is_upside_down=False, is_eer=False):
        self.path, self._frames = path, frames
        self.n_frames, self.shape_yx, self.dtype = frames.n_frames, tuple(frames.shape_yx), frames.dtype
        self.concurrent, self.is_eer, self.file_is_upside_down = frames.concurrent, is_eer, file_is_upside_down
        self.n_detector_frames = getattr(frames, "n_detector_frames", frames.n_frames)

    def bands(self, count):
        """Rows of a frame in ``count`` slices or fewer that can be decoded apart, by several threads; one slice, where the format allows none."""
        return self._frames.bands(count) if hasattr(self._frames, "bands") else [slice(0, self.shape_yx[0])]

    def frame(self, index, out=None, rows=None):
        """Frame ``index`` (H, W), 0-based, native dtype, rows in the order of the file; or some ``rows`` of it, as :meth:`bands` gives them.

        ``out`` (rows, W) of this type, contiguous: may be written to and returned, which saves memory; or another array is. Raises MovieError.
        """
        if not 0 <= index < self.n_frames:
            raise MovieError("frame %d of movie %s was asked for and it has %d frames: check first and last frame"
                             % (index + 1, self.path, self.n_frames))
        try:
            whole = rows is None or rows == slice(0, self.shape_yx[0])
            return self._frames.frame(index, out) if whole else self._frames.frame(index, out, rows)
        except OSError as error:
            raise MovieError("movie %s cannot be read in frame %d (%s): check the disk" % (self.path, index + 1, error)) from None

    def read(self, first=0, last=None):
        """Iterate over frames ``first`` <= index < ``last`` (0-based; None: to the end), each (H, W)."""
        for index in range(first, self.n_frames if last is None else last):
            yield self.frame(index)

    def close(self):
        """Close the file."""
        self._frames.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def open_movie(path, eer_grouping=None, eer_upsampling=1, size_yx=None):
    """Open a movie.

    Parameters
    ----------
    path : TIFF/BigTIFF (plain, LZW, deflate, ZSTD; 8/16-bit integers, float32), MRC (modes 0, 1, 2, 6, 12, 101; also .bz2, .gz), EER.
    eer_grouping : detector frames per fraction (EER only); None: 1.
    eer_upsampling : 1, 2 or 4 times the sensor's grid (EER only); None: 1.
    size_yx : of the frames, if known: TIFF pages of half that width hold two pixels in a byte.

    Returns
    -------
    MovieReader

    Raises
    ------
    MovieError
        The file is missing, unreadable, of unknown format, truncated or damaged.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise MovieError("movie %s does not exist: check the path in the movie's STAR file and where the job runs" % path)
    name = path.lower()
    try:
        if name.endswith(TIFF_EXTENSIONS):
            return MovieReader(path, open_tiff(path, size_yx), file_is_upside_down=True)
        if name.endswith(MRC_EXTENSIONS):
            return MovieReader(path, MrcFrames(path))
        if name.endswith(EER_EXTENSIONS):
            return MovieReader(path, EerFrames(path, eer_grouping, eer_upsampling or 1), is_eer=True)
        if name.endswith(COMPRESSED_MRC_EXTENSIONS):
            return MovieReader(path, CompressedMrcFrames(path))
    except OSError as error:
        raise MovieError("movie %s cannot be read (%s): check its permissions and the disk" % (path, error)) from None
    raise MovieError("movie %s has an unknown format: TIFF (.tif, .tiff), MRC (.mrc, .mrcs, also .bz2 or .gz) and EER (.eer) are read"
                     % path)
