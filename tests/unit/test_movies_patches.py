import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from refmotion_plugin.engine.movies.patches import Gather, corner_for, cut_patches


def _slow(frame, corner_yx, size):
    """One pixel after the other."""
    frame = frame.numpy()
    out = np.full((len(corner_yx), size, size), np.nan)
    for p, (top, left) in enumerate(corner_yx.tolist()):
        for i in range(size):
            for j in range(size):
                if 0 <= top + i < frame.shape[0] and 0 <= left + j < frame.shape[1]:
                    out[p, i, j] = frame[top + i, left + j]
        mean = np.nanmean(out[p]) if np.isfinite(out[p]).any() else frame.mean()
        out[p][np.isnan(out[p])] = mean
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10 ** 6), st.sampled_from([2, 5, 8]), st.booleans())
def test_fast_is_slow(seed, size, inside):
    generator = torch.Generator().manual_seed(seed)
    frame = torch.rand((12, 17), generator=generator)
    low, high = (0, 12 - size + 1) if inside else (-20, 30)
    corner = torch.randint(low, high, (6, 2), generator=generator)
    np.testing.assert_allclose(cut_patches(frame, corner, size), _slow(frame, corner, size), rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10 ** 6), st.sampled_from([2, 5, 8]), st.sampled_from([0, 12]), st.sampled_from([torch.float32, torch.uint8]))
def test_gathered_is_cut(seed, size, beyond, kind):
    """For every frame, in parts of the particles, some of which stick out or lie outside."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 9, (3, 12, 17), generator=generator).to(kind)
    corner = torch.randint(-size + 1 - beyond, 17 + beyond, (7, 3, 2), generator=generator)
    gather = Gather(corner, frames.shape[1:], size, "cpu")
    for f in range(3):
        found = torch.cat([gather(frames[f], f, slice(begin, min(begin + 3, 7))) for begin in (0, 3, 6)])
        torch.testing.assert_close(found, cut_patches(frames[f], corner[:, f], size), rtol=1e-5, atol=1e-5)


def test_out_and_nothing():
    frame = torch.rand(12, 17)
    corner, out = torch.tensor([[1, 2], [-3, 15]]), torch.empty(2, 6, 6)
    assert cut_patches(frame, corner, 6, out=out) is out
    assert torch.equal(out, cut_patches(frame, corner, 6))
    assert cut_patches(frame, corner[:0], 6).shape == (0, 6, 6)


def test_patches_are_copies():
    frame = torch.rand(12, 17)
    cut_patches(frame, torch.tensor([[0, 0]]), 6).zero_()
    assert (frame > 0).all()


@pytest.mark.parametrize("size", [8, 9])
def test_box_centre(size):
    """A delta at a whole position lands on pixel size // 2; a fraction stays as the remainder."""
    frame = torch.zeros(40, 50)
    frame[13, 29] = 1
    corner, remainder = corner_for(torch.tensor([[13.0, 29.0], [13.3, 28.6]], dtype=torch.float64), size)
    patches = cut_patches(frame, corner, size)
    assert (patches[:, size // 2, size // 2] == 1).all()
    torch.testing.assert_close(remainder, torch.tensor([[0.0, 0.0], [0.3, -0.4]], dtype=torch.float64))


@given(st.floats(-100, 5000), st.floats(-100, 5000), st.sampled_from([32, 33]))
def test_corner_and_remainder_add_up(y, x, size):
    center = torch.tensor([[[y, x]]], dtype=torch.float64)
    corner, remainder = corner_for(center, size)
    assert corner.dtype == torch.int64 and corner.shape == center.shape
    assert (remainder.abs() <= 0.5).all()
    torch.testing.assert_close(corner + size // 2 + remainder, center)


@pytest.mark.parametrize("corner", [[[0, 0], [4, 9]], [[-3, 2], [4, 9]], [[-30, 2], [40, 9]]])
@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_whole_numbers_are_cut_as_floats_are(corner, kind):
    frame = torch.randint(0, 100, (12, 17), generator=torch.Generator().manual_seed(1)).to(kind)
    corner = torch.tensor(corner)
    expected = cut_patches(frame.to(torch.float32), corner, 8)
    out = torch.full((2, 8, 8), -1.0)
    for patches in (cut_patches(frame, corner, 8), cut_patches(frame, corner, 8, out=out)):
        assert patches.dtype == torch.float32 and torch.equal(patches, expected)


def test_frames_may_be_parts_of_larger_arrays():
    """A frame of a stack, a part of a frame, a frame on its side: whole numbers, all patches inside."""
    stack = torch.arange(3 * 12 * 17, dtype=torch.int32).reshape(3, 12, 17)
    corner = torch.tensor([[0, 0], [4, 7], [2, 1]])
    for frame in (stack[2], stack[1, 2:, 3:], stack[1].T):
        np.testing.assert_array_equal(cut_patches(frame, corner[:2] // 2, 5).numpy(), _slow(frame, corner[:2] // 2, 5))
        np.testing.assert_array_equal(cut_patches(frame, corner[2:], 5).numpy(), _slow(frame, corner[2:], 5))
