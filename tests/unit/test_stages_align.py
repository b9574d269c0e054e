"""Alignment of simulated movies against their truth."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.spec import PriorSpec
from refmotion_plugin.engine.motion.model import motion_inside_frames
from refmotion_plugin.engine.simulate.score import trajectory_error
from refmotion_plugin.engine.stages import align
from refmotion_plugin.engine.stages.budget import Budget
from refmotion_plugin.engine.stages.load import load_stack
from tests.unit.stage_stand_ins import Changed


def without_constant(displacement, weights):
    return displacement - np.average(displacement, axis=1, weights=weights)[:, None]


def with_spec(prepared, **parts):
    return replace(prepared, spec=prepared.spec.model_copy(update=parts))


def with_half(prepared, half, spectrum):
    """The job with one half-map's spectrum replaced."""
    changed = prepared.references[0].spectrum.clone()
    changed[half - 1] = spectrum
    return replace(prepared, references=(replace(prepared.references[0], spectrum=changed),))


def all_of_half(particles, half):
    return replace(particles, half=np.full(len(particles), half, np.int8))


def agreement(result):
    """Correlation with the opposite half between 30 and 8 A, all frames together."""
    table = result.fcc
    band = (table.frequency_per_angstrom > 1 / 30) & (table.frequency_per_angstrom < 1 / 8)
    total = [part[0][:, band].sum() for part in (table.cross, table.power_movie, table.power_reference)]
    return total[0] / np.sqrt(total[1] * total[2])


def test_alignment_comes_closer_to_the_truth_than_the_rigid_motion(tiny, aligned):
    for movie, result in zip(tiny.movies, aligned):
        found = trajectory_error(result.trajectories.displacement_yx_angstrom, tiny.truth(movie), tiny.weights)
        rigid = trajectory_error(result.trajectories.initial_yx_angstrom, tiny.truth(movie), tiny.weights)
        assert found.all_frames < 0.6 * rigid.all_frames and found.first_five < 0.5 * rigid.first_five
        assert result.trajectories.stop_reason == "converged"


def test_deviations_have_the_sign_and_the_axes_of_the_truth(tiny, aligned):
    """Regression of what was found on what is true, axis by axis: one, and nought across."""
    found, true = [], []
    for movie, result in zip(tiny.movies, aligned):
        start = result.trajectories.initial_yx_angstrom
        found.append(without_constant(result.trajectories.displacement_yx_angstrom - start, tiny.weights))
        true.append(without_constant(tiny.truth(movie) - start, tiny.weights))
    found, true = (np.concatenate(part).reshape(-1, 2) for part in (found, true))
    slope = np.linalg.lstsq(true, found, rcond=None)[0]
    assert slope[0, 0] == pytest.approx(1.0, abs=0.2) and slope[1, 1] == pytest.approx(1.0, abs=0.2)
    assert np.abs(slope[[0, 1], [1, 0]]).max() < 0.2


def test_the_standard_deviation_says_how_large_the_error_is(tiny, aligned):
    error = np.concatenate([without_constant(r.trajectories.displacement_yx_angstrom - tiny.truth(m), tiny.weights)
                            for m, r in zip(tiny.movies, aligned)])
    sd = np.concatenate([r.trajectories.deviation_sd_angstrom for r in aligned])
    assert sd.shape == error.shape[:2] and (sd > 0).all()
    assert 0.5 < np.sqrt(np.square(error).mean()) / np.sqrt(np.square(sd).mean()) < 1.6


def test_with_a_rigid_prior_the_input_motion_is_kept(tiny, calibrated, aligned):
    job = with_spec(calibrated, motion_prior=PriorSpec(rigid=True))
    result = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), job)
    t = result.trajectories
    np.testing.assert_array_equal(t.displacement_yx_angstrom, t.initial_yx_angstrom)
    assert not t.deviation_sd_angstrom.any() and t.stop_reason == "input motion kept"
    shift = tiny.movies[0].global_shift_xy_px
    np.testing.assert_allclose(t.initial_yx_angstrom[0], -2.0 * (shift - shift[0])[:, ::-1], atol=1e-4)
    fine = (result.fcc.frequency_per_angstrom > 0.07) & (result.fcc.frequency_per_angstrom < 0.14)
    assert aligned[0].fcc.cross[0][:, fine].sum() > 1.1 * result.fcc.cross[0][:, fine].sum()


def test_a_stiff_prior_is_a_rigid_one(tiny, calibrated):
    hyper = replace(calibrated.hyperparameters, velocity_sigma=1e-6, acceleration_sigma=1e-6, jitter_angstrom=0.0, global_angstrom=0.0,
                    offset_angstrom=1e-4, movie_spread=0.0)
    result = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), replace(calibrated, hyperparameters=hyper))
    t = result.trajectories
    np.testing.assert_allclose(t.displacement_yx_angstrom, t.initial_yx_angstrom, atol=1e-4)


def test_the_opposite_half_judges_and_has_no_part_in_the_alignment(tiny, calibrated):
    movie = tiny.movies[0]
    particles = all_of_half(tiny.of(movie), 1)
    plain = align.align_movie(movie, particles, calibrated)
    shape = calibrated.references[0].spectrum[1].shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    noise *= calibrated.references[0].spectrum[1].abs().mean()
    judged_by_noise = align.align_movie(movie, particles, with_half(calibrated, 2, noise))
    np.testing.assert_array_equal(judged_by_noise.trajectories.displacement_yx_angstrom, plain.trajectories.displacement_yx_angstrom)
    assert agreement(plain) > 15 * abs(agreement(judged_by_noise))
    same_reference = align.align_movie(movie, all_of_half(particles, 2), with_half(calibrated, 1, noise))
    assert agreement(plain) > 15 * abs(agreement(same_reference))       # now half-map 1 is the opposite one
    assert np.abs(same_reference.trajectories.displacement_yx_angstrom - plain.trajectories.displacement_yx_angstrom).max() > 0


def test_the_own_half_aligns(tiny, calibrated):
    movie = tiny.movies[0]
    particles = all_of_half(tiny.of(movie), 1)
    job = with_half(calibrated, 1, torch.zeros_like(calibrated.references[0].spectrum[0]))
    result = align.align_movie(movie, particles, job)
    deviation = result.trajectories.displacement_yx_angstrom - result.trajectories.initial_yx_angstrom
    np.testing.assert_allclose(deviation, np.broadcast_to(deviation[:1], deviation.shape), atol=1e-3)      # nothing of their own to follow
    assert np.abs(deviation).max() > 0.01                                                           # the input's course is smoothed
    rough = replace(job, hyperparameters=replace(job.hyperparameters, common_sigma=0.0))
    t = align.align_movie(movie, particles, rough).trajectories
    np.testing.assert_allclose(t.displacement_yx_angstrom, t.initial_yx_angstrom, atol=1e-3)      # nor in the input's own course
    assert agreement(result) > 0.02                                                                # and still something to judge by


@pytest.mark.parametrize("change", [lambda frame: 3.0 * frame, lambda frame: 1e-3 * frame, lambda frame: frame + 40.0])
def test_the_scale_and_the_level_of_the_counts_do_not_matter(tiny, calibrated, aligned, change):
    stack = Changed(load_stack(tiny.movies[1], calibrated), change)
    result = align.align_movie(tiny.movies[1], tiny.of(tiny.movies[1]), calibrated, stack=stack)
    plain = aligned[1]
    difference = np.abs(result.trajectories.displacement_yx_angstrom - plain.trajectories.displacement_yx_angstrom)
    assert difference.max() < 0.05 and difference.mean() < 0.01     # the peak of the movie's own scales may be read from other neighbours
    np.testing.assert_allclose(result.trajectories.deviation_sd_angstrom, plain.trajectories.deviation_sd_angstrom, rtol=0.01)
    np.testing.assert_allclose(result.fcc.fcc[0][:, 3:-1], plain.fcc.fcc[0][:, 3:-1], atol=0.01)


def test_the_amplitude_is_measured_in_the_unit_in_which_it_is_used(tiny, calibrated):
    """Whatever noise the movie is whitened by: the whitened sums' regression times the unit of predictions is that of the counts."""
    movie = tiny.movies[0]
    view = align.view_movie(movie, tiny.of(movie), calibrated)
    still, group = np.zeros(view.initial_yx_angstrom.shape), torch.zeros(len(view.particles), dtype=torch.int64)
    noise, band = align.movie_noise(view), slice(3, 20)
    plain = align.fcc_sums(view.spectra, view.opposite, view.residual_yx_angstrom / view.grid.pixel_angstrom, group, 1, view.grid,
                           view.dose_e_per_A2)
    counts = plain.cross.sum(1)[0, band] / plain.power_reference.sum(1)[0, band]
    for share in (1.0, 0.5):
        table = align.judge(view, still, share * noise, group, 1)
        amplitude = table.cross.sum(1)[0, band] / table.power_reference.sum(1)[0, band]
        np.testing.assert_allclose(amplitude * align.movie_unit(view), counts, rtol=1e-5, atol=1e-4 * np.abs(counts).max())


def test_the_order_of_the_particles_does_not_matter(tiny, calibrated, aligned):
    particles = tiny.of(tiny.movies[0])
    order = np.random.default_rng(0).permutation(len(particles))
    result = align.align_movie(tiny.movies[0], particles[order], calibrated)
    np.testing.assert_allclose(result.trajectories.displacement_yx_angstrom, aligned[0].trajectories.displacement_yx_angstrom[order], atol=0.01)
    np.testing.assert_array_equal(result.trajectories.row, particles.row[order])


@pytest.mark.parametrize("number", [1, 2])
def test_few_particles_are_aligned_too(tiny, calibrated, number):
    particles = tiny.of(tiny.movies[0])[:number]
    t = align.align_movie(tiny.movies[0], particles, calibrated).trajectories
    assert t.displacement_yx_angstrom.shape == (number, 16, 2) and np.isfinite(t.displacement_yx_angstrom).all()


@pytest.mark.parametrize("first, last", [(3, 10), (1, 1), (1, 2)])
def test_a_range_of_frames(tiny, calibrated, first, last):
    job = with_spec(calibrated, inputs=calibrated.spec.inputs.model_copy(update=dict(first_frame=first, last_frame=last)))
    result = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), job)
    t = result.trajectories
    assert t.displacement_yx_angstrom.shape == (12, last - first + 1, 2) and np.isfinite(t.displacement_yx_angstrom).all()
    np.testing.assert_allclose(t.dose_e_per_A2, 1.5 * (np.arange(first - 1, last) + 0.5))
    np.testing.assert_allclose(result.fcc.dose_e_per_A2, t.dose_e_per_A2)
    shift = tiny.movies[0].global_shift_xy_px
    np.testing.assert_allclose(t.initial_yx_angstrom[0], -2.0 * (shift - shift[0])[first - 1:last, ::-1], atol=1e-4)


def test_without_a_cache_the_result_is_the_same(tiny, calibrated, aligned):
    result = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), replace(calibrated, budget=Budget(host=1)))
    np.testing.assert_array_equal(result.trajectories.displacement_yx_angstrom, aligned[0].trajectories.displacement_yx_angstrom)
    np.testing.assert_array_equal(result.fcc.cross, aligned[0].fcc.cross)


def test_unusable_movies_are_refused_with_the_reason(tiny, calibrated):
    movie = tiny.movies[0]
    with pytest.raises(MovieError, match="no particles"):
        align.align_movie(movie, tiny.of(movie)[:0], calibrated)
    beyond = with_spec(calibrated, inputs=calibrated.spec.inputs.model_copy(update=dict(first_frame=5, last_frame=40)))
    with pytest.raises(MovieError, match="frames 5 to 40"):
        align.align_movie(movie, tiny.of(movie), beyond)
    broken = Changed(load_stack(movie, calibrated), lambda frame: frame * float("nan"))
    with pytest.raises(MovieError, match="flat or not finite"):
        align.align_movie(movie, tiny.of(movie), calibrated, stack=broken)
    empty = Changed(load_stack(movie, calibrated), torch.zeros_like)
    with pytest.raises(MovieError, match="flat or not finite"):
        align.align_movie(movie, tiny.of(movie), calibrated, stack=empty)


def test_all_components_align_or_the_fraction_that_the_search_aligns_with(tiny, calibrated, aligned, monkeypatch):
    limited = with_spec(calibrated, alignment=calibrated.spec.alignment.model_copy(update=dict(all_components=False)))
    assert limited.aligned_per_angstrom(2.0) == pytest.approx(0.35 ** 0.5 * calibrated.aligned_per_angstrom(2.0))
    models, make = [], align.correlation_maps
    monkeypatch.setattr(align, "correlation_maps", lambda spectra, model, *rest: models.append(model) or make(spectra, model, *rest))
    found = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), limited).trajectories
    k = models[0].grid.shell_frequency_per_angstrom().numpy()
    assert 0.8 * limited.aligned_per_angstrom(2.0) < k[np.flatnonzero(models[0].amplitude)].max() <= limited.aligned_per_angstrom(2.0)
    assert np.abs(found.displacement_yx_angstrom - aligned[0].trajectories.displacement_yx_angstrom).max() > 0.05


def test_only_frames_whose_blur_differs_from_the_input_motions_are_correlated_anew(tiny, calibrated, monkeypatch):
    asked, renewed, make = [], [], align.renew_frames
    large = 1.1 * align.BLUR_TURN / calibrated.band_per_angstrom(2.0)
    change = large * torch.tensor([1.0, 0.8, 1.0, 0.0, 0.0, 1.0])
    monkeypatch.setattr(align, "blur_change", lambda new, used: asked.append((new, used.clone())) or change)
    monkeypatch.setattr(align, "renew_frames", lambda maps, spectra, model, window, frames:
                        renewed.append((frames, model.blur_yx_angstrom)) or make(maps, spectra, model, window, frames))
    view = align.view_movie(tiny.movies[0], tiny.of(tiny.movies[0]), calibrated)
    align.estimate_deviation(view, calibrated.amplitudes, calibrated, passes=3)
    of_input = motion_inside_frames(torch.from_numpy(view.initial_yx_angstrom)).mean(0)
    torch.testing.assert_close(asked[0][1], of_input.expand_as(asked[0][0]))
    assert [frames for frames, _ in renewed] == [[0, 2, 5]] * 2 and torch.equal(renewed[0][1], asked[0][0])
    torch.testing.assert_close(asked[1][1][:, [0, 2, 5]], asked[0][0][:, [0, 2, 5]])        # what was used is remembered, frame by frame
    torch.testing.assert_close(asked[1][1][:, [1, 3, 4]], asked[0][1][:, [1, 3, 4]])


def test_the_change_of_blur_is_that_of_its_factor():
    """Mean over directions of sinc for both motions, at a frequency where they turn little."""
    new, used = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]]), torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    angle, k = np.linspace(0, 2 * np.pi, 720, endpoint=False), 0.02
    along = k * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    lost = np.mean(np.sinc(along @ used.numpy()[:, 0].T) - np.sinc(along @ new.numpy()[:, 0].T))
    change = float(align.blur_change(new, used)[0])
    assert lost == pytest.approx((np.pi * k * change) ** 2 / 12, rel=0.02)        # half of the largest, for the mean over directions
    assert float(align.blur_change(new, torch.zeros_like(new))[0]) == pytest.approx(float(new.norm(dim=-1).square().mean().sqrt()))


def test_each_particle_is_predicted_by_its_own_reference(tiny, calibrated):
    one = calibrated.references[0]
    job = replace(calibrated, references=(one, replace(one, spectrum=3.0 * one.spectrum)), optics=calibrated.optics * 2)
    particles, grid = tiny.of(tiny.movies[0]), calibrated.alignment_grid(2.0)
    mixed = replace(particles, reference=np.arange(len(particles)) % 3 % 2)
    alone = align.predictions(particles, calibrated, grid)
    factor = torch.where(torch.from_numpy(mixed.reference) == 1, 3.0, 1.0)[:, None, None]
    for found, expected in zip(align.predictions(mixed, job, grid), alone):
        torch.testing.assert_close(found, expected * factor)
    assert len(torch.unique(factor)) == 2 and not torch.equal(*alone)
