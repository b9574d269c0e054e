"""The small average for the eye lies where the corrected micrograph does."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.engine.movies.scratch import ScratchFrames
from refmotion_plugin.engine.movies.stack import MovieStack
from refmotion_plugin.engine.stages.thumbnail import thumbnail


def stack_of(frames, gain=None, first_frame=0):
    return MovieStack("m", torch.from_numpy(frames), gain, np.zeros((0, 2), np.int64), None, 1.5, first_frame)


def small_of(shift_xy, stack, upstream=None):
    upstream = stack.first_frame + np.arange(len(stack.frames)) if upstream is None else upstream
    return thumbnail(SimpleNamespace(global_shift_xy_px=shift_xy), stack, SimpleNamespace(upstream=upstream))


def test_a_moving_spot_stands_still_where_the_micrograph_has_it():
    shift_xy = np.array([[0.0, 0.0], [16.0, -8.0], [32.0, -24.0], [40.0, -40.0]])          # to apply: r_aligned = r_frame + shift
    frames = np.zeros((4, 1024, 1536), np.uint8)
    for frame, (x, y) in zip(frames, shift_xy):
        frame[600 - int(y):606 - int(y), 900 - int(x):906 - int(x)] = 100
    image, pixel = small_of(shift_xy, stack_of(frames))
    assert image.shape == (341, 512) and image.dtype == np.uint8 and pixel == 4.5
    yx = np.argwhere(image > 0) * 3 + 1.0                        # centre of a bin in movie px
    assert np.abs(yx.mean(axis=0) - (602.5, 902.5)).max() < 3 and np.ptp(yx, axis=0).max() <= 9


def test_frames_that_were_left_out_before_the_stack_are_not_counted():
    shift_xy = np.array([[99.0, 99.0], [0.0, 0.0], [0.0, 0.0]])
    frames = np.zeros((2, 600, 600), np.float32)
    frames[:, 100:104, 200:204] = 1.0
    image, _ = small_of(shift_xy, stack_of(frames, first_frame=1))
    assert np.abs(np.argwhere(image > 0).mean(axis=0) * 2 - (101, 201)).max() < 1.5


def test_frames_finer_than_those_that_were_aligned_move_between_their_shifts():
    """EER movies may be cut into other fractions than upstream: here two frames for each one that has a shift."""
    frames, upstream = np.zeros((4, 1024, 1024), np.uint8), np.array([-0.25, 0.25, 0.75, 1.25])
    for frame, x in zip(frames, (0, 10, 30, 40)):
        frame[500:508, 600 - x:608 - x] = 100
    image, _ = small_of(np.array([[0.0, 0.0], [40.0, 0.0]]), stack_of(frames), upstream)
    assert np.ptp(np.argwhere(image > 0), axis=0).max() <= 4


def test_frames_on_the_disk_for_temporary_files_give_the_same(tmp_path):
    frames = np.random.default_rng(0).integers(0, 9, (3, 64, 96)).astype(np.uint8)
    kept = ScratchFrames(frames.shape, frames.dtype, str(tmp_path))
    for f, frame in enumerate(frames):
        kept.write(f, frame)
    stack = stack_of(frames)
    (image, _), (expected, _) = (small_of(np.zeros((3, 2)), s, np.arange(3)) for s in (replace(stack, frames=kept), stack))
    assert (image == expected).all() and image.any()


def test_the_gain_is_applied():
    frames = np.ones((3, 64, 64), np.int16)
    gain = torch.ones(64, 64)
    gain[:, 32:] = 2.0
    image, pixel = small_of(np.zeros((3, 2)), stack_of(frames, gain))
    assert pixel == 1.5 and (image[:, :32] == 0).all() and (image[:, 32:] == 255).all()


@pytest.mark.parametrize("frames", [np.zeros((1, 8, 8), np.uint8)])
def test_a_flat_movie_is_black(frames):
    image, _ = small_of(np.zeros((1, 2)), stack_of(frames))
    assert not image.any()
