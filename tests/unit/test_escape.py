"""A particle whose correlation has a false peak where the fit starts, and the fit that leads it out."""
from dataclasses import replace

import pytest
import torch

from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.engine.motion import escape
from refmotion_plugin.engine.motion.correlate import CorrelationMaps
from refmotion_plugin.engine.motion.escape import fit_out_of_false_peaks
from refmotion_plugin.engine.motion.fit import fit_trajectories
from refmotion_plugin.engine.motion.prior import build_prior

P, F, WIDTH, STEP = 7, 10, 35, 0.6
DOSE = torch.arange(F, dtype=torch.float64) * 1.3 + 0.65
LOOSE = replace(DEFAULT_HYPERPARAMETERS, correlation_distance_angstrom=300.0, global_angstrom=0.1, kernel="exponential")
HEIGHT, SPREAD = 10.0, 0.8          # of a peak, and its standard deviation in A
CAUGHT = 3
FALSE = -0.6, 0.0                   # A, of the false peak in frame 0


def true_motion(speed=3.0):
    """All go the same way, fast at first (P, F, 2)."""
    way = torch.tensor([speed, -0.5 * speed], dtype=torch.float64) * (torch.exp(-torch.arange(F, dtype=torch.float64) / 2.0) - 0.2)[:, None]
    return way.repeat(P, 1, 1)


def prior_of(*hypers):
    position = 600.0 * torch.rand(P, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return build_prior(list(hypers), position, DOSE)


def peak(at, spread=SPREAD):
    """Maps (..., w, w) of peaks of height 1 at places (..., 2), A."""
    axis = (torch.arange(WIDTH, dtype=torch.float64) - WIDTH // 2) * STEP
    y, x = (torch.exp(-0.5 * ((axis - at[..., i, None]) / spread) ** 2) for i in (0, 1))
    return y[..., :, None] * x[..., None, :]


def as_maps(value):
    return CorrelationMaps(value.to(torch.float32), STEP, WIDTH // 2, torch.zeros(P, F, 2, dtype=torch.float64),
                           torch.full((P, F), HEIGHT / SPREAD ** 2))


def maps_with(decoy_height, noise=0.0, seed=0, speed=3.0, false=FALSE):
    """A peak of each particle and frame at its true place, a false one of the given height for one particle in frame 0."""
    value = HEIGHT * peak(true_motion(speed))
    value[CAUGHT, 0] += decoy_height * peak(torch.tensor(false, dtype=torch.float64))
    value += noise * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return as_maps(value)


def missed(fit, b=0, speed=3.0):
    """Distance from the truth (P, F), A."""
    return (fit.deviation[b] - true_motion(speed)).norm(dim=-1)


@pytest.mark.parametrize("speed, false, height", [(3.0, FALSE, 0.8), (4.5, (0.6, 0.0), 0.8), (3.0, FALSE, 1.4)])
def test_a_particle_escapes_from_a_false_peak(speed, false, height):
    """Also from one that is a little higher, but much less probable given the others."""
    maps, prior = maps_with(height * HEIGHT, speed=speed, false=false), prior_of(LOOSE)
    caught, fit = fit_trajectories(maps, prior), fit_out_of_false_peaks(maps, prior)
    assert missed(caught, 0, speed)[CAUGHT, 0] > 2.5                             # the scene is what it says
    assert missed(fit, 0, speed).max() < 0.8
    assert float(fit.energy) < float(caught.energy) - 1.0
    assert int(fit.iterations) > int(caught.iterations) and fit.reason == ["converged"]
    others = torch.arange(P) != CAUGHT
    assert (fit.deviation - caught.deviation)[0, others].abs().max() < 0.6


def test_a_narrow_false_peak_right_where_the_others_would_have_it_is_smoothed_away():
    """The particle itself goes another way than they do."""
    own = torch.tensor([0.6, 1.6], dtype=torch.float64)
    value = HEIGHT * peak(true_motion())
    expected = true_motion()[0, 0]
    value[CAUGHT, 0] = 2.0 * HEIGHT * peak(expected + own) + 2.0 * HEIGHT * peak(expected, 0.35) + 0.8 * HEIGHT * peak(torch.tensor(FALSE, dtype=torch.float64))
    maps, prior = as_maps(value), prior_of(LOOSE)
    away = lambda fit: float((fit.deviation[0, CAUGHT, 0] - expected - own).norm())
    assert away(fit_trajectories(maps, prior)) > 1.0
    assert away(fit_out_of_false_peaks(maps, prior)) < 0.5


def test_what_turns_out_worse_for_the_whole_movie_is_not_kept(monkeypatch):
    maps, prior = maps_with(0.0), prior_of(LOOSE)
    monkeypatch.setattr(escape, "_way_out", lambda maps, fit: 4.0 + torch.zeros_like(fit.deviation))
    plain, fit = fit_trajectories(maps, prior), fit_out_of_false_peaks(maps, prior)
    assert torch.equal(fit.deviation, plain.deviation) and int(fit.iterations) > int(plain.iterations)


def test_all_of_the_fit_belongs_to_the_motion_that_was_kept():
    maps, prior = maps_with(0.8 * HEIGHT), prior_of(LOOSE)
    fit = fit_out_of_false_peaks(maps, prior)
    again = fit_trajectories(maps, prior, start=fit.whitened)
    for name in ("deviation", "force", "energy"):
        torch.testing.assert_close(getattr(fit, name), getattr(again, name), atol=2e-2, rtol=0)


def test_a_false_peak_that_is_the_higher_one_is_believed(monkeypatch):
    """By more than the prior holds against it: what counts is the energy, not the prediction. Nothing is fitted twice."""
    maps, prior, fits = maps_with(4.0 * HEIGHT), prior_of(LOOSE), []
    plain = fit_trajectories(maps, prior)
    monkeypatch.setattr(escape, "fit_trajectories", lambda *args, **kwargs: fits.append(1) or fit_trajectories(*args, **kwargs))
    fit = fit_out_of_false_peaks(maps, prior)
    assert missed(plain)[CAUGHT, 0] > 2.5
    assert torch.equal(fit.deviation, plain.deviation) and fits == [1]


def test_without_false_peaks_the_fit_is_the_same_to_the_last_bit():
    maps, prior = maps_with(0.0), prior_of(LOOSE)
    one, other = fit_out_of_false_peaks(maps, prior), fit_trajectories(maps, prior)
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("deviation", "force", "energy", "iterations"))


def test_of_several_priors_each_keeps_its_own_better_fit():
    stiff = replace(LOOSE, velocity_sigma=1e-4, acceleration_sigma=1e-4, jitter_angstrom=0.01)
    maps, prior = maps_with(0.8 * HEIGHT), prior_of(LOOSE, stiff)
    plain, fit = fit_trajectories(maps, prior), fit_out_of_false_peaks(maps, prior)
    assert missed(fit, 0).max() < 0.8 and float(fit.energy[0]) < float(plain.energy[0]) - 1.0
    assert torch.equal(fit.deviation[1], plain.deviation[1]) and float(fit.energy[1]) == float(plain.energy[1])


@pytest.mark.parametrize("seed", range(8))
def test_the_energy_is_never_higher_however_rough_the_maps_are(seed):
    maps, prior = maps_with(0.8 * HEIGHT, noise=4.0, seed=seed), prior_of(LOOSE, replace(LOOSE, velocity_sigma=1.5))
    plain, fit = fit_trajectories(maps, prior), fit_out_of_false_peaks(maps, prior)
    assert bool((fit.energy <= plain.energy).all()) and bool(torch.isfinite(fit.deviation).all())


def test_more_particles_than_are_copied_at_once_escape_together(monkeypatch):
    maps, prior = maps_with(0.8 * HEIGHT, noise=4.0), prior_of(replace(LOOSE, velocity_sigma=1.5))
    expected = fit_out_of_false_peaks(maps, prior)
    assert float(expected.energy) < float(fit_trajectories(maps, prior).energy) - 1.0
    monkeypatch.setattr(escape, "AT_ONCE", 2)
    torch.testing.assert_close(fit_out_of_false_peaks(maps, prior).deviation, expected.deviation, atol=5e-3, rtol=0)


def test_a_particle_whose_prediction_is_too_uneven_stays_where_it_is(monkeypatch):
    """Its covariance has no factor in double precision: the movie is aligned all the same."""
    monkeypatch.setattr(escape, "FACTORABLE", -1.0)
    maps, prior = maps_with(0.8 * HEIGHT), prior_of(LOOSE)
    assert torch.equal(fit_out_of_false_peaks(maps, prior).deviation, fit_trajectories(maps, prior).deviation)


@pytest.mark.parametrize("particles, frames", [(1, F), (2, 1), (1, 1)])
def test_few_particles_and_frames(particles, frames):
    full = maps_with(0.8 * HEIGHT, noise=2.0)
    maps = CorrelationMaps(full.coefficients[:particles, :frames], STEP, WIDTH // 2, full.residual_yx_angstrom[:particles, :frames],
                           full.curvature[:particles, :frames])
    prior = build_prior([LOOSE], 500.0 * torch.rand(particles, 2, dtype=torch.float64), DOSE[:frames])
    fit = fit_out_of_false_peaks(maps, prior)
    assert fit.deviation.shape == (1, particles, frames, 2) and bool(torch.isfinite(fit.deviation).all())
