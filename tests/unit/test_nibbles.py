"""Small counts in half a byte each: what was written comes back, whole and in parts, and takes half of the room."""
import numpy as np
import pytest

from refmotion_plugin.engine.movies.nibbles import pack, packed_rows, unpack
from refmotion_plugin.engine.movies.scratch import ScratchFrames
from refmotion_plugin.engine.movies.total import sum_frames


def counts(height, largest=15):
    frame = np.random.default_rng(height).integers(0, largest + 1, (height, 10), dtype=np.uint8)
    frame[0, 0], frame[-1, -1] = largest, largest
    return frame


@pytest.mark.parametrize("height", [1, 2, 7, 8])
def test_any_rows_come_back(height):
    frame = counts(height)
    packed = pack(frame)
    assert packed.shape == (packed_rows(height), 10) and packed.dtype == np.uint8 and packed_rows(height) == -(-height // 2)
    for first in range(height):
        for last in range(first + 1, height + 1):
            rows = unpack(lambda begin, end: packed[begin:end], first, last, height)
            assert rows.dtype == np.uint8
            np.testing.assert_array_equal(rows, frame[first:last])


def test_no_more_bytes_are_read_than_hold_the_rows():
    packed, asked = pack(counts(8)), []
    read = lambda begin, end: asked.append((begin, end)) or packed[begin:end]
    for rows in ((0, 8), (1, 3), (5, 7), (3, 5)):
        unpack(read, *rows, 8)
    assert asked == [(0, 4), (1, 3), (1, 3), (0, 4)]


@pytest.mark.parametrize("frame", [counts(4, 16), counts(4).astype(np.int8), counts(4).astype(np.uint16), counts(4).astype(np.float32)])
def test_what_does_not_fit_is_left_as_it_is(frame):
    assert pack(frame) is None


def test_a_movie_of_small_counts_takes_half_of_the_disk(tmp_path):
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
