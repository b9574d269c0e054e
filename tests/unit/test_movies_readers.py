import bz2
import gzip
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.engine.movies import eer
from refmotion_plugin.engine.movies.readers import open_movie

from test_movies_writers import eer_bytes, mrc_bytes, pack_nibbles, random_events

SHAPE = (3, 20, 31)


def _stack(dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=SHAPE).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, SHAPE).astype(dtype)


def _into(reader, index):
    """A frame as the reader puts it into memory of ours, and whether it did."""
    out = np.full(reader.shape_yx, 3, reader.dtype)
    frame = reader.frame(index, out)
    return frame, frame is out


def _read(path, **options):
    with open_movie(path, **options) as reader:
        frames = list(reader.read(0, reader.n_frames))
        assert all(f.shape == reader.shape_yx and f.dtype == reader.dtype for f in frames)
        return np.stack(frames)


def _assert_one_sentence(error, path):
    text = str(error.value)
    assert str(path) in text and "\n" not in text and len(text) < 400


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"compression": "zlib"}, {"compression": "lzw", "predictor": True},
                                     {"compression": "zlib", "rowsperstrip": 7}, {"tile": (16, 16), "compression": "zlib"},
                                     {"bigtiff": True, "compression": "lzw"}, {"compression": "zstd"}, {"compression": "zstd", "rowsperstrip": 7}, {"byteorder": ">", "compression": "zlib"},
                                     {"byteorder": ">", "compression": "lzw", "rowsperstrip": 7},
                                     {"compression": "lzw", "predictor": True, "rowsperstrip": 7}])
def test_tiff(tmp_path, dtype, options):
    if options.get("byteorder") == ">" and dtype == "int8":
        pytest.skip("one byte has no order")
    stack, path = _stack(dtype), tmp_path / "m.tif"
    with tifffile.TiffWriter(path, bigtiff=options.get("bigtiff", False), byteorder=options.get("byteorder")) as writer:
        for frame in stack:
            writer.write(frame, photometric="minisblack", contiguous=False,
                         **{k: v for k, v in options.items() if k not in ("bigtiff", "byteorder")})
    np.testing.assert_array_equal(_read(path), stack)
    with open_movie(path) as reader:
        assert reader.file_is_upside_down
        np.testing.assert_array_equal(np.stack(list(reader.read(1, 2))), stack[1:2])
        frame, direct = _into(reader, 1)
        np.testing.assert_array_equal(frame, stack[1])
        assert direct or "rowsperstrip" not in options
        assert len(reader.bands(2)) == 1 + ("rowsperstrip" in options)
        for count in (1, 2, 3):
            bands = reader.bands(count)
            np.testing.assert_array_equal(np.concatenate([reader.frame(1, rows=rows) for rows in bands]), stack[1])
            out = np.full(SHAPE[1:], 3, dtype)
            for rows in bands:
                out[rows] = reader.frame(1, out[rows], rows)
            np.testing.assert_array_equal(out, stack[1])


def test_bands_of_a_page_with_other_strips_than_the_first(tmp_path):
    stack, path = _stack("uint8"), tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame, rows in zip(stack, (6, 8, 20)):
            writer.write(frame, photometric="minisblack", contiguous=False, compression="lzw", rowsperstrip=rows)
    with open_movie(path) as reader:
        assert [(rows.start, rows.stop) for rows in reader.bands(2)] == [(0, 12), (12, 20)]
        for index, frame in enumerate(stack):
            np.testing.assert_array_equal(np.concatenate([reader.frame(index, rows=rows) for rows in reader.bands(2)]), frame)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix, pack", [("mrc", bytes), ("mrcs", bytes), ("mrc.bz2", bz2.compress), ("mrcs.gz", gzip.compress)])
def test_mrc(tmp_path, dtype, order, suffix, pack):
    stack, path = _stack(dtype), tmp_path / ("m." + suffix)
    path.write_bytes(pack(mrc_bytes(stack, order=order, extended=256)))
    np.testing.assert_array_equal(_read(path), stack)
    with open_movie(path) as reader:
        assert not reader.file_is_upside_down
        for index in (2, 0, 1):   # also backwards, also compressed
            np.testing.assert_array_equal(reader.frame(index), stack[index])
        frame, direct = _into(reader, 1)
        np.testing.assert_array_equal(frame, stack[1])
        assert direct == (pack is bytes and (order == "<" or dtype == "int8"))


@pytest.mark.parametrize("flags, maximum, dtype", [(None, 255.0, "uint8"), (None, 100.0, "int8"), (0, 0.0, "uint8"), (1, 255.0, "int8")])
def test_mode_0_signed_or_not(tmp_path, flags, maximum, dtype):
    stack, path = _stack("uint8"), tmp_path / "m.mrc"
    path.write_bytes(mrc_bytes(stack, imod_flags=flags, maximum=maximum))
    np.testing.assert_array_equal(_read(path), stack.view(dtype))


@pytest.mark.parametrize("width", [30, 31])
def test_packed_nibbles(tmp_path, width):
    stack = np.random.default_rng(1).integers(0, 16, (3, 20, width)).astype(np.uint8)
    path = tmp_path / "m.mrcs"
    path.write_bytes(mrc_bytes(pack_nibbles(stack), mode=101, width=width))
    np.testing.assert_array_equal(_read(path), stack)
    if width % 2 == 0:   # the same pixels, declared by IMOD's flag on mode 0 of half the width
        path.write_bytes(mrc_bytes(pack_nibbles(stack), imod_flags=16))
        np.testing.assert_array_equal(_read(path), stack)
    with open_movie(path) as reader:
        np.testing.assert_array_equal(_into(reader, 1)[0], stack[1])


@pytest.mark.parametrize("options", [{}, {"compression": "lzw", "rowsperstrip": 7}, {"compression": "zlib", "rowsperstrip": 20}])
def test_tiff_pages_of_half_the_width_hold_two_pixels_in_a_byte(tmp_path, options):
    stack, path = np.random.default_rng(1).integers(0, 16, (3, 20, 30)).astype(np.uint8), tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in pack_nibbles(stack):
            writer.write(frame, photometric="minisblack", contiguous=False, **options)
    np.testing.assert_array_equal(_read(path, size_yx=(20, 30)), stack)
    np.testing.assert_array_equal(_read(path, size_yx=(20, 15)), pack_nibbles(stack))
    np.testing.assert_array_equal(_read(path), pack_nibbles(stack))
    with open_movie(path, size_yx=(20, 30)) as reader:
        assert reader.file_is_upside_down
        np.testing.assert_array_equal(_into(reader, 1)[0], stack[1])
        np.testing.assert_array_equal(np.concatenate([reader.frame(1, rows=rows) for rows in reader.bands(3)]), stack[1])


def test_an_empty_page_in_zstd_is_not_taken_for_damage(tmp_path):
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        writer.write(np.zeros((8192, 4096), np.uint8), photometric="minisblack", compression="zstd", rowsperstrip=8192)
    assert not _read(tmp_path / "m.tif").any()


def test_tiff_of_reversed_bits_is_told(tmp_path):
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(_stack("uint8")[0], photometric="minisblack", extratags=[(65111, 3, 1, 2, True)])
    tag = struct.pack("<HHI", 65111, 3, 1)
    path.write_bytes(path.read_bytes().replace(tag, struct.pack("<HHI", 266, 3, 1)))       # tifffile does not write that tag
    with pytest.raises(MovieError, match="bits of each byte in reverse order .FillOrder 2."):
        open_movie(path)


@pytest.mark.parametrize("compression", [65000, 65001])
@pytest.mark.parametrize("upsampling", [1, 2, 4])
@pytest.mark.parametrize("grouping, n_frames", [(1, 7), (3, 2), (7, 1), (300, 0)])
def test_eer(tmp_path, compression, upsampling, grouping, n_frames):
    rng, shape = np.random.default_rng(2), (24, 40)
    events = [random_events(rng, 960, n) for n in (5, 0, 40, 11, 960, 3, 17)]
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes(events, shape, compression))
    if not n_frames:
        with pytest.raises(MovieError, match="grouping"):
            open_movie(path, grouping, upsampling)
        return
    expected = np.zeros((n_frames, 24 * upsampling, 40 * upsampling), int)
    for number, electrons in enumerate(events[:n_frames * grouping]):
        for pixel, x, y in electrons:
            expected[number // grouping, pixel // 40 * upsampling + y * upsampling // 4, pixel % 40 * upsampling + x * upsampling // 4] += 1
    np.testing.assert_array_equal(_read(path, eer_grouping=grouping, eer_upsampling=upsampling), expected)
    with open_movie(path, grouping, upsampling) as reader:
        assert reader.is_eer and not reader.file_is_upside_down and reader.n_detector_frames == 7


def _every_truncation(data, tmp_path, name, **options):
    """Cut the file at many places: each must raise, none may give frames."""
    path = tmp_path / name
    for keep in np.linspace(1, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:keep])
        with pytest.raises(MovieError) as error:
            _read(path, **options)
        _assert_one_sentence(error, path)


def test_truncated_mrc(tmp_path):
    data = mrc_bytes(_stack("int16"))
    _every_truncation(data, tmp_path, "m.mrc")
    _every_truncation(bz2.compress(data), tmp_path, "m.mrc.bz2")
    _every_truncation(gzip.compress(data), tmp_path, "m.mrc.gz")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_truncated_tiff(tmp_path, compression):
    path = tmp_path / "whole.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in _stack("uint16"):
            writer.write(frame, compression=compression, photometric="minisblack", contiguous=False)
    _every_truncation(path.read_bytes()[:-8], tmp_path, "m.tif")


def test_eer_whose_height_is_two_numbers_is_damaged(tmp_path, monkeypatch):
    page = SimpleNamespace(compression=65001, imagelength=(24, 3), imagewidth=40)
    monkeypatch.setattr(eer, "read_pages", lambda path: (SimpleNamespace(close=lambda: None), [page]))
    (tmp_path / "m.eer").write_bytes(b"")
    with pytest.raises(MovieError, match="m.eer is damaged: its tags make no sense"):
        open_movie(tmp_path / "m.eer")


def test_truncated_eer(tmp_path):
    rng = np.random.default_rng(3)
    data = eer_bytes([random_events(rng, 960, 30) for _ in range(4)], (24, 40))
    _every_truncation(data, tmp_path, "m.eer", eer_grouping=2)


def test_damaged_segments(tmp_path):
    """Zeroed, shortened or absent compressed data must raise, not be padded with zeros."""
    path = tmp_path / "m.tif"
    for compression in ("lzw", "zlib"):
        tifffile.imwrite(path, _stack("uint8"), compression=compression, photometric="minisblack")
        with tifffile.TiffFile(path) as tif:
            page = tif.pages[1]
            offset, count, tag = page.dataoffsets[0], page.databytecounts[0], page.tags[279]
        whole = path.read_bytes()
        for damaged in (whole[:offset] + bytes(count) + whole[offset + count:],):
            path.write_bytes(damaged)
            with pytest.raises(MovieError, match="frame 2"):
                _read(path)
        for shorter in (0, count // 2):
            tifffile_bytes = bytearray(whole)
            size = tag.dtype.value in (16,) and 8 or 4
            tifffile_bytes[tag.valueoffset:tag.valueoffset + size] = int(shorter).to_bytes(size, "little")
            path.write_bytes(tifffile_bytes)
            with pytest.raises(MovieError, match="frame 2"):
                _read(path)


def test_damaged_band(tmp_path):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, _stack("uint8"), compression="lzw", photometric="minisblack", rowsperstrip=5)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[1].dataoffsets[3], tif.pages[1].databytecounts[3]
    whole = path.read_bytes()
    path.write_bytes(whole[:offset] + bytes(count) + whole[offset + count:])
    with open_movie(path) as reader:
        sound, damaged = reader.bands(2)
        np.testing.assert_array_equal(reader.frame(1, rows=sound), _stack("uint8")[1, sound])
        with pytest.raises(MovieError, match="frame 2"):
            reader.frame(1, rows=damaged)


def test_missing_unknown_and_nonsense(tmp_path):
    for name, content, match in (("gone.tif", None, "does not exist"), ("m.dm4", b"x", "unknown format"),
                                 ("m.tif.gz", b"x", "unknown format"),
                                 ("m.tif", b"not a tiff at all" * 99, "cannot be read as TIFF"), ("m.eer", b"", "cannot be read as TIFF"),
                                 ("m.mrc", b"nonsense" * 999, "not an MRC"), ("m.mrc.bz2", b"nonsense" * 999, "decompressed"),
                                 ("c.mrc", mrc_bytes(_stack("float32"), mode=4), "mode 4")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(MovieError, match=match) as error:
            open_movie(path)
        _assert_one_sentence(error, path)


def test_pages_of_different_kind(tmp_path):
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((20, 31), np.uint8), photometric="minisblack")
        writer.write(np.zeros((20, 30), np.uint8), photometric="minisblack")
    with pytest.raises(MovieError, match="page 2 is 30 x 20 px"):
        open_movie(path)
    tifffile.imwrite(path, np.zeros((20, 31, 3), np.uint8), photometric="rgb")
    with pytest.raises(MovieError, match="grey images"):
        open_movie(path)
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8), photometric="minisblack", compression="jpeg")
    with pytest.raises(MovieError, match="compression"):
        open_movie(path)
    path = tmp_path / "plain.eer"
    tifffile.imwrite(path, np.zeros((20, 31), np.uint8), photometric="minisblack")
    with pytest.raises(MovieError, match="no electron events"):
        open_movie(path)


def test_frame_out_of_range(tmp_path):
    path = tmp_path / "m.mrc"
    path.write_bytes(mrc_bytes(_stack("int16")))
    with open_movie(path) as reader, pytest.raises(MovieError, match="frame 4 .* has 3 frames"):
        reader.frame(3)
