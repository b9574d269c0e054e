"""Round trips and invariances of the engine's mathematics, whatever the numbers."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from refmotion_plugin.contract import conventions
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.engine.dose.weights import normalise, resample, without_second_rise
from refmotion_plugin.engine.maths import spline
from refmotion_plugin.engine.maths.fourier import FourierGrid, crop_half_spectrum, shift_phase, sum_over_shells

even = st.integers(3, 14).map(lambda n: 2 * n)
seeds = st.integers(0, 10 ** 6)
few = settings(max_examples=30, deadline=None)


def picture(seed, size, n=2):
    return torch.randn(n, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@few
@given(even, seeds, st.floats(-20, 20), st.floats(-20, 20))
def test_shifts_forth_and_back_cancel_and_keep_the_power(size, seed, y, x):
    grid = FourierGrid(size, 1.0, size)
    spectrum = torch.fft.rfft2(picture(seed, size))
    shift = torch.tensor([[y, x], [-x, y]], dtype=torch.float64)
    turn = lambda s: (lambda ty, tx: ty[:, :, None] * tx[:, None, :])(*shift_phase(s, size, size))
    moved = spectrum * turn(shift)
    torch.testing.assert_close(moved * turn(-shift), spectrum, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sum_over_shells(moved.abs() ** 2, grid), sum_over_shells(spectrum.abs() ** 2, grid), rtol=1e-5, atol=1e-6)


@few
@given(even, st.data(), seeds)
def test_cropping_in_two_steps_is_cropping_at_once(size, data, seed):
    middle = data.draw(st.integers(2, size // 2)) * 2
    small = data.draw(st.integers(1, middle // 2)) * 2
    spectrum = torch.fft.rfft2(picture(seed, size))
    assert torch.equal(crop_half_spectrum(crop_half_spectrum(spectrum, middle), small), crop_half_spectrum(spectrum, small))


@few
@given(seeds, st.integers(6, 20))
def test_splines_of_constants_and_planes_are_exact(seed, width):
    """Cubic splines reproduce polynomials of first order from their own samples; gradient included."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=3)
    axis = torch.arange(width, dtype=torch.float64)
    surface = (a + b * axis[:, None] + c * axis[None, :])[None]
    place = torch.from_numpy(rng.uniform(2, width - 3, (20, 1, 2)))
    value, gradient = spline.evaluate(surface, place)
    torch.testing.assert_close(value, a + b * place[..., 0] + c * place[..., 1], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(gradient, torch.tensor([b, c]).double().expand_as(gradient), atol=1e-9, rtol=1e-9)


@few
@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(0, 180), st.floats(-180, 180)), min_size=1, max_size=5))
def test_rotations_are_proper_and_their_inverse_has_the_angles_turned_round(angles):
    angles = np.array(angles)
    matrix = conventions.rotation_matrices(angles)
    np.testing.assert_allclose(matrix @ matrix.transpose(0, 2, 1), np.broadcast_to(np.eye(3), matrix.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0)
    np.testing.assert_allclose(conventions.rotation_matrices(-angles[:, ::-1]), matrix.transpose(0, 2, 1), atol=1e-12)


@few
@given(seeds, st.integers(1, 25), st.sampled_from(["sum", "power", "peak"]))
def test_weights_after_the_peak_only_fall_and_stay_normalised_when_resampled(seed, frames, kind):
    rng = np.random.default_rng(seed)
    doses, k = 1.3 * (np.arange(frames) + 0.5), np.linspace(0, 0.4, 9)
    amplitude = without_second_rise(rng.uniform(0.01, 1.0, (frames, 9)), doses, rng.uniform(0.0, 1.0, 9))
    for column in amplitude.T:
        assert (np.diff(column[column.argmax():]) <= 0).all()
    zero = np.zeros((1, frames))
    stored = DoseWeights(normalise(amplitude, kind)[None], k, doses, zero, zero, zero, zero, kind, "test")
    other = np.sort(rng.uniform(0.0, 60.0, 7))
    table = resample(stored, 0, other, rng.uniform(0, 0.5, 11))
    total = {"sum": table.sum(0), "power": (table ** 2).sum(0), "peak": table.max(0)}[kind]
    np.testing.assert_allclose(total, 1.0, rtol=1e-9)
    assert (table >= 0).all()
    np.testing.assert_allclose(resample(stored, 0, doses.copy(), k), stored.weight[0], rtol=1e-9, atol=1e-15)


@few
@given(seeds, st.floats(0.3, 5.0))
def test_weights_do_not_depend_on_a_factor(seed, factor):
    amplitude = np.random.default_rng(seed).uniform(0.01, 1.0, (6, 4))
    for kind in ("sum", "power", "peak"):
        np.testing.assert_allclose(normalise(factor * amplitude, kind), normalise(amplitude, kind), rtol=1e-12)


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(ValueError):
        normalise(np.ones((2, 2)), "maximum")
