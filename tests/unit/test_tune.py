"""The search for hyperparameters on a tiny simulated project: its geometry, its judge, its choices, from end to end."""
import errno
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, SearchSpec
from refmotion_plugin.engine.motion.adapt import Scales, scaled
from refmotion_plugin.engine.motion.fit import fit_trajectories
from refmotion_plugin.engine.motion.prior import build_prior
from refmotion_plugin.engine.motion.timeline import Columns, Timeline
from refmotion_plugin.engine.search import compare
from refmotion_plugin.engine.search.climb import log_prior
from refmotion_plugin.engine.stages import probable, refine, spill, tune, validate
from refmotion_plugin.engine.stages.budget import Budget
from refmotion_plugin.engine.stages.prepared import Amplitude

FIXED = replace(DEFAULT_HYPERPARAMETERS, movie_spread=0.0)


def with_search(prepared, seed=0, **values):
    spec = prepared.spec.model_copy(update={"search": SearchSpec(**dict(dict(thoroughness="fast"), **values)), "seed": seed})
    return replace(prepared, spec=spec)


def with_half(prepared, half, spectrum):
    changed = prepared.references[0].spectrum.clone()
    changed[half - 1] = spectrum
    return replace(prepared, references=(replace(prepared.references[0], spectrum=changed),))


@pytest.fixture(scope="module")
def movie(tiny, calibrated):
    """What the search keeps of the first movie."""
    return validate.prepare_tuning(tiny.movies[0], tiny.of(tiny.movies[0]), calibrated)


@pytest.fixture(scope="module")
def tuning_set(tiny, calibrated, movie):
    """Both movies, in memory."""
    found = validate.TuningSet(2 ** 32)
    found.add(movie)
    found.add(validate.prepare_tuning(tiny.movies[1], tiny.of(tiny.movies[1]), calibrated))
    return found


@pytest.fixture(scope="module")
def tuned(tiny, calibrated):
    """A fast search."""
    return tune.tune(tiny.movies, tiny.of, with_search(calibrated))


# ---- geometry of the rays -----------------------------------------------------------------------------------------------------

def test_the_default_lies_at_strength_one_between_the_axes():
    found = tune.strength(FIXED, math.pi / 4, 1.0, FIXED.correlation_distance_angstrom)
    assert found.velocity_sigma == pytest.approx(FIXED.velocity_sigma) and found.acceleration_sigma == pytest.approx(FIXED.acceleration_sigma)
    assert replace(found, velocity_sigma=FIXED.velocity_sigma, acceleration_sigma=FIXED.acceleration_sigma) == FIXED


def test_strength_is_the_inverse_of_sigma_and_directions_share_it_out():
    near_velocity, near_acceleration = tune.strength(FIXED, 0.2, 3.0, 900.0), tune.strength(FIXED, math.pi / 2 - 0.2, 3.0, 900.0)
    assert near_velocity.velocity_sigma < near_acceleration.velocity_sigma
    assert near_velocity.acceleration_sigma > near_acceleration.acceleration_sigma
    weak, strong = tune.strength(FIXED, 0.7, 2.0, 900.0), tune.strength(FIXED, 0.7, 4.0, 900.0)
    assert weak.velocity_sigma / strong.velocity_sigma == pytest.approx(2.0) and weak.correlation_distance_angstrom == 900.0
    in_units = [FIXED.velocity_sigma / strong.velocity_sigma, FIXED.acceleration_sigma / strong.acceleration_sigma]
    assert math.hypot(*in_units) == pytest.approx(4.0 * math.sqrt(2)) and math.atan2(in_units[1], in_units[0]) == pytest.approx(0.7)


def test_jitter_and_shift_fall_with_strength_but_do_not_grow_with_weakness():
    assert tune.strength(FIXED, 0.7, 10.0, 900.0).jitter_angstrom == pytest.approx(FIXED.jitter_angstrom / 10)
    assert tune.strength(FIXED, 0.7, 10.0, 900.0).global_angstrom == pytest.approx(FIXED.global_angstrom / 10)
    assert tune.strength(FIXED, 0.7, 0.1, 900.0).jitter_angstrom == FIXED.jitter_angstrom


def test_infinite_strength_is_rigid_motion(movie):
    endless = validate.try_hyperparameters(movie, [tune.strength(FIXED, 0.7, 1e7, 900.0), validate.rigid(FIXED), FIXED])
    np.testing.assert_allclose(endless.score[:, 0], endless.score[:, 1], atol=1e-3)
    assert endless.activity[0] < 1e-3 and endless.activity[1] < 1e-3 and endless.activity[2] > 0.5


def test_rigid_motion_keeps_the_constant_offset_which_is_no_motion(movie):
    """Otherwise origins that are a little wrong would look like a gain from local motion."""
    still = replace(validate.rigid(FIXED), offset_angstrom=1e-6)
    nowhere = -validate.judged(movie, torch.zeros((1,) + tuple(movie.low.residual_yx_angstrom.shape), dtype=torch.float64)).sum()
    scores = validate.try_hyperparameters(movie, [still, validate.rigid(FIXED)]).score.sum(0)
    assert scores[0] == pytest.approx(float(nowhere), rel=1e-6) and abs(scores[1] - scores[0]) > 1e-3


# ---- the judge ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fraction", [0.1, 0.35, 0.8])
def test_the_fraction_is_one_of_fourier_pixels(calibrated, fraction):
    k_cut, k_max = validate.split_frequency(with_search(calibrated, fourier_fraction=fraction), 2.0)
    assert k_max == calibrated.band_per_angstrom(2.0) and k_cut == pytest.approx(k_max * math.sqrt(fraction))
    k = np.hypot(*np.meshgrid(np.linspace(-k_max, k_max, 801), np.linspace(-k_max, k_max, 801)))
    assert (k <= k_cut).sum() / (k <= k_max).sum() == pytest.approx(fraction, abs=0.01)


def bands(tiny, calibrated, monkeypatch):
    """The two models of which maps are made: the one that aligns and the one that judges."""
    models, make = [], validate.correlation_maps
    monkeypatch.setattr(validate, "correlation_maps", lambda spectra, model, window, residual:
                        models.append(model) or make(spectra, model, window, residual))
    particles = tiny.of(tiny.movies[0])
    validate.prepare_tuning(tiny.movies[0], replace(particles, half=np.ones(len(particles), np.int8)), calibrated)
    return models


def test_bands_share_no_frequency_and_fill_the_whole_band(tiny, calibrated, monkeypatch):
    low, high = bands(tiny, calibrated, monkeypatch)
    used = np.flatnonzero((low.amplitude > 0) | (high.amplitude > 0))
    assert not (low.amplitude * high.amplitude).any() and low.amplitude.any() and high.amplitude.any()
    assert np.flatnonzero(low.amplitude > 0).max() < np.flatnonzero(high.amplitude > 0).min()
    assert (np.diff(used) == 1).all() and used[0] == 1


def silenced(tiny, calibrated, half):
    """Maps of a movie whose particles are all of half 1, with one half-map empty once the amplitude is calibrated."""
    particles = tiny.of(tiny.movies[0])
    job = with_half(calibrated, half, torch.zeros_like(calibrated.references[0].spectrum[0]))
    return validate.prepare_tuning(tiny.movies[0], replace(particles, half=np.ones(len(particles), np.int8)), job)


def test_the_own_half_aligns_and_the_opposite_half_judges(tiny, calibrated):
    without_opposite, without_own = silenced(tiny, calibrated, 2), silenced(tiny, calibrated, 1)
    assert without_opposite.low.coefficients.abs().max() > 0 and not without_opposite.high.coefficients.any()
    assert not without_own.low.coefficients.any() and without_own.high.coefficients.abs().max() > 0


def along_truth(tiny, movie, number=0):
    residual_start = tiny.movies[number].global_shift_xy_px
    start = -2.0 * (residual_start - residual_start[0])[:, ::-1]
    return torch.from_numpy(tiny.truth(tiny.movies[number]) - start)[None].to(torch.float64)


def test_true_trajectories_are_judged_better_than_rigid_ones_and_than_wrong_ones(tiny, movie):
    deviation = along_truth(tiny, movie)
    true = float(validate.judged(movie, deviation).sum())
    rigid = -float(validate.try_hyperparameters(movie, [validate.rigid(FIXED)]).score.sum())
    turned = float(validate.judged(movie, -deviation).sum())
    crossed = float(validate.judged(movie, deviation.flip(-1)).sum())
    assert true > rigid + 5 and true > turned + 5 and true > crossed + 5


def test_the_search_knows_the_rigid_motion_of_the_input(movie, tiny):
    """Minus the shifts that the metadata say, from the first frame on."""
    shift = tiny.movies[0].global_shift_xy_px[:, ::-1] * tiny.movies[0].original_pixel_angstrom
    np.testing.assert_allclose(movie.course_yx_angstrom.numpy(), shift[0] - shift, atol=1e-6)


def test_the_score_is_minus_the_judge_along_the_fitted_trajectories(movie):
    fit = fit_trajectories(movie.low, build_prior([FIXED], *movie.where))
    found = validate.try_hyperparameters(movie, [FIXED])
    np.testing.assert_allclose(found.score[:, 0], -validate.judged(movie, fit.deviation)[0])
    length = np.linalg.norm(np.diff(fit.deviation[0].numpy(), axis=1), axis=-1).sum(-1)
    assert found.activity[0] == pytest.approx(np.percentile(length, 75)) and found.reason == ("converged",)


def test_a_jitter_that_is_not_followed_is_judged_as_none(movie):
    found = validate.try_hyperparameters(movie, [FIXED, replace(FIXED, jitter_followed=False), replace(FIXED, jitter_angstrom=0.0)])
    np.testing.assert_array_equal(found.score[:, 1], found.score[:, 2])
    assert np.abs(found.score[:, 1] - found.score[:, 0]).max() > 1e-3


def test_a_batch_is_as_its_sets_one_by_one(movie):
    sets = [FIXED, DEFAULT_HYPERPARAMETERS, tune.strength(FIXED, 0.3, 5.0, 3000.0), replace(FIXED, kernel="exponential"), validate.rigid(FIXED)]
    together, alone = validate.try_hyperparameters(movie, sets), [validate.try_hyperparameters(movie, [h]) for h in sets]
    np.testing.assert_allclose(together.score, np.concatenate([a.score for a in alone], axis=1), atol=0.02)
    np.testing.assert_allclose(together.activity, [a.activity[0] for a in alone], atol=0.02)


def test_a_set_with_a_spread_is_tried_with_the_movies_own_strength(movie):
    scales = validate.movie_scales(movie, DEFAULT_HYPERPARAMETERS)
    assert scales != (1.0, 1.0)
    own = validate.try_hyperparameters(movie, [DEFAULT_HYPERPARAMETERS]).score
    np.testing.assert_allclose(validate.try_hyperparameters(movie, [scaled(FIXED, *scales)]).score, own, atol=1e-6)
    assert np.abs(validate.try_hyperparameters(movie, [FIXED]).score - own).max() > 1e-3


# ---- the cache ----------------------------------------------------------------------------------------------------------------

def test_movies_on_disk_give_the_same_numbers_as_in_memory(tuning_set, tmp_path):
    for bytes_in_memory, on_disk in ((0, 2), (tuning_set.used - 1, 1)):
        spilled = validate.TuningSet(bytes_in_memory, folder=tmp_path)
        for movie in tuning_set:
            spilled.add(movie)
        assert spilled.spill.nbytes and sum(isinstance(item, tuple) for item in spilled.items) == on_disk
        assert not list(tmp_path.iterdir())                     # the file has no name: nothing is left behind by a kill
        sets = [DEFAULT_HYPERPARAMETERS, FIXED]
        for ours, theirs in zip(spilled.evaluate(sets), tuning_set.evaluate(sets)):
            np.testing.assert_array_equal(ours, theirs)
        assert spilled.n_particles == 24 and len(spilled) == 2 and spilled.movie_of.tolist() == [0] * 12 + [1] * 12
        spilled.close()


def test_a_spilled_file_that_became_shorter_is_a_sentence(tmp_path):
    kept = spill.Spill(tmp_path)
    places = [kept.put(torch.full((2, 3), float(value))) for value in (1, 2)]
    kept._file.truncate(kept.nbytes - 1)
    assert (kept.get(places[0]) == 1).all()
    with pytest.raises(InputError, match="is not there any more"):
        kept.get(places[1])


@pytest.mark.parametrize("fault", ["full", "gone"])
def test_a_disk_that_has_no_room_for_them_is_a_sentence(tuning_set, tmp_path, monkeypatch, fault):
    def full(descriptor, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    spilled = validate.TuningSet(0, folder=tmp_path / "gone" if fault == "gone" else tmp_path)
    monkeypatch.setattr(spill.os, "pwrite", full)
    with pytest.raises(InputError, match="cannot wait in the folder for temporary files .*(No space left|No such file).* set TMPDIR"):
        spilled.add(next(iter(tuning_set)))
    spilled.close()


def test_an_empty_set_has_no_scores():
    with pytest.raises(InputError, match="no usable movie"):
        validate.TuningSet(1).evaluate([FIXED])


def most_together(monkeypatch):
    """How many sets were solved as one batch, filled while sets are tried."""
    counts, fit = [], validate.fit_trajectories
    monkeypatch.setattr(validate, "fit_trajectories", lambda maps, prior: counts.append(prior.shape[0]) or fit(maps, prior))
    return counts


@pytest.mark.parametrize("room, together", [(0.0, [1, 1, 1, 1, 1]), (2.5, [2, 2, 1]), (math.inf, [5])])
def test_sets_have_the_same_scores_however_many_are_solved_together(movie, monkeypatch, room, together):
    sets = [tune.strength(FIXED, theta, 2.0, z) for theta in (0.3, 1.2) for z in (700.0, 1500.0)] + [DEFAULT_HYPERPARAMETERS]
    whole, counts = validate.try_hyperparameters(movie, sets), most_together(monkeypatch)
    found = validate.try_hyperparameters(movie, sets, room * movie.trial_bytes)
    assert counts == together and found.reason == whole.reason
    np.testing.assert_allclose(found.score, whole.score, rtol=0, atol=1e-12)         # sums of other batches may be rounded otherwise
    np.testing.assert_allclose(found.activity, whole.activity, rtol=0, atol=1e-12)


def test_maps_and_trials_share_the_memory_that_a_job_may_use(movie, tuning_set, monkeypatch):
    size = tuning_set.used // 2                                                        # of each movie's maps
    little = validate.TuningSet(10 ** 12, room_bytes=2.5 * size)
    for one in (movie, movie):
        little.add(one)
    assert little.used == size and isinstance(little.items[1], tuple)                  # two would be more than half
    little.close()
    roomy, counts = validate.TuningSet(10 ** 12, room_bytes=2 * size + 6 * movie.trial_bytes), most_together(monkeypatch)
    roomy.add(movie)
    roomy.evaluate([FIXED] * 4)
    assert roomy.used == size and counts == [3, 1]


@pytest.mark.parametrize("device, left", [(None, (800, None)), (2000, (1000, 1800))])
def test_maps_that_are_held_are_not_given_to_the_next_movie(calibrated, device, left):
    job = tune._beside(replace(calibrated, budget=Budget(host=1500, device=device, program=500)), 200)
    assert (job.budget.host_room, job.budget.device) == left and job.spec is calibrated.spec


def test_a_search_keeps_within_the_memory_that_was_asked_for(tiny, calibrated, monkeypatch):
    rooms, sets, make = [], [], tune.prepare_tuning
    monkeypatch.setattr(tune, "prepare_tuning", lambda movie, particles, job: rooms.append(job.budget.host_room) or make(movie, particles, job))
    monkeypatch.setattr(tune, "Ledger", lambda tuning_set: sets.append(tuning_set) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune.tune(tiny.movies, tiny.of, with_search(replace(calibrated, budget=Budget(host=2 ** 30))))
    assert (sets[0].room_bytes, sets[0].cache_bytes) == (2 ** 30, 2 ** 29) and rooms == [2 ** 30, 2 ** 30 - sets[0].used // 2]


# ---- the subset -----------------------------------------------------------------------------------------------------------------

def drawn(seed, count=20):
    movies = [SimpleNamespace(micrograph="m%d" % i) for i in range(count)]
    return [m.micrograph for m in tune.choose_subset(movies, lambda m: "" if m.micrograph == "m3" else "p", seed)]


def test_the_subset_is_drawn_by_the_seed_from_the_movies_with_particles():
    assert drawn(1) == drawn(1) != drawn(2) and sorted(drawn(1)) == sorted(drawn(2)) and "m3" not in drawn(1) and len(drawn(1)) == 19
    with pytest.raises(InputError, match="no movie has particles"):
        tune.choose_subset([SimpleNamespace(micrograph="m")], lambda m: [], 0)


def filled(tiny, job, monkeypatch, broken=()):
    def prepare(movie, particles, prepared):
        if movie.micrograph in broken:
            raise MovieError("the file of %s is cut off" % movie.micrograph)
        return SimpleNamespace(low=SimpleNamespace(coefficients=torch.zeros(1)), high=SimpleNamespace(coefficients=torch.zeros(1)),
                               n_particles=len(particles))
    monkeypatch.setattr(validate, "TuningMovie", SimpleNamespace)
    monkeypatch.setattr(tune, "prepare_tuning", prepare)
    return tune._fill(validate.TuningSet(10 ** 9), tiny.movies, tiny.of, job, lambda *step: None)


def test_movies_are_taken_until_there_are_enough_particles(tiny, calibrated, monkeypatch):
    assert [len(filled(tiny, with_search(calibrated, target_particles=n), monkeypatch)) for n in (1, 12, 13, 1000)] == [1, 1, 2, 2]


def test_an_unusable_movie_is_replaced_and_if_none_is_left_the_reason_is_said(tiny, calibrated, monkeypatch):
    job, names = with_search(calibrated, target_particles=12), [m.micrograph for m in tiny.movies]
    first = filled(tiny, job, monkeypatch)
    assert filled(tiny, job, monkeypatch, broken=first) == [n for n in names if n not in first]
    with pytest.raises(InputError, match="no movie could be used.*is cut off"):
        filled(tiny, job, monkeypatch, broken=names)


# ---- the most probable parameters -------------------------------------------------------------------------------------------------

DOSES = torch.arange(12, dtype=torch.float64) * 2.0 + 1.0


def drawn_course(hyper, rng):
    """A smooth course with the errors of a motion correction program, (F, 2), and these errors."""
    allowed = hyper.common_sigma * Timeline(DOSES).strengths(Columns.of([hyper], "cpu"))[0, len(DOSES) - 1:].numpy()
    acceleration = allowed[:, None] * rng.normal(size=(len(DOSES) - 2, 2))
    true = np.concatenate([np.zeros((2, 2)), acceleration.cumsum(0).cumsum(0)]) + np.arange(len(DOSES))[:, None] * rng.normal(size=2)
    error = hyper.global_angstrom * rng.normal(size=true.shape)
    return torch.from_numpy(true + error), torch.from_numpy(error)


def drawn_movie(hyper, seed, particles=40, sd=0.4):
    """A stand-in for a movie of the tuning set: measurements of motion that was drawn from a prior, with white noise."""
    rng = np.random.default_rng(seed)
    position = torch.from_numpy(rng.uniform(0, 4000, size=(particles, 2)))
    prior = probable.Measured(None, None, position, DOSES).prior([hyper])
    z = torch.from_numpy(rng.normal(size=(1, particles, len(DOSES), 2)))
    course, error = drawn_course(hyper, rng)
    motion = prior.deviation(z, torch.zeros(1, len(DOSES), 2, dtype=torch.float64))[0] - error + sd * torch.from_numpy(rng.normal(size=(particles, len(DOSES), 2)))
    return SimpleNamespace(low=motion, curvature=torch.full((len(DOSES),), sd ** -2, dtype=torch.float64), where=(position, DOSES, course))


def searched(monkeypatch, movies, start=FIXED, rounds=2):
    """most_probable on stand-ins: what is measured is known beforehand, whatever the fit."""
    curvature = movies[0].curvature
    monkeypatch.setattr(probable, "measure", lambda maps, hyper, *where: (probable.Measured(maps, curvature, *where), 0.0))
    return probable.most_probable(movies, start, rounds)


TRUE = replace(FIXED, velocity_sigma=0.2, acceleration_sigma=0.02, correlation_distance_angstrom=2500.0, jitter_angstrom=0.3, global_angstrom=0.2,
               common_sigma=0.02)


def test_the_parameters_that_motion_was_drawn_with_are_found_within_their_errors(monkeypatch):
    found = searched(monkeypatch, [drawn_movie(TRUE, seed) for seed in range(6)])
    for name in ("velocity_sigma", "correlation_distance_angstrom", "jitter_angstrom", "global_angstrom", "common_sigma"):
        off = math.log(getattr(found.hyperparameters, name) / getattr(TRUE, name))
        assert abs(off) < 3 * found.errors[name] and found.errors[name] < 1.0, name
    assert found.noise_factor == pytest.approx(1.0, abs=0.1) and found.hyperparameters.movie_spread == 0.0
    assert found.errors["global_angstrom"] < 0.3 and set(found.errors) == {p.name for p in probable.PARAMETERS} | {"noise_factor"}


def test_movies_that_differ_are_given_a_spread(monkeypatch):
    movies = [drawn_movie(scaled(TRUE, factor, 1.0), seed) for seed, factor in enumerate((0.2, 1.0, 5.0, 0.3, 4.0))]
    assert searched(monkeypatch, movies, rounds=1).hyperparameters.movie_spread >= 0.5


def test_noise_that_is_more_than_thought_is_not_taken_for_jitter(monkeypatch):
    """Later frames tell less, as damage has it, and all noise is 1.2 times what the curvature says."""
    loss, movies = torch.exp(-DOSES / 10.0), []
    for seed in range(6):
        movie = drawn_movie(replace(TRUE, jitter_angstrom=0.01), seed, sd=1e-3)
        noise = torch.from_numpy(np.random.default_rng(99 + seed).normal(size=movie.low.shape))
        movie.low, movie.curvature = movie.low + 0.4 * 1.2 ** 0.5 * loss.rsqrt()[:, None] * noise, loss * 0.4 ** -2
        movies.append(movie)
    found = searched(monkeypatch, movies, rounds=1)
    monkeypatch.setattr(probable, "NOISE", replace(probable.NOISE, width=1e-3))
    taken = searched(monkeypatch, movies, rounds=1)
    assert found.noise_factor > 1.1 and found.hyperparameters.jitter_angstrom < 0.5 * taken.hyperparameters.jitter_angstrom


@pytest.mark.parametrize("start", [0.02, 0.15, 1.0])
def test_where_a_climb_starts_does_not_decide_the_jitter(monkeypatch, start):
    """Noise far above the jitter: the evidence is flat, and what is found is the mean over the jitter's prior and that evidence."""
    movies = [drawn_movie(replace(TRUE, jitter_angstrom=0.15), seed, sd=1.2) for seed in range(4)]
    found = searched(monkeypatch, movies, replace(FIXED, jitter_angstrom=start))
    place = dict({p.name: getattr(found.hyperparameters, p.name) for p in probable.PARAMETERS}, noise_factor=1.0)
    data = probable._Linear(found.hyperparameters, [probable.Measured(m.low, m.curvature, *m.where) for m in movies], [Scales()] * len(movies))
    jitters, noises = np.geomspace(0.04, 0.55, 25), np.linspace(-0.25, 0.25, 41)
    points = np.array([[math.log(dict(place, jitter_angstrom=j, noise_factor=math.exp(n))[p.name]) for p in data.parameters] for j in jitters for n in noises])
    score = data.values_of(points).sum(axis=0) + log_prior(data.parameters, points)
    weight = np.exp(score - score.max()).reshape(25, 41)
    weight /= weight.sum()
    assert found.hyperparameters.jitter_angstrom == pytest.approx(math.sqrt(weight.sum(1) @ jitters ** 2), rel=0.03)
    assert math.log(found.noise_factor) == pytest.approx(weight.sum(0) @ noises, abs=0.004)


def test_the_noise_factor_is_integrated_out_beside_each_jitter():
    """A ridge whose place and width change with the jitter, against sums over a fine grid."""
    parameters = tuple(p for p in probable.PARAMETERS if p.name == "jitter_angstrom") + (probable.NOISE,)
    ridge = lambda points: 0.5 * np.exp(points[:, 0]) - 0.5 * ((points[:, 1] + 0.1 * np.exp(points[:, 0])) / (0.01 + 0.1 * np.exp(points[:, 0]))) ** 2
    data, jitters = SimpleNamespace(parameters=parameters, values_of=lambda points: ridge(points)[None]), np.array([0.05, 0.15, 0.4])
    weight, peak = probable._over_noise(data, dict(jitter_angstrom=0.1, noise_factor=1.0), jitters, np.array([0.01, 0.0, -0.02]))
    grid = np.linspace(-0.6, 0.6, 4001)
    points = np.stack(np.broadcast_arrays(np.log(jitters)[:, None], grid), -1).reshape(-1, 2)
    density = np.exp(ridge(points) + log_prior(parameters, points)).reshape(3, -1)
    np.testing.assert_allclose(weight, density.sum(1) / density.sum(), rtol=1e-4)
    np.testing.assert_allclose(peak, grid[density.argmax(1)], atol=3e-4)


def test_of_ice_that_keeps_still_only_the_rest_is_looked_for(monkeypatch):
    still = replace(FIXED, velocity_sigma=probable.STILL_SIGMA, acceleration_sigma=probable.STILL_SIGMA)
    movies = [drawn_movie(replace(still, common_sigma=0.02, global_angstrom=0.2), seed) for seed in range(4)]
    found, moving = (searched(monkeypatch, movies, start) for start in (still, FIXED))
    assert set(moving.errors) - set(found.errors) == {"velocity_sigma", "acceleration_sigma", "correlation_distance_angstrom"}
    assert found.hyperparameters.velocity_sigma == found.hyperparameters.acceleration_sigma == probable.STILL_SIGMA
    assert found.hyperparameters.global_angstrom == pytest.approx(0.2, rel=0.2)
    monkeypatch.setattr(probable, "measure", lambda maps, hyper, *where: (None, float(probable.log_evidence([hyper], probable.Measured(maps, movies[0].curvature, *where))[0])))
    assert probable.own_probability(movies, found.hyperparameters) > probable.own_probability(movies, moving.hyperparameters) + 1.0


def test_what_is_switched_off_stays_off(monkeypatch):
    off = replace(FIXED, global_angstrom=0.0, early_factor=0.0)
    found = searched(monkeypatch, [drawn_movie(TRUE, 0)], off, 1)
    assert found.hyperparameters.global_angstrom == 0.0 and found.hyperparameters.early_factor == 0.0 and "global_angstrom" not in found.errors


# ---- families and the ledger ------------------------------------------------------------------------------------------------------

class Bowl:
    """Stands in for a tuning set: a bowl in the logarithm of sigma_V with its bottom at ``bottom``, the same for all particles."""

    def __init__(self, bottom, particles=300):
        self.bottom, self.movie_of, self.asked = bottom, np.repeat([0, 1, 2], particles // 3), 0

    def evaluate(self, hypers):
        self.asked += len(hypers)
        score = [math.log(h.velocity_sigma / self.bottom) ** 2 if h.velocity_sigma > validate.RIGID_SIGMA else 50.0 for h in hypers]
        noise = np.random.default_rng(0).normal(size=(len(self.movie_of), 1))
        return np.array(score) + noise, np.ones(len(hypers))


def families(monkeypatch, thoroughness, ray_best=replace(FIXED, velocity_sigma=3.0)):
    """Candidates with stand-ins for climbs: a set is the more probable the nearer its sigma_V is to 0.8; climbs stay where they start."""
    probability = lambda tuning_set, hyper: -math.log(hyper.velocity_sigma / 0.8) ** 2
    climbs = []
    monkeypatch.setattr(refine, "own_probability", probability)
    monkeypatch.setattr(refine, "most_probable", lambda tuning_set, start, rounds: climbs.append((start, rounds)) or probable.Probable(
        start, probability(None, start), 1.0, {"velocity_sigma": 0.1}))
    ledger = refine.Ledger(Bowl(0.8))
    return refine.refine_families(ledger, ray_best, thoroughness, lambda *step: None), climbs, ledger


def test_every_family_is_climbed_from_the_more_probable_start_and_the_default_takes_part_as_it_is(monkeypatch):
    candidates, climbs, _ = families(monkeypatch, "balanced")
    found = {c.family: c for c in candidates}
    assert list(found) == ["default prior", "smooth field", "rough field", "still ice"]
    assert found["default prior"].hyperparameters == DEFAULT_HYPERPARAMETERS and found["default prior"].found is None
    assert [start.velocity_sigma for start, _ in climbs] == [FIXED.velocity_sigma] * 2 + [probable.STILL_SIGMA]
    assert [start.kernel for start, _ in climbs] == ["matern", "exponential", "matern"]
    assert climbs[1][0].correlation_distance_angstrom == 2 * climbs[0][0].correlation_distance_angstrom
    assert families(monkeypatch, "balanced", replace(FIXED, velocity_sigma=0.9))[1][0][0].velocity_sigma == 0.9


def test_fast_takes_the_smooth_field_only_and_extensive_climbs_from_both_starts(monkeypatch):
    fast, climbs, _ = families(monkeypatch, "fast")
    assert [c.family for c in fast] == ["default prior", "smooth field"] and len(climbs) == 1 and climbs[0][1] == refine.ROUNDS["fast"]
    extensive, climbs, _ = families(monkeypatch, "extensive")
    assert [start.velocity_sigma for start, _ in climbs] == [0.46, 3.0] * 2 + [probable.STILL_SIGMA] * 2 and extensive[1].hyperparameters.velocity_sigma == 0.46


@pytest.mark.parametrize("helps, jitter, followed", [(0.3, 0.15, True), (0.08, 0.15, False), (0.0, 0.15, False), (-0.3, 0.15, False), (0.0, 0.0, True)])
def test_the_jitter_is_followed_where_that_predicts_held_out_data_better_by_a_standard_error(helps, jitter, followed):
    """300 particles with a scatter of 2: a standard error is 0.115 of each."""
    ledger = refine.Ledger(Bowl(0.8))
    candidate = refine.Candidate("smooth field", replace(FIXED, jitter_angstrom=jitter), ledger.evaluate("x", "y", [FIXED])[0].scores, 0.0)
    scatter = np.random.default_rng(7).normal(size=(100, 1))
    worse = helps + np.tile(2.0 * (scatter - scatter.mean()) / scatter.std(), (3, 1))
    ledger.tuning_set.evaluate = lambda hypers: (candidate.scores[:, None] + worse, np.ones(1))
    trials = len(ledger.tested)
    taken = tune.follow_jitter(ledger, candidate)
    assert taken.hyperparameters == replace(candidate.hyperparameters, jitter_followed=followed)
    assert len(ledger.tested) - trials == (jitter > 0) and np.array_equal(taken.scores, candidate.scores) == followed
    found = tune._conclude(ledger, [candidate], SimpleNamespace(last_activity=0.0), ["m"])
    assert found.hyperparameters == taken.hyperparameters and found.gain == pytest.approx((ledger.rigid - taken.scores).sum())


@pytest.mark.parametrize("better, family", [(-1.0, "smooth field"), (2.5, "smooth field"), (3.5, "default prior")])
def test_the_default_overrules_the_evidence_where_it_predicts_better_by_three_standard_errors(better, family):
    ledger = refine.Ledger(Bowl(0.8))
    scatter = np.random.default_rng(7).normal(size=(100, 1))
    lost = np.tile(scatter - scatter.mean(), (3, 1))[:, 0]
    lost += better * compare.cautious_error(lost, ledger.movie_of) / len(lost)
    still = replace(FIXED, jitter_angstrom=0.0)
    candidates = [refine.Candidate("default prior", still, np.zeros(300), -20.0), refine.Candidate("smooth field", still, lost, 0.0)]
    found = tune._conclude(ledger, candidates, SimpleNamespace(last_activity=0.0), ["m"])
    assert found.family == family and found.evidence == {"default prior": 20.0, "smooth field": 0.0}


def test_the_ledger_knows_every_trial_and_its_gain(monkeypatch):
    _, _, ledger = families(monkeypatch, "fast")
    rows = ledger.journal()
    assert len(rows) == ledger.tuning_set.asked and json.loads(json.dumps(rows)) == rows
    assert [r["kind"] for r in rows] == ["rigid", "default", "most probable"] and rows[0]["gain"] == 0.0
    assert rows[1]["gain"] == pytest.approx(300 * (50 - math.log(0.46 / 0.8) ** 2)) and rows[1]["gain_error"] < 1e-6
    assert rows[1]["log_evidence"] == pytest.approx(-math.log(0.46 / 0.8) ** 2)


def test_scores_that_are_no_numbers_leave_the_journal_readable():
    ledger = refine.Ledger(Bowl(0.8))
    ledger.tuning_set.bottom = math.nan
    trial = ledger.evaluate("ray", "x", [FIXED])[0]
    assert trial.total == math.inf and ledger.journal()[-1]["gain"] is None and "NaN" not in json.dumps(ledger.journal())


# ---- from end to end ------------------------------------------------------------------------------------------------------------

def test_a_fast_search_finds_the_motion_of_the_tiny_project(tuned):
    assert tuned.worth_it and tuned.gain > 2 * tuned.gain_error > 0 and tuned.particles == 24 and len(tuned.movies) == 2
    assert tuned.movies_with_gain == 2 and set(tuned.margins) == {"default prior", "smooth field"} == set(tuned.evidence)
    assert tuned.margins[tuned.family] == (0.0, 0.0) and tuned.activity_at_last_angstrom < 10 * tune.STILL_ANGSTROM
    kinds = [row["kind"] for row in tuned.journal]
    assert kinds[0] == "rigid" and set(kinds) == {"rigid", "ray", "default", "most probable", "jitter not followed"} and min(tuned.evidence.values()) == 0.0
    assert (tuned.family == "default prior") != bool(tuned.errors)
    assert "explains held-out data better" in tuned.text and "24 particles, 2 of 2 movies gain" in tuned.text


def test_the_search_is_the_same_every_time(tiny, calibrated, tuned):
    again = tune.tune(tiny.movies, tiny.of, with_search(calibrated, cache_gib=0.0))
    assert again.hyperparameters == tuned.hyperparameters and again.margins == tuned.margins and again.journal == tuned.journal and again.errors == tuned.errors


def test_activity_falls_to_nothing_along_a_ray(tuned):
    ray = [row for row in tuned.journal if row["kind"] == "ray"]
    activity = [row["activity_angstrom"] for row in ray]
    assert activity[0] > 1.0 and activity[-1] < activity[0] / 20 and [r["iteration"] for r in ray] == list(range(len(ray)))
    assert ray[-1]["gain"] < max(r["gain"] for r in ray)


def test_progress_is_told_in_three_parts(tiny, calibrated):
    told = []
    tune.tune(tiny.movies, tiny.of, with_search(calibrated, target_particles=12), lambda *step: told.append(step))
    assert [s for s in dict.fromkeys(t[2] for t in told)] == ["correlation maps", "rays", "refinement"]
    for sentence in ("correlation maps", "refinement"):
        steps = [t for t in told if t[2] == sentence]
        assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1]


def test_with_one_movie_there_is_a_verdict_all_the_same(tiny, calibrated):
    one = tune.tune(tiny.movies[:1], tiny.of, with_search(calibrated))
    assert 0 < one.gain_error < math.inf and one.gain_error_over_movies == math.inf
    assert all(math.isfinite(error) for _, error in one.margins.values())


def test_where_half_maps_share_nothing_with_the_movies_there_is_no_gain(tiny, calibrated):
    """The judge sees noise only: whatever is found, it does not count as a gain."""
    spectrum = calibrated.references[0].spectrum
    noise = torch.randn(spectrum[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.complex64) * spectrum[0].abs()
    verdicts = [tune.tune(tiny.movies, all_of_half_1(tiny), with_search(with_half(calibrated, 2, noise)))]
    assert not verdicts[0].worth_it and verdicts[0].text.startswith("no gain from local motion")


def test_where_nothing_of_the_reference_is_left_to_judge_by_that_is_said(tiny, calibrated):
    """The movies show it to 12.5 A only, and all of that aligns: rigid motion explains the rest as well as any other, which says nothing."""
    k = calibrated.amplitudes[0].frequency_per_angstrom
    job = with_search(replace(calibrated, amplitudes=(Amplitude(k, np.where(k < 0.08, calibrated.amplitudes[0].factor, 0.0)),)), target_particles=12)
    found = tune.tune(tiny.movies, tiny.of, job)
    assert found.worth_it is None and found.gain == found.gain_error == 0.0 and found.hyperparameters.jitter_followed
    assert found.text.startswith("whether local motion helps cannot be told: the movies show nothing of the reference beyond 12.") and "no gain" not in found.text
    fraction = float(found.text.split("a fraction of Fourier components (--fourier-fraction) below ")[1].split(",")[0])
    k_cut = validate.split_frequency(with_search(calibrated, fourier_fraction=0.95 * fraction), tiny.movies[0].original_pixel_angstrom)[0]
    assert k_cut < 0.08 < validate.split_frequency(job, tiny.movies[0].original_pixel_angstrom)[0]


def all_of_half_1(tiny):
    def of(movie):
        particles = tiny.of(movie)
        return replace(particles, half=np.ones(len(particles), np.int8))
    return of


def tuning(gain, error):
    return tune.Tuning(FIXED, "default prior", {}, {}, {}, gain, error, math.inf, 1, 10, ["m"], 0.0, [])


def test_a_gain_is_one_beyond_two_standard_errors():
    assert tuning(10.0, 4.9).worth_it and not tuning(10.0, 5.1).worth_it and not tuning(-10.0, 1.0).worth_it
    assert "no gain" not in tuning(10.0, 4.9).text and "no gain" in tuning(10.0, 5.1).text
    assert "better than rigid motion does, by 10 ± 5 (" in tuning(10.0, 4.9).text
    for gain, numbers in ((-0.3, "0 ± 5"), (-9.0, "-9 ± 5")):
        assert "it does not explain held-out data better than rigid motion does, beyond chance: %s (" % numbers in tuning(gain, 5.0).text


def test_what_was_spilled_is_removed_even_when_the_search_stops(tiny, calibrated, monkeypatch):
    closed, close = [], validate.TuningSet.close
    monkeypatch.setattr(validate.TuningSet, "close", lambda self: (closed.append(self.spill._file), close(self)))
    monkeypatch.setattr(tune, "refine_families", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune.tune(tiny.movies, tiny.of, with_search(calibrated, cache_gib=0.0))
    assert len(closed) == 1 and closed[0].closed
