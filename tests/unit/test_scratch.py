"""Decoded frames on the disk for temporary files: the same frames, nothing left behind, and a way out where there is no room."""
import errno
import os

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.engine.movies import scratch
from refmotion_plugin.engine.movies.scratch import Scratch, ScratchFrames, file_system
from refmotion_plugin.engine.movies.stack import load_movie

from test_movies_stack import SHAPE, TYPES, _frames, _inputs, _metadata, _movie_with_faults, _write

ROOM = 10 ** 8


@pytest.mark.parametrize("threads", [1, 3])
@TYPES
def test_frames_on_disk_are_those_in_memory(tmp_path, name, dtype, threads):
    metadata, room = _movie_with_faults(tmp_path / name, dtype), Scratch(ROOM, str(tmp_path))
    held = load_movie(metadata, _inputs(hot_pixel_sigma=8.0), threads)
    for stack in (load_movie(metadata, _inputs(hot_pixel_sigma=8.0), threads, scratch=room, needed_again=True),
                  load_movie(metadata, _inputs(hot_pixel_sigma=8.0), threads, scratch=room, held_bytes=0)):
        assert isinstance(stack.frames, ScratchFrames) and stack.held_bytes == 0 and (stack.n_frames, stack.shape_yx) == (7, SHAPE)
        assert len(held.bad_yx) and (held.bytes_per_px, held.whole_numbers) == (stack.bytes_per_px, stack.whole_numbers)
        np.testing.assert_array_equal(held.bad_yx, stack.bad_yx)
        for f in (0, 6, 3, 3):
            assert torch.equal(held.corrected(f), stack.corrected(f))
            assert torch.equal(held.to_cut(f).float(), stack.to_cut(f).float())
    assert isinstance(load_movie(metadata, _inputs(), threads, scratch=room).frames, torch.Tensor)        # needed once, and it fits


def test_nothing_is_left_behind_even_meanwhile(tmp_path):
    frames = Scratch(ROOM, str(tmp_path)).frames((2,) + SHAPE, np.uint8)
    frames.write(1, np.ones(SHAPE, np.uint8))
    assert frames.raw(1).all() and os.listdir(tmp_path) == []
    descriptor = frames._file.fileno()
    del frames
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_no_more_than_allowed(tmp_path):
    size = 4 * SHAPE[0] * SHAPE[1]
    room = Scratch(sum(f.nbytes for f in scratch._living) + size, str(tmp_path))
    first = room.frames((4,) + SHAPE, np.uint8)
    assert first.nbytes == size and room.frames((1,) + SHAPE, np.uint8) is None
    del first
    assert room.frames((2,) + SHAPE, np.uint16) is not None


def test_half_of_what_is_free_stays_free(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 2 * SHAPE[0] * SHAPE[1] + 1})())
    assert Scratch(ROOM, str(tmp_path)).frames((1,) + SHAPE, np.uint8) is not None
    assert Scratch(ROOM, str(tmp_path)).frames((2,) + SHAPE, np.uint8) is None


def test_a_folder_that_is_not_there_costs_nothing_but_a_line(tmp_path, caplog):
    assert Scratch(ROOM, str(tmp_path / "gone")).frames((1,) + SHAPE, np.uint8) is None
    assert "no decoded frames are kept in" in caplog.text


@pytest.mark.parametrize("held_bytes", [0, ROOM])
def test_a_full_disk_costs_a_decode(tmp_path, monkeypatch, caplog, held_bytes):
    metadata = _metadata(_write(tmp_path / "m.tif", _frames()))
    expected, written = load_movie(metadata, _inputs()), []

    def full(descriptor, data, offset):
        written.append(offset)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, data)

    monkeypatch.setattr(scratch.os, "pwrite", full)
    stack = load_movie(metadata, _inputs(), held_bytes=held_bytes, scratch=Scratch(ROOM, str(tmp_path)), needed_again=True)
    assert not isinstance(stack.frames, ScratchFrames) and isinstance(stack.frames, torch.Tensor) == bool(held_bytes)
    assert "m.tif are not kept in" in caplog.text and "No space left" in caplog.text
    for f in range(5):
        assert torch.equal(stack.corrected(f), expected.corrected(f))


@pytest.mark.parametrize("value, size", [(16, 5120), (1, 2560)])
def test_a_file_that_became_shorter_is_an_error(tmp_path, value, size):
    frames = Scratch(ROOM, str(tmp_path)).frames((2,) + SHAPE, np.uint8)
    for f in range(2):
        frames.write(f, np.full(SHAPE, value * f, np.uint8))
    frames._file.truncate(SHAPE[0] * SHAPE[1] + size - 1)
    assert not frames.raw(0).any()
    with pytest.raises(MovieError, match="frame 2 .* %d of its %d bytes" % (size - 1, size)):
        frames.raw(1)


def test_values_that_are_not_finite_are_found_before_they_are_needed(tmp_path):
    frames = _frames(np.float32)
    frames[3, 2, 2] = np.nan
    with pytest.raises(MovieError, match="not finite"):
        load_movie(_metadata(_write(tmp_path / "m.mrc", frames)), _inputs(), scratch=Scratch(ROOM, str(tmp_path)), needed_again=True)


def test_memory_is_no_disk(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nnone /tmp tmpfs rw 0 0\n/dev/b /tmp/big\\040disk xfs rw 0 0\nodd\n")
    assert [file_system(p, mounts) for p in ("/home", "/tmp", "/tmp/x", "/tmp/big disk/y", "/tmpx")] == ["ext4", "tmpfs", "tmpfs", "xfs", "ext4"]
    assert file_system("/home", tmp_path / "none") == ""
    monkeypatch.setattr(scratch, "file_system", lambda folder: "tmpfs")
    assert Scratch(ROOM, str(tmp_path)).frames((1,) + SHAPE, np.uint8) is None
