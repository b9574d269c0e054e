"""The motion prior against a dense construction of the documented model, written out over particles and frames in numpy."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.engine.motion.prior import build_prior, spatial_kernel, velocity_precisions
from refmotion_plugin.engine.motion.timeline import Columns, Timeline

DOSES = np.array([0.6, 1.8, 3.0, 4.5, 6.5, 8.5, 10.5])      # the dose per frame changes on the way
POSITIONS = np.array([[100.0, 200.0], [400.0, 250.0], [1500.0, 90.0], [900.0, 2100.0]])
STRONG = replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=0.7, acceleration_sigma=0.2, correlation_distance_angstrom=800.0,
                 early_factor=6.0, early_dose_e_per_A2=2.5, jitter_angstrom=0.3, global_angstrom=0.5, offset_angstrom=4.0)
PLAIN = replace(STRONG, jitter_angstrom=0.0, global_angstrom=0.0)


def kernel(hyper, positions):
    r = np.linalg.norm(positions[:, None] - positions[None], axis=-1) / hyper.correlation_distance_angstrom
    return np.exp(-r) if hyper.kernel == "exponential" else (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)


def dense_covariance(hyper, positions, doses):
    """Covariance (P F, P F) of one axis, particle slowest: the energy of the documentation, frame by frame."""
    p, n = len(positions), len(doses)
    inverse = np.linalg.inv(kernel(hyper, positions))
    precision = np.zeros((p * n, p * n))
    sigma = lambda strength, dose: strength * (1 + hyper.early_factor * np.exp(-dose / hyper.early_dose_e_per_A2))
    pick = lambda terms: np.kron(np.eye(p), np.array([terms.get(f, 0.0) for f in range(n)])[None])      # (P, P F)
    for f in range(n - 1):
        sd = sigma(hyper.velocity_sigma, (doses[f] + doses[f + 1]) / 2) * (doses[f + 1] - doses[f])
        v = pick({f: -1.0, f + 1: 1.0})
        precision += v.T @ inverse @ v / sd ** 2
    for f in range(1, n - 1):
        sd = sigma(hyper.acceleration_sigma, doses[f]) * (doses[f + 1] - doses[f - 1]) / 2
        a = pick({f - 1: 1.0, f: -2.0, f + 1: 1.0})
        precision += a.T @ (inverse if hyper.correlated_acceleration else np.eye(p)) @ a / sd ** 2
    smooth = np.linalg.pinv(precision, rcond=1e-12) if n > 1 else np.zeros((p, p))
    offset = hyper.offset_angstrom ** 2 * np.kron(np.eye(p), np.ones((n, n)))
    shift = hyper.global_angstrom ** 2 * np.kron(np.ones((p, p)), np.eye(n))
    return smooth + offset + shift + hyper.jitter_angstrom ** 2 * np.eye(p * n)


def implied_covariance(prior):
    """A A^T of the map from whitened coordinates to deviations of the first axis: (b, P F, P F)."""
    b, p, n = prior.shape
    columns = torch.eye(p * n + n, dtype=torch.float64)
    parts = []
    for column in columns:
        z = torch.zeros(b, p, n, 2, dtype=torch.float64)
        g = torch.zeros(b, n, 2, dtype=torch.float64)
        z[..., 0], g[..., 0] = column[:p * n].reshape(p, n), column[p * n:]
        deviation = prior.deviation(z, g)
        assert not deviation[..., 1].any()                      # the axes are independent
        parts.append(deviation[..., 0].reshape(b, p * n))
    root = torch.stack(parts, dim=-1)
    return (root @ root.transpose(1, 2)).numpy()


def build(hypers, positions=POSITIONS, doses=DOSES):
    return build_prior(hypers, torch.from_numpy(positions), torch.from_numpy(doses))


@pytest.mark.parametrize("kind", ["matern", "exponential"])
@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("extras", [True, False])
def test_the_factors_imply_the_documented_covariance(kind, correlated, extras):
    hyper = replace(STRONG if extras else PLAIN, kernel=kind, correlated_acceleration=correlated)
    dense = dense_covariance(hyper, POSITIONS, DOSES)
    np.testing.assert_allclose(implied_covariance(build([hyper]))[0], dense, rtol=0, atol=2e-5 * dense.max())


@pytest.mark.parametrize("change", [dict(velocity_sigma=0.8), dict(acceleration_sigma=0.25), dict(correlation_distance_angstrom=900.0),
                                    dict(early_factor=7.0), dict(early_dose_e_per_A2=3.0), dict(jitter_angstrom=0.35),
                                    dict(global_angstrom=0.6), dict(offset_angstrom=4.5), dict(kernel="exponential"),
                                    dict(correlated_acceleration=False)])
def test_every_hyperparameter_matters_to_that_comparison(change):
    """The agreement above is far finer than the effect of any hyperparameter."""
    dense = dense_covariance(STRONG, POSITIONS, DOSES)
    other = implied_covariance(build([replace(STRONG, **change)]))[0]
    assert np.abs(other - dense).max() > 1e-3 * dense.max()


@pytest.mark.parametrize("particles, frames", [(1, 7), (4, 1), (4, 2), (1, 1), (1, 2), (3, 3)])
def test_few_frames_and_single_particles(particles, frames):
    dense = dense_covariance(STRONG, POSITIONS[:particles], DOSES[:frames])
    prior = build([STRONG], POSITIONS[:particles], DOSES[:frames])
    assert prior.shape == (1, particles, frames)
    np.testing.assert_allclose(implied_covariance(prior)[0], dense, rtol=0, atol=2e-5 * dense.max())


def test_two_particles_at_the_same_place_move_together():
    positions = np.array([[500.0, 500.0], [500.0, 500.0], [900.0, 100.0]])
    covariance = implied_covariance(build([replace(PLAIN, offset_angstrom=1e-3)], positions))[0]
    n = len(DOSES)
    np.testing.assert_allclose(covariance[:n, n:2 * n], covariance[:n, :n], atol=2e-5 * covariance.max())
    assert np.isfinite(covariance).all()


def precisions(hyper, doses):
    """Both parts (F - 1, F - 1) for one set."""
    return [part[0] for part in velocity_precisions(Columns.of([hyper], "cpu"), Timeline(torch.from_numpy(doses)))]


def test_beta_zero_gives_constant_strengths():
    doses = 1.3 * (np.arange(8) + 0.5)
    velocity, acceleration = precisions(replace(STRONG, early_factor=0.0), doses)
    turns = np.diff(np.eye(7), axis=0)
    np.testing.assert_allclose(velocity.numpy(), np.eye(7) / (0.7 * 1.3) ** 2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(acceleration.numpy(), turns.T @ turns / (0.2 * 1.3) ** 2, rtol=1e-12, atol=1e-12)
    early, _ = precisions(STRONG, doses)
    ratio = velocity[0, 0] / early[0, 0]
    assert float(ratio) == pytest.approx((1 + 6.0 * np.exp(-1.3 / 2.5)) ** 2)      # between frames 1 and 2: dose 1.3


def test_strengths_are_per_unit_of_dose():
    """The same movie in units of dose four times smaller."""
    scaled = replace(STRONG, velocity_sigma=STRONG.velocity_sigma / 4, acceleration_sigma=STRONG.acceleration_sigma / 4,
                     early_dose_e_per_A2=STRONG.early_dose_e_per_A2 * 4)
    np.testing.assert_allclose(implied_covariance(build([scaled], doses=4 * DOSES)), implied_covariance(build([STRONG])), atol=1e-8)


def test_lengths_scale_together():
    """In other units of length (positions, correlation distance, all strengths) the covariance is the same in those units."""
    c = 3.0
    scaled = replace(STRONG, **{name: c * getattr(STRONG, name) for name in (
        "velocity_sigma", "acceleration_sigma", "correlation_distance_angstrom", "jitter_angstrom", "global_angstrom",
        "offset_angstrom")})
    np.testing.assert_allclose(implied_covariance(build([scaled], c * POSITIONS)), c ** 2 * implied_covariance(build([STRONG])),
                               rtol=1e-6, atol=1e-6)


def test_pre_exposure_moves_a_movie_past_its_early_motion():
    late, _ = precisions(STRONG, DOSES + 200.0)
    plain, _ = precisions(replace(STRONG, early_factor=0.0), DOSES)
    torch.testing.assert_close(late, plain)


def test_sets_of_a_batch_are_those_of_single_builds():
    hypers = [STRONG, PLAIN, replace(STRONG, kernel="exponential"), replace(STRONG, correlated_acceleration=False),
              replace(STRONG, jitter_followed=False)]
    together = implied_covariance(build(hypers))
    for i, hyper in enumerate(hypers):
        np.testing.assert_allclose(together[i], implied_covariance(build([hyper]))[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strength", [1e-3, 1e-5, 1e-8])
def test_infinitely_stiff_priors_leave_nothing_but_the_constant(strength):
    hyper = replace(PLAIN, velocity_sigma=strength, acceleration_sigma=strength, early_factor=0.0)
    covariance = implied_covariance(build([hyper]))[0]
    constant = PLAIN.offset_angstrom ** 2 * np.kron(np.eye(4), np.ones((7, 7)))
    np.testing.assert_allclose(covariance, constant, atol=1e-3)


def test_kernels_fall_from_one_and_unknown_names_are_refused():
    r = torch.linspace(0, 5000, 50, dtype=torch.float64)
    for kind in ("matern", "exponential"):
        value = spatial_kernel(r, 1000.0, kind)
        assert value[0] == 1 and bool((value.diff() < 0).all())
    assert float(spatial_kernel(r[1:2], 1000.0, "matern")) > float(spatial_kernel(r[1:2], 1000.0, "exponential"))
    with pytest.raises(ValueError, match="'gauss'"):
        spatial_kernel(r, 1000.0, "gauss")
