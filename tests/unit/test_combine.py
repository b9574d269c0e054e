"""The weighted sum of frames: signs, normalisations, cropping."""
import numpy as np
import pytest
import torch

from refmotion_plugin.engine.dose.combine import combine_frames, normalise_background, to_images
from refmotion_plugin.engine.maths.fourier import FourierGrid

SIZE = 32
GRID = FourierGrid(SIZE, 1.3, SIZE)


def spot(y, x, n=1):
    """A smooth spot at (y, x), (n, SIZE, SIZE) float32."""
    rows, columns = np.indices((SIZE, SIZE))
    image = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 1.7 ** 2))
    return torch.from_numpy(np.repeat(image[None], n, 0)).to(torch.float32)


def combined(frames, offsets, weight=None):
    """Image of the sum; ``frames`` list of (P, S, S), ``offsets`` (P, F, 2)."""
    patches = [torch.fft.rfft2(f) for f in frames]
    weight = torch.full((1, len(frames), GRID.n_shells), 1.0 / len(frames)) if weight is None else weight
    each_part_of = lambda f, use: [use(rows, patches[f][rows].clone()) for rows in (slice(0, 1), slice(1, None))]
    return combine_frames(each_part_of, torch.as_tensor(np.asarray(offsets), dtype=torch.float64), weight, GRID)


def centre_of(image):
    y, x = np.indices(image.shape)
    weight = np.clip(image, 0.02, None) - 0.02
    return (y * weight).sum() / weight.sum(), (x * weight).sum() / weight.sum()


def test_frames_with_opposite_offsets_are_put_back_on_the_same_place():
    centre, offset = SIZE // 2, np.array([3.0, -5.0])
    frames = [spot(centre + offset[0], centre + offset[1]), spot(centre - offset[0], centre - offset[1])]
    image = to_images(combined(frames, [[offset, -offset]]), GRID)[0].numpy()
    np.testing.assert_allclose(image, spot(centre, centre)[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("wrong", [-1, "axes"])
def test_with_the_sign_or_the_axes_turned_the_spot_is_doubled(wrong):
    centre, offset = SIZE // 2, np.array([3.0, -5.0])
    frames = [spot(centre + offset[0], centre + offset[1]), spot(centre - offset[0], centre - offset[1])]
    turned = offset[::-1] if wrong == "axes" else -offset
    image = to_images(combined(frames, [[turned, -turned]]), GRID)[0].numpy()
    assert image.max() < 0.7


def test_fractions_of_a_pixel_are_moved_too_each_particle_by_its_own():
    offsets = np.array([[[0.4, 0.0]], [[0.0, -1.3]], [[-2.75, 0.5]]])
    frame = torch.cat([spot(14 + o[0, 0], 17 + o[0, 1]) for o in offsets])
    images = to_images(combined([frame], offsets), GRID).numpy()
    for image in images:
        assert centre_of(image) == pytest.approx((14, 17), abs=0.01)


def test_sum_normalised_weights_keep_the_signal():
    """Frames of the same signal: whatever weights that sum to one per shell leave it as it is."""
    raw = torch.rand(1, 5, GRID.n_shells, generator=torch.Generator().manual_seed(1)) + 0.1
    weight = raw / raw.sum(1, keepdim=True)
    picture = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    image = to_images(combined([picture] * 5, np.zeros((2, 5, 2)), weight), GRID)
    torch.testing.assert_close(image, picture, atol=1e-4, rtol=0)


def test_weights_belong_to_their_frame_shell_and_particle():
    pictures = [torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(s)) for s in (3, 4)]
    weight = torch.rand(2, 2, GRID.n_shells, generator=torch.Generator().manual_seed(5))
    total = combined(pictures, np.zeros((2, 2, 2)), weight).numpy()
    index = np.fft.fftfreq(SIZE, 1 / SIZE)
    shell = np.round(np.hypot(index[:, None], np.arange(SIZE // 2 + 1)[None])).astype(int)
    table = weight.numpy()[..., np.minimum(shell, GRID.n_shells - 1)]           # corners take the last shell's weight
    expected = sum(np.fft.rfft2(picture.numpy()) * table[:, f] for f, picture in enumerate(pictures))
    np.testing.assert_allclose(total, expected, atol=1e-3)


def test_corners_of_the_square_keep_their_power():
    picture = torch.randn(1, SIZE, SIZE, generator=torch.Generator().manual_seed(6))
    total = combined([picture], np.zeros((1, 1, 2)), torch.ones(1, 1, GRID.n_shells))
    torch.testing.assert_close(total, torch.fft.rfft2(picture), atol=1e-4, rtol=0)
    assert float(total[0, SIZE // 2, SIZE // 2].abs()) > 0


def test_cropping_keeps_values_and_the_centre():
    """A smooth spot at the box centre, on a background, sampled at twice the pixel."""
    image = 5.0 + 3.0 * spot(SIZE // 2, SIZE // 2)
    small = to_images(torch.fft.rfft2(image), GRID, SIZE // 2)[0].numpy()
    assert small.shape == (SIZE // 2, SIZE // 2)
    np.testing.assert_allclose(small, image[0, ::2, ::2].numpy(), atol=0.1)
    assert np.unravel_index(small.argmax(), small.shape) == (SIZE // 4, SIZE // 4)
    assert small.mean() == pytest.approx(float(image.mean()), rel=1e-5)


def test_without_cropping_the_image_comes_back():
    picture = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(to_images(torch.fft.rfft2(picture), GRID), picture, atol=1e-5, rtol=0)


def test_the_background_is_normalised_and_the_particle_not_measured():
    generator = torch.Generator().manual_seed(8)
    images = 7.0 + 2.5 * torch.randn(4, SIZE, SIZE, generator=generator)
    bright = images + 40.0 * spot(SIZE // 2, SIZE // 2)
    out, sd = normalise_background(bright, 10.0)
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    outside = np.hypot(y, x) > 10.0
    background = out.numpy()[:, outside]
    np.testing.assert_allclose(background.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(background.std(1, ddof=1), 1, atol=1e-5)
    np.testing.assert_allclose(sd.numpy(), bright.numpy()[:, outside].std(1, ddof=1), rtol=1e-5)
    assert float(out[0, SIZE // 2, SIZE // 2]) > 8.0


def test_a_radius_beyond_the_corners_counts_every_pixel_and_flat_images_are_told():
    images = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(9))
    images[1] = 4.0
    out, sd = normalise_background(images, 10.0 * SIZE)
    assert float(out[0].mean()) == pytest.approx(0, abs=1e-5) and float(out[0].std()) == pytest.approx(1, abs=1e-5)
    assert float(sd[1]) == 0 and bool(torch.isfinite(out).all()) and not bool(out[1].any())
