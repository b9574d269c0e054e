import bz2
import gzip

import numpy as np
import pytest
import tifffile

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.engine.movies.defects import read_defects
from refmotion_plugin.engine.movies.gain import load_gain, turn
from refmotion_plugin.engine.movies.readers import open_movie

from test_movies_writers import mrc_bytes

SHAPE = (6, 9)


def _image(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(np.float32)


def _write(path, image):
    if path.suffix == ".mrc":
        path.write_bytes(mrc_bytes(image[None]))
    else:
        tifffile.imwrite(path, image, photometric="minisblack")
    return path


@pytest.mark.parametrize("rotation, flip, where", [
    # a delta in row 0 (the bottom), column 2 of a 6 x 9 gain, followed by hand: a quarter turn counter-clockwise, seen
    # with row 0 at the bottom, takes right to up and up to left
    (0, 0, (0, 2)), (1, 0, (2, 5)), (2, 0, (5, 6)), (3, 0, (6, 0)),
    (0, 1, (5, 2)), (0, 2, (0, 6)), (1, 1, (6, 5)), (1, 2, (2, 0)), (3, 1, (2, 0))])
def test_rotation_and_flip_of_a_delta(tmp_path, rotation, flip, where):
    image = np.ones(SHAPE, np.float32)
    image[0, 2] = 3
    shape = SHAPE[::-1] if rotation % 2 else SHAPE
    gain = load_gain(_write(tmp_path / "g.mrc", image), shape, rotation=rotation, flip=flip)
    assert np.argwhere(gain.multiplier.numpy() == 3).tolist() == [list(where)]
    np.testing.assert_array_equal(turn(image, rotation, flip), gain.multiplier.numpy())


def test_tiff_gain_is_turned_and_mrc_not(tmp_path):
    image = _image()
    tif, mrc = _write(tmp_path / "g.tif", image), _write(tmp_path / "g.mrc", image)
    np.testing.assert_array_equal(load_gain(tif, SHAPE).multiplier, image[::-1])
    np.testing.assert_array_equal(load_gain(tif, SHAPE, turn_tiff=False).multiplier, image)
    np.testing.assert_array_equal(load_gain(mrc, SHAPE).multiplier, image)


def test_eer_conventions(tmp_path):
    """MRC and TIFF gains of EER movies divide, .gain files multiply and are not turned. Agrees with relion_convert_to_tiff 3.1.3."""
    image = _image()
    image[1, 2] = 0
    good = image[image > 0]
    divided = np.where(image > 0, good.mean() / np.where(image > 0, image, 1), 1)
    for name, expected, bad in (("g.mrc", divided, [1, 2]), ("g.tif", divided[::-1], [4, 2]),
                                ("g.gain", np.where(image > 0, image, 1), [1, 2])):
        gain = load_gain(_write(tmp_path / name, image), SHAPE, is_eer=True)
        np.testing.assert_allclose(gain.multiplier, expected, rtol=1e-6)
        assert gain.bad_yx.tolist() == [bad]


def test_eer_gain_of_other_sampling(tmp_path):
    image = _image()
    path = _write(tmp_path / "g.gain", image)
    np.testing.assert_array_equal(load_gain(path, (12, 18), is_eer=True).multiplier, np.kron(image, np.ones((2, 2), np.float32)))
    fine = np.kron(image, np.float32([[0.5, 1.5], [1, 1]]))
    np.testing.assert_allclose(load_gain(_write(tmp_path / "f.gain", fine), SHAPE, is_eer=True).multiplier, image, rtol=1e-6)
    with pytest.raises(MovieError, match="9 x 6 px"):
        load_gain(path, (12, 18))


def test_bad_gain_values(tmp_path):
    image = _image()
    image[0, 0], image[1, 1], image[2, 2] = 0, np.nan, -1
    gain = load_gain(_write(tmp_path / "g.mrc", image), SHAPE)
    assert gain.bad_yx.tolist() == [[0, 0], [1, 1], [2, 2]] and np.isfinite(gain.multiplier.numpy()).all()


@pytest.mark.parametrize("shape, match", [((9, 6), "9 x 6 px .* 6 x 9 px; a rotation by 90 degrees would fit"), ((7, 9), "would not help")])
def test_other_shape(tmp_path, shape, match):
    with pytest.raises(MovieError, match=match):
        load_gain(_write(tmp_path / "g.mrc", _image()), shape)


@pytest.mark.parametrize("suffix, pack", [("mrc.gz", gzip.compress), ("mrc.bz2", bz2.compress)])
def test_compressed_gain_and_defect_map(tmp_path, suffix, pack):
    image, path = _image(), tmp_path / ("g." + suffix)
    path.write_bytes(pack(mrc_bytes(image[None])))
    np.testing.assert_array_equal(load_gain(path, SHAPE).multiplier, image)
    path.write_bytes(pack(mrc_bytes((image > 1.9).astype(np.int8)[None])))
    np.testing.assert_array_equal(read_defects(path, SHAPE), np.argwhere(image > 1.9))


@pytest.mark.parametrize("dtype", ["int32", "uint32", "float16", "float64"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_tiff_gain_of_any_type_of_number(tmp_path, dtype, compression):
    image = (8 * _image()).astype(dtype)
    tifffile.imwrite(tmp_path / "g.tif", image, photometric="minisblack", compression=compression)
    np.testing.assert_array_equal(load_gain(tmp_path / "g.tif", SHAPE).multiplier, image[::-1].astype(np.float32))
    with pytest.raises(MovieError, match="%s, and grey images of uint8, .*float32 are supported" % dtype):
        open_movie(tmp_path / "g.tif")


def test_unusable_files(tmp_path):
    with pytest.raises(MovieError, match="cannot be read"):
        load_gain(tmp_path / "gone.mrc", SHAPE)
    (tmp_path / "g.dm4").write_bytes(b"x")
    with pytest.raises(MovieError, match="convert it to MRC or TIFF"):
        load_gain(tmp_path / "g.dm4", SHAPE)
    with pytest.raises(MovieError, match="no positive pixel"):
        load_gain(_write(tmp_path / "z.mrc", np.zeros(SHAPE, np.float32)), SHAPE)
    whole = _write(tmp_path / "t.mrc", _image()).read_bytes()
    (tmp_path / "t.mrc").write_bytes(whole[:-4])
    with pytest.raises(MovieError, match="gain reference.*truncated"):
        load_gain(tmp_path / "t.mrc", SHAPE)


def test_rewritten_gain_is_read_again(tmp_path):
    path = _write(tmp_path / "g.mrc", _image(seed=1))
    first = load_gain(path, SHAPE)
    assert load_gain(path, SHAPE) is first
    import os
    _write(path, _image(seed=2))
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(load_gain(path, SHAPE).multiplier, _image(seed=2))
