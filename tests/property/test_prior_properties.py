"""What holds for the motion prior whatever its size and strengths."""
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.engine.motion.prior import build_prior

sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7))
strengths = st.fixed_dictionaries(dict(
    velocity_sigma=st.floats(0.01, 10.0), acceleration_sigma=st.floats(0.01, 10.0), correlation_distance_angstrom=st.floats(50, 2e4),
    early_factor=st.floats(0.0, 40.0), jitter_angstrom=st.floats(0.0, 1.0), global_angstrom=st.floats(0.0, 2.0),
    kernel=st.sampled_from(["matern", "exponential"]), correlated_acceleration=st.booleans()))


@settings(max_examples=40, deadline=None)
@given(sizes, strengths, st.integers(0, 10 ** 6))
def test_adjoint_is_the_transpose_of_deviation(size, strength, seed):
    batch, particles, frames = size
    rng = np.random.default_rng(seed)
    hyper = replace(DEFAULT_HYPERPARAMETERS, **strength)
    hypers = [replace(hyper, velocity_sigma=hyper.velocity_sigma * (1 + i)) for i in range(batch)]
    prior = build_prior(hypers, torch.from_numpy(rng.uniform(0, 4000, (particles, 2))),
                        torch.from_numpy(1.2 * (np.arange(frames) + 0.5)))
    draw = lambda *shape: torch.from_numpy(rng.normal(size=shape))
    z, g, field = draw(batch, particles, frames, 2), draw(batch, frames, 2), draw(batch, particles, frames, 2)
    back_z, back_g = prior.adjoint(field)
    forward = (prior.deviation(z, g) * field).sum((1, 2, 3))
    backward = (z * back_z).sum((1, 2, 3)) + (g * back_g).sum((1, 2))
    scale = prior.deviation(z, g).norm() * field.norm() + 1e-12
    assert float((forward - backward).abs().max() / scale) < 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), strengths, st.integers(0, 10 ** 6))
def test_the_order_of_the_particles_does_not_matter(particles, frames, strength, seed):
    rng = np.random.default_rng(seed)
    position, order = rng.uniform(0, 4000, (particles, 2)), rng.permutation(particles)
    dose = torch.from_numpy(1.2 * (np.arange(frames) + 0.5))

    def covariance(places):
        prior = build_prior([replace(DEFAULT_HYPERPARAMETERS, **strength)], torch.from_numpy(places), dose)
        field = torch.from_numpy(np.eye(particles * frames)).reshape(-1, particles, frames)
        rows = []
        for one in field:
            z, g = prior.adjoint(torch.stack([one, torch.zeros_like(one)], dim=-1)[None])
            rows.append(prior.deviation(z, g)[0, ..., 0])
        return torch.stack(rows).reshape(particles, frames, particles, frames)

    plain = covariance(position)
    turned = covariance(position[order])
    torch.testing.assert_close(turned, plain[order][:, :, order], rtol=0, atol=1e-6 * float(plain.max()))
