"""Spline surfaces made from a spectrum against the function they sample."""
import math

import pytest
import torch

from refmotion_plugin.engine.maths import spline
from refmotion_plugin.engine.motion.correlate import OVERSAMPLING

BAND = 0.2                                   # cycles per unit
STEP = 1.0 / (2.0 * BAND * OVERSAMPLING)
WIDTH = 25


class BandLimited:
    """A few random cosines inside the band, as correlation maps are."""

    def __init__(self, seed=0, waves=40):
        generator = torch.Generator().manual_seed(seed)
        angle = 2 * math.pi * torch.rand(waves, generator=generator, dtype=torch.float64)
        radius = BAND * torch.rand(waves, generator=generator, dtype=torch.float64).sqrt()
        self.k = torch.stack([radius * angle.sin(), radius * angle.cos()], dim=-1)
        self.phase = 2 * math.pi * torch.rand(waves, generator=generator, dtype=torch.float64)
        self.height = torch.randn(waves, generator=generator, dtype=torch.float64)

    def __call__(self, yx):
        return (self.height * torch.cos(2 * math.pi * yx @ self.k.T + self.phase)).sum(-1)

    def coefficients(self):
        """Coefficients at the samples: every wave times its prefilter gain along both axes."""
        axis = (torch.arange(WIDTH, dtype=torch.float64) - WIDTH // 2) * STEP
        yx = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        gain = spline.prefilter_gain(self.k, STEP).prod(-1)
        return (self.height * gain * torch.cos(2 * math.pi * yx @ self.k.T + self.phase)).sum(-1)[None]


def positions(n=200, seed=1, low=2.0, high=WIDTH - 3.0):
    return low + (high - low) * torch.rand(n, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1])
def test_prefiltered_coefficients_reproduce_a_band_limited_function(seed):
    wave = BandLimited(seed)
    place = positions()
    value, _ = spline.evaluate(wave.coefficients(), place)
    truth = wave((place - WIDTH // 2) * STEP)
    assert (value - truth).abs().max() < 1e-3 * wave.height.abs().sum()
    assert (value - truth).pow(2).mean().sqrt() < 2e-3 * truth.pow(2).mean().sqrt()


def test_without_the_prefilter_the_function_is_missed():
    """The bound above is no formality: raw samples used as coefficients are blurred by far more."""
    wave = BandLimited()
    blurred = wave.coefficients() * 0
    axis = (torch.arange(WIDTH, dtype=torch.float64) - WIDTH // 2) * STEP
    blurred[0] = wave(torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1))
    place = positions()
    truth = wave((place - WIDTH // 2) * STEP)
    assert (spline.evaluate(blurred, place)[0] - truth).pow(2).mean().sqrt() > 1e-2 * truth.pow(2).mean().sqrt()


@pytest.mark.parametrize("low, high", [(2.0, WIDTH - 3.0), (-6.0, WIDTH + 5.0)])
def test_gradient_agrees_with_finite_differences_inside_and_outside(low, high):
    coefficients, place, h = BandLimited(2).coefficients(), positions(400, 3, low, high), 1e-5
    _, gradient = spline.evaluate(coefficients, place)
    for axis in (0, 1):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = h
        numeric = (spline.evaluate(coefficients, place + step)[0] - spline.evaluate(coefficients, place - step)[0]) / (2 * h)
        smooth = ((place - 2.0).abs() > 2 * h) & ((place - (WIDTH - 3.0)).abs() > 2 * h)
        where = smooth.all(-1)
        torch.testing.assert_close(gradient[..., axis][where], numeric[where], atol=2e-6, rtol=1e-5)


def test_outside_the_window_the_surface_levels_off_without_a_jump():
    coefficients = BandLimited(4).coefficients()
    at = lambda y, x=9.3: spline.evaluate(coefficients, torch.tensor([[[y, x]]], dtype=torch.float64))
    for border, outward in ((2.0, -1.0), (WIDTH - 3.0, 1.0)):
        (edge, slope), (near, near_slope) = at(border), at(border + outward * 1e-5)
        assert float(near) == pytest.approx(float(edge), abs=1e-4)
        torch.testing.assert_close(near_slope, slope, atol=1e-3, rtol=1e-3)
        (far, far_slope), (farther, _) = at(border + outward * 30), at(border + outward * 1e9)
        assert float(far) == pytest.approx(float(farther)) and float(far_slope[..., 0]) == 0.0


def test_no_position_however_far_gives_more_than_the_window_holds():
    """Else a weak prior lets a fit win without limit where there are no data."""
    coefficients = BandLimited(5).coefficients()
    far = positions(2000, 6, -1e6, 1e6)
    value, gradient = spline.evaluate(coefficients, far)
    assert value.abs().max() <= coefficients.abs().max() and torch.isfinite(gradient).all()


def test_many_surfaces_are_each_evaluated_at_their_own_places():
    surfaces = torch.cat([BandLimited(s).coefficients() for s in (5, 6, 7)])
    place = 3.0 + 15.0 * torch.rand(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, gradient = spline.evaluate(surfaces, place)
    assert value.shape == (4, 3) and gradient.shape == (4, 3, 2)
    for i in range(3):
        single = spline.evaluate(surfaces[i:i + 1], place[:, i:i + 1])
        torch.testing.assert_close(value[:, i:i + 1], single[0])
        torch.testing.assert_close(gradient[:, i:i + 1], single[1])
