"""Single images that go with movies: gain references and defect maps."""
import os

from refmotion_plugin.contract.errors import MovieError

from .mrc import CompressedMrcFrames, MrcFrames
from .readers import COMPRESSED_MRC_EXTENSIONS, MRC_EXTENSIONS, TIFF_EXTENSIONS
from .tiff import DTYPES, TiffFrames

TIFF_DTYPES = DTYPES + ("uint32", "int32", "float16", "float64")        # a movie of these would be unusual, an image is not


def read_image(path, what, turn_tiff):
    """First image of an MRC (also .bz2, .gz) or TIFF file (``.gain`` is TIFF).

    Parameters
    ----------
    path : file.
    what : its role, for error messages.
    turn_tiff : turn a TIFF upside down, as movies in TIFF are.

    Returns
    -------
    numpy (H, W), native dtype

    Raises
    ------
    MovieError
    """
    path = os.fspath(path)
    name = path.lower()
    if not os.path.isfile(path):
        raise MovieError("%s %s does not exist: check its path" % (what, path))
    is_tiff = name.endswith(TIFF_EXTENSIONS + (".gain",))
    is_compressed = name.endswith(COMPRESSED_MRC_EXTENSIONS)
    if not is_tiff and not is_compressed and not name.endswith(MRC_EXTENSIONS):
        raise MovieError("%s %s has an unknown format: convert it to MRC or TIFF" % (what, path))
    try:
        frames = TiffFrames(path, TIFF_DTYPES) if is_tiff else (CompressedMrcFrames if is_compressed else MrcFrames)(path)
        try:
            image = frames.frame(0)
        finally:
            frames.close()
    except OSError as error:
        raise MovieError("%s %s cannot be read (%s): check its permissions" % (what, path, error)) from None
    except MovieError as error:
        raise MovieError("%s: %s" % (what, error)) from None
    return image[::-1].copy() if is_tiff and turn_tiff else image
