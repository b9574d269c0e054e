"""The derivatives of the fit of frames are those of its residuals."""
import numpy as np
import pytest

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.engine.dose.frame_fit import Problem

K = np.linspace(0.05, 0.3, 20)


def _problem(kinds, frames):
    rng = np.random.default_rng(3)
    dose = 1.2 * (np.arange(frames) + 0.5)
    exposure = exposure_amplitude(dose, K, 300.0)
    error = rng.uniform(0.01, 0.1, exposure.shape)
    error[-1, 3:5], error[:, 7] = np.inf, np.inf            # frames without data, a shell without any
    return Problem(exposure * np.exp(-5 * K ** 2) + error.clip(max=0.1) * rng.normal(size=error.shape), error, exposure, dose, K,
                   np.arange(frames) % kinds)


@pytest.mark.parametrize("kinds, frames", [(1, 9), (3, 9), (1, 1), (1, 2)])
@pytest.mark.parametrize("size", [0.0, 0.3])
def test_slopes_are_those_of_the_residuals(kinds, frames, size):
    problem = _problem(kinds, frames)
    x = size * np.random.default_rng(5).normal(size=problem.size) * np.where(np.arange(problem.size) // frames == 1, 10.0, 1.0)
    slopes, step = problem.slopes(x), 1e-6
    assert slopes.shape == (len(problem.residuals(x)), problem.size) and problem.size == 2 * frames + kinds + 1
    for i in range(problem.size):
        ahead, behind = x.copy(), x.copy()
        ahead[i] += step
        behind[i] -= step
        numeric = (problem.residuals(ahead) - problem.residuals(behind)) / (2 * step)
        np.testing.assert_allclose(slopes[:, i], numeric, rtol=1e-6, atol=2e-7 * max(1.0, np.abs(numeric).max()))


def test_an_exposure_curve_that_is_off_has_no_slope():
    problem = _problem(1, 5)
    x = np.zeros(problem.size)
    x[-2] = -1.5                                            # a power below zero counts as zero
    data = problem.t.size
    assert not problem.slopes(x)[:data, -2].any() and problem.slopes(x)[:data, -1].any()
