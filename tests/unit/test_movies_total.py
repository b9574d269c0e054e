"""Sums over frames by bands and threads are those of frame after frame, and decoding takes no more memory than planned."""
import threading
import tracemalloc

import numpy as np
import pytest
import tifffile
import torch

from refmotion_plugin.engine.movies import frames as on_the_way, stack, total
from refmotion_plugin.engine.movies.frames import torch_type, turn_over
from refmotion_plugin.engine.movies.parallel import each
from refmotion_plugin.engine.movies.readers import open_movie
from refmotion_plugin.engine.movies.scratch import Scratch
from refmotion_plugin.engine.movies.stack import load_movie
from refmotion_plugin.engine.movies.streamed import StreamedFrames
from refmotion_plugin.engine.movies.total import sum_frames
from refmotion_plugin.engine.stages.memory import Load

from test_movies_stack import SHAPE, _frames, _inputs, _metadata, _write

KINDS = ("held", "scratch", "streamed")


def _kept(kind, frames, folder):
    if kind == "held":
        return frames
    if kind == "scratch":
        kept = Scratch(10 ** 9, str(folder)).frames(frames.shape, frames.dtype)
        for f, frame in enumerate(frames):
            kept.write(f, frame)
        return kept
    return StreamedFrames(open_movie(_write(folder / "m.mrc", frames)), 0, len(frames), False, 2)


@pytest.mark.parametrize("threads", [1, 3, 200])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_frame_after_frame(tmp_path, monkeypatch, kind, dtype, threads):
    monkeypatch.setattr(total, "BAND_PX", 7 * SHAPE[1])
    frames = np.random.default_rng(3).uniform(0, 200, (9,) + SHAPE).astype(dtype)
    gain = torch.from_numpy(np.random.default_rng(4).uniform(0.5, 2, SHAPE).astype(np.float32))
    expected = np.zeros(SHAPE, np.float32 if np.dtype(dtype).kind == "f" else np.int64)
    for frame in frames:
        expected += frame
    expected = expected.astype(np.float32)
    kept = _kept(kind, frames, tmp_path)
    assert np.array_equal(sum_frames(kept, threads), expected) and np.array_equal(sum_frames(kept, threads, gain), expected * gain.numpy())


@pytest.mark.parametrize("n", [257, 258])
def test_a_sum_of_bytes_does_not_wrap(n):
    assert (sum_frames(np.full((n, 4, 5), 255, np.uint8)) == 255 * n).all()


def test_streamed_frames_are_decoded_once_for_their_sum(tmp_path, monkeypatch):
    monkeypatch.setattr(total, "BAND_PX", 7 * SHAPE[1])
    kept, asked = _kept("streamed", _frames(), tmp_path), []
    monkeypatch.setattr(StreamedFrames, "raw", lambda self, f, rows, real=StreamedFrames.raw: asked.append(f) or real(self, f, rows))
    sum_frames(kept, 3)
    assert asked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("height", [1, 2, 9, 64, 65])
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_rows_are_turned_in_place(monkeypatch, height, rows):
    monkeypatch.setattr(on_the_way, "TURNED_BYTES", rows * 40)
    frame = np.random.default_rng(0).integers(0, 99, (height, 20)).astype(np.int16)
    expected = frame[::-1].copy()
    turn_over(frame)
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("largest, expected", [(32767, np.int16), (32768, np.int32)])
def test_16_bits_become_what_torch_computes_with(shape, threads, largest, expected):
    values = np.zeros(shape, np.uint16)
    values[..., -1, -1] = largest
    turned = torch_type(values, threads)
    assert turned.dtype == expected and (turned == values).all()


def test_threads_work_at_the_same_time_and_are_given_to_the_search_for_bad_pixels(tmp_path, monkeypatch):
    meeting, given = threading.Barrier(3), []
    assert sorted(each(lambda _: meeting.wait(timeout=30), range(3), 3)) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        each(lambda n: 1 // n, range(3), 3)
    for name, place in (("sum_frames", 1), ("find_outliers", 3)):
        monkeypatch.setattr(stack, name, lambda *args, real=getattr(stack, name), at=place: given.append(args[at]) or real(*args))
    monkeypatch.setattr(total, "_sum", lambda *args, real=total._sum: given.append(threading.current_thread().name) or real(*args))
    load_movie(_metadata(_write(tmp_path / "m.mrc", _frames())), _inputs(hot_pixel_sigma=8.0), 3)
    assert given[0] == given[-1] == 3 and len(given) == 5 and threading.main_thread().name not in given


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turned", [True, False])
def test_decoding_takes_no_more_memory_than_planned(tmp_path, kind, threads, turned):
    """Beside the movie itself: frames in decoding and sums; numpy says what it holds."""
    shape, n = (1024, 1024), 12
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        for frame in np.random.default_rng(0).poisson(1, (n,) + shape).astype(np.uint8):
            writer.write(frame, compression="lzw", photometric="minisblack", contiguous=False, rowsperstrip=64)
    load = Load(size_yx=shape, frames=n, particles=0, patch_px=0, kept_px=0, window_px=0, polished_px=0, threads=threads)
    room = Scratch(10 ** 9, str(tmp_path))
    options = {"held": {}, "scratch": {"scratch": room, "needed_again": True}, "streamed": {"held_bytes": 0}}[kind]
    metadata = _metadata(tmp_path / "m.tif", n, size_yx=shape)
    tracemalloc.start()
    try:
        load_movie(metadata, _inputs(movie_flip_y=turned), threads, **options)
        decoding = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        load_movie(metadata, _inputs(movie_flip_y=turned, hot_pixel_sigma=8.0), threads, **options)
        searching = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoding <= load.decoding_bytes and searching <= load.decoding_bytes + load.searching_bytes
    if kind == "held":
        assert decoding < threads * shape[0] * shape[1]         # frames go where they stay, their compressed bytes are less
