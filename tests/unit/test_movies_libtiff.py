"""LZW frames decoded by libtiff: equal to the other codec's, and handed over to it where they are damaged."""
import imagecodecs
import numpy as np
import pytest
import tifffile

from refmotion_plugin.engine.movies import tiff
from refmotion_plugin.engine.movies.libtiff import decode_lzw_strips


def _frame(dtype="uint8", shape=(20, 31)):
    return np.random.default_rng(5).integers(0, 100, shape).astype(dtype)


def _strips(frame, rows):
    return [imagecodecs.lzw_encode(np.ascontiguousarray(frame[top:top + rows]).tobytes()) for top in range(0, len(frame), rows)]


def decoded(strips, *arguments, **options):
    def fill(room):
        room[:] = b"".join(strips)
        return True
    return decode_lzw_strips([len(strip) for strip in strips], fill, *arguments, **options)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("rows", [1, 7, 20, 64])
def test_frames_are_those_that_were_encoded(dtype, rows):
    frame = _frame(dtype)
    found = decoded(_strips(frame, rows), frame.shape, frame.dtype, rows)
    assert found.dtype == frame.dtype
    np.testing.assert_array_equal(found, frame)


def test_damage_and_foreign_predictors_are_left_to_the_other_codec():
    frame = _frame()
    strips = _strips(frame, 7)
    for damaged in (strips[:2] + [strips[2][:4]], strips[:2] + [b""], [bytes(len(strips[0]))] + strips[1:]):
        assert decoded(damaged, frame.shape, frame.dtype, 7) is None
    assert decoded(strips, frame.shape, frame.dtype, 7, predictor=3) is None
    assert decode_lzw_strips([9], lambda room: False, frame.shape, frame.dtype, 20) is None


def test_strips_that_lie_apart_in_the_file_come_in_their_order(tmp_path):
    (tmp_path / "m").write_bytes(bytes(range(100)))
    offsets, lengths = [50, 53, 20, 21, 90], [3, 4, 1, 2, 10]
    room = bytearray(sum(lengths))
    with open(tmp_path / "m", "rb") as file:
        assert tiff.read_strips(file.fileno(), offsets, lengths, memoryview(room))
        assert list(room) == [50, 51, 52, 53, 54, 55, 56, 20, 21, 22, *range(90, 100)]
        assert not tiff.read_strips(file.fileno(), [95], [6], memoryview(bytearray(6)))


@pytest.mark.parametrize("tag", [(1.5, 2), (1, None), (1, (2, 3)), (1, 2 ** 70), 5, ("1",)])
def test_tags_of_other_kinds_are_no_places(tag):
    assert tiff._whole_numbers(tag) is None


def test_places_are_whole_numbers():
    assert tiff._whole_numbers((3, 2 ** 40)).tolist() == [3, 2 ** 40] and tiff._whole_numbers((2 ** 64 - 1,)).min() < 0


def test_a_movie_goes_this_way(tmp_path, monkeypatch):
    frame = _frame()
    tifffile.imwrite(tmp_path / "m.tif", frame, compression="lzw", photometric="minisblack", rowsperstrip=7)
    monkeypatch.setitem(tiff.COMPRESSIONS, 5, None)        # the other way would give compressed bytes for pixels
    frames = tiff.TiffFrames(tmp_path / "m.tif")
    np.testing.assert_array_equal(frames.frame(0), frame)
    frames.close()
