"""The shift that all particles share, given the input's rigid motion: against the Gaussian model written out, and what it does to courses."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.engine.motion.adapt import own_scales
from refmotion_plugin.engine.motion.common import common_shift
from refmotion_plugin.engine.motion.evidence import Measured
from refmotion_plugin.engine.motion.timeline import Columns, Timeline

DOSES = np.array([0.6, 1.8, 3.0, 4.5, 6.5, 8.5, 10.5, 12.5])
HYPER = replace(DEFAULT_HYPERPARAMETERS, global_angstrom=0.4, common_sigma=0.1, early_factor=6.0, early_dose_e_per_A2=2.5)
ROUGH = np.random.default_rng(0).normal(size=(len(DOSES), 2)).cumsum(0)


def shift_of(*hypers, course=ROUGH, doses=DOSES):
    return common_shift(Columns.of(hypers, "cpu"), Timeline(torch.from_numpy(doses), None if course is None else torch.from_numpy(course)))


def acceleration_matrix():
    """Accelerations (F - 2, F) in units of what the model allows."""
    n, rows = len(DOSES), []
    for f in range(1, n - 1):
        sd = HYPER.common_sigma * (1 + 6.0 * np.exp(-DOSES[f] / 2.5)) * (DOSES[f + 1] - DOSES[f - 1]) / 2
        rows.append([(1.0, -2.0, 1.0)[g - f + 1] / sd if abs(g - f) <= 1 else 0.0 for g in range(n)])
    return np.array(rows)


def test_mean_and_covariance_are_those_of_the_error_given_the_course():
    """course = true + error, smooth prior on the true one: the shift to be added is minus the error."""
    found, second = shift_of(HYPER), acceleration_matrix()
    posterior = np.linalg.inv(second.T @ second + np.eye(len(DOSES)) / 0.4 ** 2)                  # of the true course
    np.testing.assert_allclose(found.mean[0].numpy(), posterior @ ROUGH / 0.4 ** 2 - ROUGH, atol=1e-9)
    factor = found.factor[0].numpy()
    np.testing.assert_allclose(factor @ factor.T, posterior, atol=1e-9)
    assert not np.triu(factor, 1).any()


def test_the_course_says_how_probable_strengths_are():
    hypers = [HYPER, replace(HYPER, global_angstrom=0.2), replace(HYPER, global_angstrom=0.0)]
    second, expected = acceleration_matrix(), []
    for hyper in hypers:
        total = np.eye(len(DOSES) - 2) + hyper.global_angstrom ** 2 * second @ second.T
        bend = second @ ROUGH
        expected.append(-0.5 * (bend * np.linalg.solve(total, bend)).sum() - np.linalg.slogdet(total)[1])
    np.testing.assert_allclose(np.diff(shift_of(*hypers).log_probability), np.diff(expected), rtol=1e-8)


@pytest.mark.parametrize("course, doses", [(None, DOSES), (ROUGH[:2], DOSES[:2])])
def test_without_a_course_to_judge_the_shift_is_white(course, doses):
    found = shift_of(HYPER, course=course, doses=doses)
    assert not found.mean.any() and not found.log_probability.any()
    torch.testing.assert_close(found.factor[0], 0.4 * torch.eye(len(doses), dtype=torch.float64))


def test_a_course_that_may_bend_at_will_is_taken_as_it_is():
    found = shift_of(replace(HYPER, common_sigma=0.0))
    assert float(found.mean.abs().max()) < 1e-9
    torch.testing.assert_close(found.factor[0], 0.4 * torch.eye(len(DOSES), dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_steady_drift_is_left_alone_and_its_errors_are_taken_out():
    frames = np.arange(30)
    doses, drift = 1.3 * (frames + 0.5), frames[:, None] * np.array([1.0, -2.0])
    error = 0.2 * np.random.default_rng(1).normal(size=drift.shape)
    stiff = replace(HYPER, common_sigma=0.001, global_angstrom=0.2)
    assert float(shift_of(stiff, course=drift, doses=doses).mean.abs().max()) < 1e-9
    left = error + shift_of(stiff, course=drift + error, doses=doses).mean[0].numpy()
    straight = np.polynomial.polynomial.polyfit(frames, error, 1)
    assert np.abs(left).max() < 2 * np.abs(np.polynomial.polynomial.polyval(frames, straight)).max() < np.abs(error).max()


@pytest.mark.parametrize("true_sigma, expected", [(0.002, "smooth"), (2.0, "rough")])
def test_a_movie_says_itself_how_smooth_its_course_is(true_sigma, expected):
    """Particles that do not move under a course with errors of 0.2 A: seen by the particles only dimly, by its roughness well."""
    rng, frames, particles = np.random.default_rng(2), 30, 20
    doses = torch.arange(frames, dtype=torch.float64) * 1.3 + 0.65
    true = np.concatenate([np.zeros((2, 2)), true_sigma * 1.3 * rng.normal(size=(frames - 2, 2)).cumsum(0).cumsum(0)])
    error = 0.2 * rng.normal(size=true.shape)
    seen = torch.from_numpy(-error + rng.normal(size=(particles, frames, 2)))
    place = torch.from_numpy(rng.uniform(0, 3000, (particles, 2)))
    hyper = replace(HYPER, movie_spread=1.5, early_factor=0.0, common_sigma=0.1)
    measured = Measured(seen, torch.ones(frames, dtype=torch.float64), place, doses, torch.from_numpy(true + error))
    common = 0.1 * own_scales(hyper, measured)[0].common
    assert common < 0.02 if expected == "smooth" else common > 0.7
    assert own_scales(hyper, replace(measured, course_yx_angstrom=None))[0].common == 1.0


@pytest.mark.parametrize("curvature, told", [(1e-9, False), (50.0, True)])
def test_what_a_movie_tells_of_its_scales_narrows_them(curvature, told):
    """Without data all scales stay 1 with the whole width of their prior; with data each takes a share of it only."""
    rng, doses, place = np.random.default_rng(4), torch.from_numpy(DOSES), torch.from_numpy(np.random.default_rng(5).uniform(0, 3000, (30, 2)))
    hyper = replace(HYPER, movie_spread=1.5)
    still = Measured(torch.zeros(30, len(DOSES), 2, dtype=torch.float64), torch.full((len(DOSES),), curvature, dtype=torch.float64), place, doses)
    prior = still.prior([hyper])
    z = torch.from_numpy(rng.normal(size=(1, 30, len(DOSES), 2)))
    seen = prior.deviation(z, torch.zeros(1, len(DOSES), 2, dtype=torch.float64))[0] if told else still.deviation
    scales, share = own_scales(hyper, replace(still, deviation=seen))
    if told:
        assert share < -4.0 and 0.5 < scales.motion < 2.0
    else:
        assert share == pytest.approx(0.0, abs=0.01) and scales == pytest.approx((1.0,) * 6, rel=0.01)
