"""MAP trajectories on quadratic correlation maps, where the posterior is Gaussian and can be written down."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.engine.maths.minimise import CONVERGED, ITERATION_LIMIT
from refmotion_plugin.engine.motion import fit as fit_module
from refmotion_plugin.engine.motion.adapt import adapt_strength, own_scales, prior_evidence, scaled
from refmotion_plugin.engine.motion.correlate import CorrelationMaps
from refmotion_plugin.engine.motion.evidence import Measured, log_evidence, measure
from refmotion_plugin.engine.motion.fit import fit_trajectories
from refmotion_plugin.engine.motion.prior import build_prior

PARTICLES, FRAMES = 5, 7
STEP, WIDTH = 0.7, 41
DOSES = 1.5 * (np.arange(FRAMES) + 0.5)
HYPER = replace(DEFAULT_HYPERPARAMETERS, offset_angstrom=3.0)
CURVATURE = np.linspace(30.0, 4.0, FRAMES)


def positions(seed=0):
    return np.random.default_rng(seed).uniform(0, 3000, (PARTICLES, 2))


def quadratic_maps(peak_yx, curvature, residual_yx=None):
    """Maps -h/2 |x - peak|^2 as exact spline coefficients; ``peak_yx`` (P, F, 2) A deviation, ``curvature`` (P, F) 1/A^2.

    The coefficients of a parabola are its samples minus a sixth of its second difference, for each axis.
    """
    residual = np.zeros_like(peak_yx) if residual_yx is None else residual_yx
    axis = (np.arange(WIDTH) - WIDTH // 2) * STEP
    centre = peak_yx + residual
    square = (axis - centre[..., 0, None])[..., :, None] ** 2 + (axis - centre[..., 1, None])[..., None, :] ** 2
    samples = -0.5 * curvature[..., None, None] * (square - 2.0 * STEP ** 2 / 3.0)
    return CorrelationMaps(torch.from_numpy(samples), STEP, WIDTH // 2, torch.from_numpy(residual), torch.from_numpy(curvature))


def course(seed=3):
    """A rough rigid motion of an input (F, 2)."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(FRAMES, 2)).cumsum(0))


def prior_of(*hypers, seed=0, course=None):
    return build_prior(list(hypers), torch.from_numpy(positions(seed)), torch.from_numpy(DOSES), course)


def dense_factor(prior, b=0):
    """Matrix (P F, P F + F) from whitened coordinates to deviations of one axis."""
    n = PARTICLES * FRAMES
    modes, factor = prior.modes[b].numpy(), prior.factor[b].numpy()
    smooth = np.einsum("pm,mfg->pfmg", modes, factor).reshape(n, n)
    shift = np.kron(np.ones((PARTICLES, 1)), prior.shift.factor[b].numpy())
    return np.hstack([smooth, shift])


def dense_posterior(prior, peak, curvature, b=0):
    """Mean (P, F, 2) and standard deviation (P, F) of the Gaussian posterior."""
    root = dense_factor(prior, b)
    h = curvature.reshape(-1)
    covariance = root @ np.linalg.inv(np.eye(root.shape[1]) + root.T @ (h[:, None] * root)) @ root.T
    mean = covariance @ (h[:, None] * (peak - prior.shift.mean[b].numpy()).reshape(-1, 2))
    return mean.reshape(peak.shape) + prior.shift.mean[b].numpy(), np.sqrt(np.diag(covariance)).reshape(PARTICLES, FRAMES)


def peaks(seed=1, scale=1.5):
    return scale * np.random.default_rng(seed).normal(size=(PARTICLES, FRAMES, 2))


def curvatures(kind, seed=2):
    even = np.tile(CURVATURE, (PARTICLES, 1))
    return even if kind == "even" else even * np.random.default_rng(seed).uniform(0.3, 2.0, (PARTICLES, FRAMES))


@pytest.mark.parametrize("kind", ["even", "uneven"])
@pytest.mark.parametrize("hyper", [HYPER, replace(HYPER, kernel="exponential", correlated_acceleration=False, jitter_angstrom=0.0)])
def test_the_map_estimate_is_the_mean_of_the_gaussian_posterior(kind, hyper):
    prior, peak, curvature = prior_of(hyper), peaks(), curvatures(kind)
    fit = fit_trajectories(quadratic_maps(peak, curvature), prior, tolerance=1e-14)
    mean, _ = dense_posterior(prior, peak, curvature)
    np.testing.assert_allclose(fit.deviation[0].numpy(), mean, atol=1e-5)
    assert fit.reason == [CONVERGED] and int(fit.iterations[0]) <= (2 if kind == "even" else 60)
    assert np.abs(mean - peak).max() > 0.5                                    # the prior has done something


def test_the_standard_deviation_is_that_of_the_gaussian_posterior():
    prior, curvature = prior_of(HYPER), curvatures("even")
    fit = fit_trajectories(quadratic_maps(peaks(), curvature), prior)
    _, sd = dense_posterior(prior, peaks(), curvature)
    np.testing.assert_allclose(fit.sd[0].numpy(), sd, rtol=1e-6)
    assert sd.max() > 1.1 * sd.min()


def test_the_standard_deviation_of_motion_is_without_the_constant_offset():
    """That of what the motion departs from its mean over frames: of a place it is known far worse where the catalogue is not believed."""
    loose, curvature = replace(HYPER, offset_angstrom=15.0), curvatures("even") / 30
    prior = prior_of(loose)
    fit = fit_trajectories(quadratic_maps(peaks(), curvature), prior)
    covariance = fit.metric.covariance_blocks(prior)[0].numpy()
    free = np.eye(FRAMES) - 1.0 / FRAMES
    expected = np.sqrt(np.diagonal(free @ covariance @ free, axis1=1, axis2=2))
    np.testing.assert_allclose(fit.motion_sd[0].numpy(), expected, rtol=1e-6)
    assert float((fit.motion_sd ** 2).mean()) < 0.8 * float((fit.sd ** 2).mean())


@pytest.mark.parametrize("jitter, within", [(0.05, 0.001), (0.4, 0.025)])
def test_a_jitter_that_is_not_followed_is_left_out_and_stays_in_the_standard_deviation(jitter, within):
    """Trajectories as without jitter; and their error where there is jitter, from the matrix that makes them of the data."""
    none, hyper, rough, curvature = replace(HYPER, jitter_angstrom=0.0), replace(HYPER, jitter_angstrom=jitter, jitter_followed=False), course(), curvatures("even") / 30
    plain, left_out, followed = (fit_trajectories(quadratic_maps(peaks(), curvature), prior_of(h, course=rough))
                                 for h in (none, hyper, replace(hyper, jitter_followed=True)))
    assert torch.equal(left_out.deviation, plain.deviation) and not torch.equal(followed.deviation, plain.deviation)
    root, n = dense_factor(prior_of(none, course=rough)), PARTICLES * FRAMES
    smooth, noise = root @ root.T, np.diag(1.0 / curvature.reshape(-1))
    gain = smooth @ np.linalg.inv(smooth + noise)
    missed = gain - np.eye(n)
    error = missed @ (smooth + jitter ** 2 * np.eye(n)) @ missed.T + gain @ noise @ gain.T
    free = np.kron(np.eye(PARTICLES), np.eye(FRAMES) - 1.0 / FRAMES)
    for told, without, true in ((left_out.sd, plain.sd, error), (left_out.motion_sd, plain.motion_sd, free @ error @ free)):
        ratio = told[0].numpy() / np.sqrt(np.diag(true)).reshape(PARTICLES, FRAMES)
        assert np.abs(ratio - 1).max() < within and bool((told > without).all())


def test_the_energy_is_the_one_that_was_minimised_and_its_gradient_is_right(monkeypatch):
    """Catches the objective on its way to the minimiser and holds it against finite differences."""
    caught = {}

    def catch(evaluate, x0, *rest):
        caught["evaluate"], caught["n"] = evaluate, x0.shape
        return original(evaluate, x0, *rest)

    original = fit_module.minimise.minimise
    monkeypatch.setattr(fit_module.minimise, "minimise", catch)
    maps = quadratic_maps(peaks(), curvatures("uneven"), residual_yx=0.3 * peaks(5))
    fit = fit_trajectories(maps, prior_of(HYPER, replace(HYPER, velocity_sigma=0.1)))
    x = torch.randn(caught["n"], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, gradient = caught["evaluate"](x)
    for i in range(0, x.shape[1], 7):
        step = torch.zeros_like(x)
        step[:, i] = 1e-4
        numeric = (caught["evaluate"](x + step)[0] - caught["evaluate"](x - step)[0]) / 2e-4
        torch.testing.assert_close(gradient[:, i], numeric, rtol=1e-6, atol=1e-5)
    assert bool((fit.energy < value).all())


def start_of_a_fit(monkeypatch, *arguments, **options):
    """The whitened coordinates that a fit begins with."""
    begun = []
    original = fit_module.minimise.minimise
    with monkeypatch.context() as patch:
        patch.setattr(fit_module.minimise, "minimise", lambda evaluate, x0, *rest: begun.append(x0) or original(evaluate, x0, *rest))
        fit_trajectories(*arguments, **options)
    return begun[0]


def test_after_a_fit_under_another_prior_it_begins_where_a_quadratic_correlation_has_its_optimum(monkeypatch):
    """Where the correlation is one, that is the optimum, whatever the first prior was and however far from its own optimum the first fit stopped."""
    maps, prior = quadratic_maps(peaks(), curvatures("even")), prior_of(HYPER, course=course())
    first = fit_trajectories(maps, prior_of(replace(HYPER, velocity_sigma=0.05, global_angstrom=0.3)), tolerance=0.1)
    optimum = fit_trajectories(maps, prior, tolerance=1e-14)
    begun = start_of_a_fit(monkeypatch, maps, prior, after=first)
    torch.testing.assert_close(begun, optimum.whitened, atol=1e-5, rtol=0)
    assert float((first.deviation - optimum.deviation).abs().max()) > 0.1


def test_after_another_fit_it_ends_where_it_would_have_ended_and_sooner():
    maps, prior = quadratic_maps(peaks(), curvatures("uneven")), prior_of(HYPER)
    first = fit_trajectories(maps, prior_of(replace(HYPER, velocity_sigma=1.2 * HYPER.velocity_sigma)))
    alone, after = fit_trajectories(maps, prior), fit_trajectories(maps, prior, after=first)
    torch.testing.assert_close(after.deviation, alone.deviation, atol=2e-3, rtol=0)
    assert int(after.iterations[0]) < int(alone.iterations[0])


def test_an_infinitely_stiff_prior_keeps_the_input_motion():
    stiff = replace(HYPER, velocity_sigma=1e-8, acceleration_sigma=1e-8, jitter_angstrom=0.0, global_angstrom=0.0,
                    early_factor=0.0, offset_angstrom=1e-6)
    fit = fit_trajectories(quadratic_maps(peaks(), curvatures("uneven")), prior_of(stiff))
    assert float(fit.deviation.abs().max()) < 1e-6 and fit.reason == [CONVERGED]
    free_offset = fit_trajectories(quadratic_maps(peaks(), curvatures("even")), prior_of(replace(stiff, offset_angstrom=15.0)))
    constant = free_offset.deviation[0]
    assert float((constant - constant.mean(1, keepdim=True)).abs().max()) < 1e-3
    average = np.average(peaks(), axis=1, weights=CURVATURE)
    np.testing.assert_allclose(constant[:, 0].numpy(), average, atol=0.01)


def test_a_weak_prior_returns_the_peaks():
    weak = replace(HYPER, velocity_sigma=1e3, acceleration_sigma=1e3, jitter_angstrom=100.0, global_angstrom=0.0)
    residual = 0.35 * np.sign(peaks(6))
    fit = fit_trajectories(quadratic_maps(peaks(), curvatures("uneven"), residual), prior_of(weak), tolerance=1e-13)
    np.testing.assert_allclose(fit.deviation[0].numpy(), peaks(), atol=2e-3)


def test_a_signed_anisotropic_motion_is_recovered():
    """+y by 4 A, -x by 1 A, growing with the frames: signs and axes can be told apart."""
    ramp = np.linspace(0, 1, FRAMES)[None, :, None]
    truth = np.broadcast_to(ramp * np.array([4.0, -1.0]), (PARTICLES, FRAMES, 2)).copy()
    fit = fit_trajectories(quadratic_maps(truth, curvatures("even")), prior_of(HYPER))
    moved = (fit.deviation[0, :, -1] - fit.deviation[0, :, 0]).numpy()
    np.testing.assert_allclose(moved, np.broadcast_to([4.0, -1.0], moved.shape), atol=0.15)


def test_maps_that_are_shifted_by_the_residual_give_the_same_deviation():
    """Patches are cut at whole pixels: what remains only moves the place of zero deviation in the window."""
    residual = np.random.default_rng(3).uniform(-0.6, 0.6, (PARTICLES, FRAMES, 2))
    one = fit_trajectories(quadratic_maps(peaks(), curvatures("uneven")), prior_of(HYPER), tolerance=1e-13)
    other = fit_trajectories(quadratic_maps(peaks(), curvatures("uneven"), residual), prior_of(HYPER), tolerance=1e-13)
    torch.testing.assert_close(one.deviation, other.deviation, atol=1e-5, rtol=0)


def test_a_batch_of_hyperparameters_gives_what_single_ones_give():
    hypers = [HYPER, replace(HYPER, velocity_sigma=0.05), replace(HYPER, kernel="exponential", global_angstrom=0.0)]
    maps = quadratic_maps(peaks(), curvatures("uneven"))
    together = fit_trajectories(maps, prior_of(*hypers))
    assert together.deviation.shape == (3, PARTICLES, FRAMES, 2) and together.sd.shape == (3, PARTICLES, FRAMES)
    for i, hyper in enumerate(hypers):
        alone = fit_trajectories(maps, prior_of(hyper))
        torch.testing.assert_close(together.deviation[i], alone.deviation[0], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(together.sd[i], alone.sd[0])
        torch.testing.assert_close(together.energy[i], alone.energy[0])
        assert together.reason[i] == alone.reason[0]


def test_the_limit_of_iterations_is_said():
    fit = fit_trajectories(quadratic_maps(peaks(), curvatures("uneven")), prior_of(HYPER), max_iterations=1, tolerance=1e-14)
    assert fit.reason == [ITERATION_LIMIT] and fit.iterations.tolist() == [1]


@pytest.mark.parametrize("particles, frames", [(1, FRAMES), (3, 1), (3, 2), (1, 1)])
def test_few_particles_and_frames_are_well_posed(particles, frames):
    peak, curvature = peaks()[:particles, :frames], curvatures("even")[:particles, :frames]
    prior = build_prior([HYPER], torch.from_numpy(positions()[:particles]), torch.from_numpy(DOSES[:frames]))
    fit = fit_trajectories(quadratic_maps(peak, curvature), prior)
    assert fit.reason == [CONVERGED] and bool(torch.isfinite(fit.sd).all()) and float(fit.sd.min()) > 0
    overlap = float((fit.deviation[0] * torch.from_numpy(peak)).sum() / (peak ** 2).sum())
    assert 0.2 < overlap <= 1.0


def test_maps_without_any_signal_leave_the_prior():
    """Curvature zero: no deviation, and the standard deviation of the prior."""
    nothing = np.zeros((PARTICLES, FRAMES))
    fit = fit_trajectories(quadratic_maps(peaks(), nothing), prior_of(HYPER))
    prior_sd = np.sqrt(np.square(dense_factor(prior_of(HYPER))).sum(1)).reshape(PARTICLES, FRAMES)
    assert not bool(fit.deviation.any())
    np.testing.assert_allclose(fit.sd[0].numpy(), prior_sd, rtol=1e-6)


# --- the strength of each movie --------------------------------------------------------------------------------------

def dense_evidence(prior, peak, curvature, b=0):
    """log N(y; 0, C + 1/h) of both axes, without the constants that no prior changes."""
    root = dense_factor(prior, b)
    total = root @ root.T + np.diag(1.0 / curvature.reshape(-1))
    y = (peak - prior.shift.mean[b].numpy()).reshape(-1, 2)
    return float(prior.shift.log_probability[b]) - np.linalg.slogdet(total)[1] - 0.5 * (y * np.linalg.solve(total, y)).sum()


def test_the_evidence_is_that_of_the_gaussian_model():
    hypers = [HYPER, replace(HYPER, velocity_sigma=0.05), replace(HYPER, global_angstrom=1.0, jitter_angstrom=0.0, common_sigma=2.0)]
    prior, peak = prior_of(*hypers, course=course()), peaks()
    found = prior_evidence(prior, torch.from_numpy(peak), torch.from_numpy(CURVATURE)).numpy()
    dense = np.array([dense_evidence(prior, peak, curvatures("even"), b) for b in range(3)])
    np.testing.assert_allclose(np.diff(found), np.diff(dense), rtol=1e-6)


@pytest.mark.parametrize("hyper", [HYPER, replace(HYPER, kernel="exponential", jitter_angstrom=0.5), replace(HYPER, global_angstrom=0.0)])
@pytest.mark.parametrize("frames", [FRAMES, 2, 1])
def test_the_evidence_of_scales_is_that_of_the_scaled_priors(hyper, frames):
    pairs = [(1.0, 1.0), (0.03, 1.0, 3.0), (3.0, 0.1, 0.2), (9.0, 2.0)]
    measured, curvature = torch.from_numpy(peaks())[:, :frames], torch.from_numpy(CURVATURE)[:frames]
    place, dose = torch.from_numpy(positions()), torch.from_numpy(DOSES)[:frames]
    hypers = [scaled(hyper, *pair) for pair in pairs]
    found = log_evidence(hypers, Measured(measured, curvature, place, dose, course()[:frames])).numpy()
    expected = prior_evidence(build_prior(hypers, place, dose, course()[:frames]), measured, curvature).numpy()
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("change", [dict(velocity_sigma=0.05), dict(acceleration_sigma=0.2), dict(correlation_distance_angstrom=900.0),
                                    dict(early_factor=1.0), dict(early_dose_e_per_A2=9.0), dict(jitter_angstrom=0.6), dict(global_angstrom=1.5),
                                    dict(offset_angstrom=1.0), dict(kernel="exponential"), dict(common_sigma=3.0)])
def test_sets_that_differ_in_one_thing_have_each_their_own_evidence(change):
    """Whatever is worked out once for all sets of a batch is so only where none differs in it."""
    hypers, measured = [HYPER, replace(HYPER, **change)], measured_at(peaks())
    together, single = log_evidence(hypers, measured), torch.cat([log_evidence([hyper], measured) for hyper in hypers])
    torch.testing.assert_close(together, single, rtol=1e-12, atol=1e-12)
    assert single[0] != single[1]


def test_other_measurements_of_a_movie_know_nothing_of_the_first():
    one, other = measured_at(peaks()), measured_at(peaks(5))
    log_evidence([HYPER], one)
    torch.testing.assert_close(log_evidence([HYPER], replace(one, deviation=other.deviation)), log_evidence([HYPER], other))


def test_an_evidence_that_is_no_number_is_said_so():
    broken = measured_at(peaks() * np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="motion.* is not a number"):
        own_scales(replace(HYPER, movie_spread=1.0), broken)


def test_independent_accelerations_are_adapted_too():
    hyper = replace(HYPER, correlated_acceleration=False)
    maps = quadratic_maps(peaks(), curvatures("even"))
    fit = fit_trajectories(maps, prior_of(hyper))
    assert adapt_strength(hyper, fit, maps, torch.from_numpy(positions()), torch.from_numpy(DOSES)).velocity_sigma != hyper.velocity_sigma


def measured_at(peak):
    return Measured(torch.from_numpy(peak), torch.from_numpy(CURVATURE), torch.from_numpy(positions()), torch.from_numpy(DOSES), course())


def test_the_evidence_of_sets_with_noise_factors_is_that_of_the_gaussian_model():
    hypers, peak = [HYPER, replace(HYPER, velocity_sigma=0.05, correlation_distance_angstrom=900.0), replace(HYPER, global_angstrom=1.0)], peaks()
    prior, factor = prior_of(*hypers, course=course()), np.array([1.0, 1.3, 0.8])
    found = log_evidence(hypers, measured_at(peak), torch.from_numpy(factor)).numpy()
    dense = np.array([dense_evidence(prior, peak, curvatures("even") / factor[b], b) for b in range(3)])
    np.testing.assert_allclose(np.diff(found), np.diff(dense), rtol=1e-6)


def test_the_evidence_from_maps_agrees_with_that_of_the_measurements_where_maps_are_quadratic():
    peak, found = peaks(), []
    maps = quadratic_maps(peak, curvatures("even"))
    for hyper in (HYPER, replace(HYPER, velocity_sigma=0.05)):
        measured, evidence = measure(maps, hyper, torch.from_numpy(positions()), torch.from_numpy(DOSES), course())
        np.testing.assert_allclose(measured.deviation.numpy(), peak, atol=1e-3)
        found.append((evidence, float(log_evidence([hyper], measured)[0])))
    assert np.diff(found, axis=0)[0, 0] == pytest.approx(np.diff(found, axis=0)[0, 1], rel=1e-3)


@pytest.mark.parametrize("scale", [0.1, 0.4, 1.0])
def test_the_strength_of_a_movie_follows_its_motion(scale):
    """Motion drawn from the prior with its strengths times a factor: the factor is found within a third or so. Jitter stays."""
    hyper = replace(HYPER, offset_angstrom=0.5, jitter_angstrom=0.3, movie_spread=1.5)
    strong = 200.0 * np.ones((PARTICLES, FRAMES))
    true = replace(hyper, **{n: scale * getattr(hyper, n) for n in ("velocity_sigma", "acceleration_sigma")})
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        root = dense_factor(prior_of(true))
        peak = (root @ rng.normal(size=(root.shape[1], 2))).reshape(PARTICLES, FRAMES, 2) + rng.normal(size=(PARTICLES, FRAMES, 2)) / 200 ** 0.5
        maps, prior = quadratic_maps(peak, strong), prior_of(hyper)
        adapted = adapt_strength(hyper, fit_trajectories(maps, prior), maps, torch.from_numpy(positions()), torch.from_numpy(DOSES))
        found.append((adapted.velocity_sigma / hyper.velocity_sigma, adapted.acceleration_sigma / hyper.acceleration_sigma))
        assert adapted.jitter_angstrom == hyper.jitter_angstrom
    velocity, acceleration = np.exp(np.mean(np.log(found), axis=0))
    assert velocity == pytest.approx(scale, rel=0.35) and acceleration == pytest.approx(scale, rel=0.6)


def test_without_spread_between_movies_the_strengths_stay():
    hyper = replace(HYPER, movie_spread=0.0)
    maps = quadratic_maps(peaks(), curvatures("even"))
    fit = fit_trajectories(maps, prior_of(hyper))
    assert adapt_strength(hyper, fit, maps, torch.from_numpy(positions()), torch.from_numpy(DOSES)) is hyper


def test_the_force_at_the_optimum_balances_the_prior():
    """force / h + deviation is the peak of the quadratic map."""
    fit = fit_trajectories(quadratic_maps(peaks(), curvatures("uneven")), prior_of(HYPER), tolerance=1e-13)
    measured = fit.deviation[0].numpy() + fit.force[0].numpy() / curvatures("uneven")[..., None]
    np.testing.assert_allclose(measured, peaks(), atol=1e-6)
