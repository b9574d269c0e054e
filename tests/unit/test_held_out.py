"""Motion without a particle's own data, against a fit in which it had none; and what it keeps from flattering."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.engine.maths import spline
from refmotion_plugin.engine.motion.correlate import CorrelationMaps
from refmotion_plugin.engine.motion.fit import fit_trajectories
from refmotion_plugin.engine.motion.held_out import input_motion, without_own_data
from refmotion_plugin.engine.motion.prior import build_prior

P, F, WIDTH, STEP = 9, 12, 41, 0.5
DOSE = torch.arange(F, dtype=torch.float64) * 1.5 + 0.75
CURVATURE = torch.linspace(9.0, 3.0, F, dtype=torch.float64)


@pytest.fixture(scope="module")
def scene():
    """Particles whose correlation is a parabola of known curvature around a noisy measurement of a drawn motion."""
    generator = torch.Generator().manual_seed(4)
    position = 1500.0 * torch.rand(P, 2, generator=generator, dtype=torch.float64)
    prior = build_prior([replace(DEFAULT_HYPERPARAMETERS, offset_angstrom=2.0)], position, DOSE)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    true = prior.deviation(draw(1, P, F, 2), draw(1, F, 2))[0]
    return prior, (true + draw(P, F, 2) / CURVATURE[:, None].sqrt()).clamp(-5, 5)


def maps_of(measured, present=None):
    """Spline coefficients of -h/2 |x - measured|^2; particles that are not ``present`` show nothing."""
    axis = (torch.arange(WIDTH, dtype=torch.float64) - WIDTH // 2) * STEP
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    value = -0.5 * CURVATURE[None, :, None, None] * ((y - measured[..., 0, None, None]) ** 2 + (x - measured[..., 1, None, None]) ** 2)
    value = value + CURVATURE[None, :, None, None] * STEP ** 2 / 3          # of a parabola's cubic B-spline: the coefficients lie lower by this
    h = CURVATURE.expand(P, F).clone()
    if present is not None:
        value[~present], h[~present] = 0.0, 0.0
    return CorrelationMaps(value.to(torch.float32), STEP, WIDTH // 2, torch.zeros(P, F, 2, dtype=torch.float64), h.to(torch.float32))


def test_it_is_what_a_fit_without_the_particle_finds(scene):
    prior, measured = scene
    fit = fit_trajectories(maps_of(measured), prior, tolerance=1e-12)
    found = without_own_data(fit)[0][0]
    weight = (CURVATURE / CURVATURE.sum())[:, None]
    for p in (0, 5):
        others = torch.arange(P) != p
        # the metric of the fit knows one curvature for all: the particle is taken out by a prior without it
        alone, covariance = _fit_of_others(prior, measured, others, p)
        free = torch.eye(F, dtype=torch.float64) - weight.T
        unknown = (free @ covariance @ free.T).diagonal()
        alone = alone + (weight * (fit.deviation[0, p] - alone)).sum(0)
        difference = (found[p] - alone).norm(dim=-1)
        moved = (fit.deviation[0, p] - alone).norm(dim=-1)
        assert without_own_data(fit)[1][0, p] == pytest.approx(float(weight[:, 0] @ unknown), rel=0.02)
        assert difference.max() < 0.02 * moved.max() + 1e-3, (difference.max(), moved.max())


def _fit_of_others(prior, measured, others, p):
    """Mean and covariance of particle p given the others' measurements, by dense Gaussian algebra per axis."""
    n = P * F
    columns = []
    for i in range(n):
        z = torch.zeros(1, P, F, 2, dtype=torch.float64)
        z.view(-1, 2)[i] = 1.0
        columns.append(prior.deviation(z, torch.zeros(1, F, 2, dtype=torch.float64))[0, ..., 0].flatten())
    for i in range(F):
        g = torch.zeros(1, F, 2, dtype=torch.float64)
        g[0, i] = 1.0
        columns.append(prior.deviation(torch.zeros(1, P, F, 2, dtype=torch.float64), g)[0, ..., 0].flatten())
    root = torch.stack(columns, 1)
    covariance = (root @ root.T).view(P, F, P, F)
    known = torch.nonzero(others).flatten()
    c = covariance[known][:, :, known].reshape(len(known) * F, -1) + torch.diag((1 / CURVATURE).repeat(len(known)))
    across = covariance[p][:, known].reshape(F, -1)
    return across @ torch.linalg.solve(c, measured[known].reshape(-1, 2)), covariance[p][:, p] - across @ torch.linalg.solve(c, across.T)


def test_offsets_are_those_of_the_fit(scene):
    prior, measured = scene
    fit = fit_trajectories(maps_of(measured), prior)
    weight = (CURVATURE / CURVATURE.sum())[:, None]
    mean = lambda d: (d * weight).sum(-2)
    for motion in (without_own_data(fit)[0], input_motion(fit)):
        torch.testing.assert_close(mean(motion[0]), mean(fit.deviation[0]))
    assert input_motion(fit).diff(dim=2).abs().max() < 1e-12


def test_noise_alone_flatters_a_fit_and_not_the_held_out_motion():
    """Measurements of no motion at all: along the fit the data agree better than at rest, along the held-out motion they do not."""
    own, held = [], []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        position = 1500.0 * torch.rand(P, 2, generator=generator, dtype=torch.float64)
        prior = build_prior([replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=0.1, acceleration_sigma=0.01)], position, DOSE)
        measured = torch.randn(P, F, 2, generator=generator, dtype=torch.float64) / CURVATURE[:, None].sqrt()
        maps = maps_of(measured)
        fit = fit_trajectories(maps, prior)
        agreement = lambda d: float(spline.evaluate(maps.coefficients.reshape(P * F, WIDTH, WIDTH), (d / STEP + WIDTH // 2).reshape(1, P * F, 2))[0].sum())
        start = agreement(input_motion(fit))
        own.append(agreement(fit.deviation) - start)
        held.append(agreement(without_own_data(fit)[0]) - start)
    assert np.mean(own) > 5 * np.std(own) / 12 ** 0.5 and np.mean(own) > 5
    assert np.mean(held) < 2 * np.std(held) / 12 ** 0.5
