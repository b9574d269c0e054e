"""Small counts in half a byte each: what was written comes back, whole and in parts, and takes half of the room."""
import numpy as np
import pytest

from refmotion_plugin.engine.movies import scratch
from refmotion_plugin.engine.movies.nibbles import can_be_packed, holding, pack, packed_rows, unpack
from refmotion_plugin.engine.movies.scratch import ScratchFrames
from refmotion_plugin.engine.movies.total import sum_frames


def counts(height, largest=15):
    frame = np.random.default_rng(height).integers(0, largest + 1, (height, 10), dtype=np.uint8)
    frame[0, 0], frame[-1, -1] = largest, largest
    return frame


def packed_at_once(frame):
    return pack(frame, 0, packed_rows(len(frame)))


@pytest.mark.parametrize("height", [1, 2, 7, 8])
def test_any_rows_come_back(height):
    frame = counts(height)
    packed = packed_at_once(frame)
    assert can_be_packed(frame) and packed.shape == (-(-height // 2), 10) and packed.dtype == np.uint8
    for first in range(height):
        for last in range(first + 1, height + 1):
            begin, end = holding(first, last, height)
            rows = np.full((last - first, 10), 99, np.uint8)
            for row in range(begin, end):
                unpack(packed[row:row + 1], row, rows, first, height)
            np.testing.assert_array_equal(rows, frame[first:last])


@pytest.mark.parametrize("height", [2, 7, 8])
def test_parts_are_packed_as_the_whole(height):
    frame = counts(height)
    rows = [pack(frame, row, row + 1) for row in range(packed_rows(height))]
    np.testing.assert_array_equal(np.concatenate(rows), packed_at_once(frame))


def test_no_more_bytes_are_read_than_hold_the_rows():
    assert [holding(*rows, 8) for rows in ((0, 8), (1, 3), (5, 7), (3, 5), (0, 4), (4, 8))] == [(0, 4), (1, 3), (1, 3), (0, 4), (0, 4), (0, 4)]
    assert [holding(*rows, 7) for rows in ((0, 4), (4, 7), (3, 4))] == [(0, 4), (0, 3), (3, 4)]


@pytest.mark.parametrize("frame", [counts(4, 16), counts(4).astype(np.int8), counts(4).astype(np.uint16), counts(4).astype(np.float32)])
def test_what_does_not_fit_is_left_as_it_is(frame):
    assert not can_be_packed(frame)


@pytest.mark.parametrize("at_a_time", [10, 25, 1 << 18])
def test_a_movie_of_small_counts_takes_half_of_the_disk(tmp_path, monkeypatch, at_a_time):
    monkeypatch.setattr(scratch, "PACKED_BYTES", at_a_time)
    movie = np.stack([counts(9, largest) for largest in (15, 3, 200, 15)])
    frames = ScratchFrames(movie.shape, movie.dtype, str(tmp_path))
    before = frames.nbytes
    for f, frame in enumerate(movie):
        frames.write(f, frame)
    assert (before, frames.nbytes) == (4 * 90, 90 + 3 * 50)
    for f, frame in enumerate(movie):
        np.testing.assert_array_equal(frames.raw(f), frame)
        np.testing.assert_array_equal(frames.raw(f, slice(3, 7)), frame[3:7])
    np.testing.assert_array_equal(sum_frames(frames).numpy(), movie.sum(0, dtype=np.float32))
