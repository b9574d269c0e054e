"""Dose weights of a job and polished images, against the truth of a simulated movie."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.records import DoseWeights, FccTable
from refmotion_plugin.engine.dose.weights import normalise
from refmotion_plugin.engine.maths.lanes import set_lanes
from refmotion_plugin.engine.simulate.score import particle_ring_correlation, true_projections, weight_agreement
from refmotion_plugin.engine.stages import align, polish, weigh
from refmotion_plugin.engine.stages.budget import Budget
from refmotion_plugin.engine.stages.load import load_stack, movie_memory
from tests.unit.stage_stand_ins import Changed

PIXEL, BOX = 2.0, 96


def exposure_weights(kind="sum", frames=16):
    k, dose = np.arange(100) * 0.005, 1.5 * (np.arange(frames) + 0.5)
    zero = np.zeros((1, frames))
    return DoseWeights(weight=normalise(exposure_amplitude(dose, k), kind)[None], frequency_per_angstrom=k, dose_e_per_A2=dose,
                       b_factor_A2=zero, scale=zero, b_factor_error_A2=zero, scale_error=zero, normalisation=kind, source="curve")


def with_output(prepared, **output):
    return replace(prepared, spec=prepared.spec.model_copy(update=dict(output=prepared.spec.output.model_copy(update=output))))


@pytest.fixture(scope="module")
def stack(tiny):
    return load_stack(tiny.movies[0], tiny.prepared)


@pytest.fixture(scope="module")
def polished(tiny, aligned, stack):
    """Polished images of the first movie by any trajectories and job."""
    def images(displacement=None, prepared=tiny.prepared, weights=exposure_weights(), stack=stack):
        trajectories = aligned[0].trajectories
        if displacement is not None:
            trajectories = replace(trajectories, displacement_yx_angstrom=np.asarray(displacement, np.float32))
        return polish.polish_movie(tiny.movies[0], tiny.of(tiny.movies[0]), trajectories, weights, prepared, stack=stack)
    return images


@pytest.fixture(scope="module")
def plain(polished):
    return polished()


@pytest.fixture(scope="module")
def projections(tiny):
    return true_projections(tiny.folder / "truth", "movie_001", BOX, PIXEL)


def likeness(images, projections):
    """Mean ring correlation with the true projections between 12 and 7 A."""
    rings = particle_ring_correlation(images, projections)
    k = np.arange(len(rings)) / (BOX * PIXEL)
    return rings[(k > 1 / 12) & (k < 1 / 7)].mean()


def test_polished_images_are_more_like_the_true_projections_than_rigid_sums(tiny, aligned, polished, plain, projections):
    rigid = polished(aligned[0].trajectories.initial_yx_angstrom)
    best = polished(tiny.truth(tiny.movies[0]))
    values = [likeness(p.images, projections) for p in (rigid, plain, best)]
    assert values[1] > values[0] + 0.4 * (values[2] - values[0]) and values[2] > 1.3 * values[0]
    whole = particle_ring_correlation(plain.images, projections)[2:12]
    assert whole.min() > 0.3                                                # upright, bright, in place at low resolution


def test_images_in_another_place_or_sense_are_caught_by_that_comparison(plain, projections):
    assert likeness(-plain.images, projections) < 0
    for wrong in (plain.images[:, ::-1], plain.images[:, :, ::-1], np.roll(plain.images, 2, axis=1), plain.images[::-1]):
        assert likeness(wrong, projections) < 0.5 * likeness(plain.images, projections)


def test_turned_round_trajectories_are_worse_than_rigid_ones(tiny, aligned, polished, projections):
    start, found = aligned[0].trajectories.initial_yx_angstrom, aligned[0].trajectories.displacement_yx_angstrom
    rigid = likeness(polished(start).images, projections)
    for wrong in (-found, found[..., ::-1], 2 * start - found):
        assert likeness(polished(wrong).images, projections) < rigid


def test_images_are_normalised_and_listed(tiny, plain):
    assert plain.images.shape == (12, BOX, BOX) and plain.images.dtype == np.float32
    assert plain.pixel_angstrom == PIXEL and plain.rejected == []
    y, x = np.indices((BOX, BOX)) - BOX // 2
    outside = plain.images[:, np.hypot(y, x) > tiny.prepared.references[0].particle_radius_angstrom / PIXEL]
    np.testing.assert_allclose(outside.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(outside.std(1), 1, atol=1e-3)


def test_recentring_moves_the_whole_pixels_of_the_origin_into_the_coordinate(tiny, polished, plain):
    particles = tiny.of(tiny.movies[0])
    whole = polish.recentering_yx_px(particles, PIXEL)
    assert np.abs(whole).max() >= 1
    rest = particles.origin_yx_angstrom - whole * PIXEL
    assert (np.abs(rest) < PIXEL).all() and (rest * particles.origin_yx_angstrom >= 0).all()
    recentred = polished(prepared=with_output(tiny.prepared, recenter=True)).images
    inner = slice(8, BOX - 8)
    for i, shift in enumerate(whole.astype(int)):
        moved = np.roll(plain.images[i], shift, (0, 1))[inner, inner]
        assert np.corrcoef(moved.ravel(), recentred[i][inner, inner].ravel())[0, 1] > 0.995


def test_recentred_images_show_the_particle_at_the_rest_of_the_origin(tiny, polished):
    particles = tiny.of(tiny.movies[0])
    rest = particles.origin_yx_angstrom - polish.recentering_yx_px(particles, PIXEL) * PIXEL
    expected = true_projections(tiny.folder / "truth", "movie_001", BOX, PIXEL, origin_yx_angstrom=rest)
    not_moved = true_projections(tiny.folder / "truth", "movie_001", BOX, PIXEL)
    images = polished(prepared=with_output(tiny.prepared, recenter=True)).images
    assert likeness(images, expected) > 1.5 * likeness(images, not_moved)


@pytest.mark.parametrize("box, crop", [(None, 48), (128, None), (128, 64), (96, 80)])
def test_boxes_and_cropping(tiny, polished, plain, box, crop):
    result = polished(prepared=with_output(tiny.prepared, box_px=box, crop_box_px=crop))
    size = crop or box
    assert result.images.shape == (12, size, size)
    assert result.pixel_angstrom == pytest.approx(PIXEL * (box or BOX) / size)
    expected = true_projections(tiny.folder / "truth", "movie_001", size, result.pixel_angstrom)
    rings = particle_ring_correlation(result.images, expected)
    k = np.arange(len(rings)) / (size * result.pixel_angstrom)
    reference = particle_ring_correlation(plain.images, true_projections(tiny.folder / "truth", "movie_001", BOX, PIXEL))
    k0 = np.arange(len(reference)) / (BOX * PIXEL)
    band, band0 = (k > 1 / 60) & (k < 1 / 11), (k0 > 1 / 60) & (k0 < 1 / 11)
    assert rings[band].mean() > (0.9 if result.pixel_angstrom * size == PIXEL * BOX else 0.7) * reference[band0].mean()
    moved = particle_ring_correlation(np.roll(result.images, 1, axis=2), expected)
    assert moved[band].mean() < 0.9 * rings[band].mean()


def test_a_crop_box_larger_than_the_box_is_refused(tiny, polished):
    with pytest.raises(InputError, match="crop box 128 px is larger than the box of 96 px"):
        polished(prepared=with_output(tiny.prepared, crop_box_px=128))


def test_empty_and_broken_images_are_listed_with_the_reason_and_left_zero(tiny, polished, plain, stack):
    """The first particle's surroundings are flat, the second's are not numbers: both are named, the others are as they were."""
    particles = tiny.of(tiny.movies[0])
    places = np.round(particles.position_yx_angstrom / PIXEL).astype(int)
    distance = np.abs(places - places[0]).max(1)
    second = int(distance.argmax())
    assert distance[second] > 130

    def spoil(frame):
        frame = frame.clone()
        for (y, x), value in ((places[0], 1.0), (places[second], float("nan"))):
            reach = 70 if value == 1.0 else 3
            frame[max(y - reach, 0):y + reach, max(x - reach, 0):x + reach] = value
        return frame

    result = polished(stack=Changed(stack, spoil))
    reasons = dict(result.rejected)
    assert "empty" in reasons[0] and "not finite" in reasons[second]
    assert not result.images[0].any() and not result.images[second].any() and np.isfinite(result.images).all()
    far = [i for i in range(12) if np.abs(places[i] - places[[0, second]]).max(1).min() > 125]
    assert far and not set(far) & set(reasons)
    np.testing.assert_allclose(result.images[far], plain.images[far], atol=1e-3)


@pytest.mark.parametrize("change", [lambda f: 3.0 * f, lambda f: 1e-4 * f, lambda f: f + 40.0])
def test_the_scale_and_the_level_of_the_counts_do_not_matter(polished, plain, stack, change):
    result = polished(stack=Changed(stack, change))
    assert result.rejected == []
    np.testing.assert_allclose(result.images, plain.images, atol=0.01)


def test_chunks_of_particles_give_what_all_at_once_give(tiny, polished, plain):
    small = replace(tiny.prepared, budget=Budget(host=30 * BOX ** 2 * 24))
    assert movie_memory(tiny.movies[0], 12, small).particles_summed < 12
    np.testing.assert_array_equal(polished(prepared=small).images, plain.images)


@pytest.mark.parametrize("threads", [2, 3, 30])
def test_threads_that_share_the_particles_give_what_one_gives(tiny, calibrated, aligned, polished, plain, threads):
    """Polished images bit by bit; sums over particles, and what is fitted to them, as far as their order changes them."""
    set_lanes(threads)
    try:
        np.testing.assert_array_equal(polished().images, plain.images)
        found = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), calibrated)
    finally:
        set_lanes(1)
    for name in ("displacement_yx_angstrom", "deviation_sd_angstrom"):
        np.testing.assert_allclose(getattr(found.trajectories, name), getattr(aligned[0].trajectories, name), atol=1e-3)
    for name in ("cross", "power_movie", "power_reference"):
        np.testing.assert_allclose(getattr(found.fcc, name), getattr(aligned[0].fcc, name), rtol=1e-4, atol=1e-4 * getattr(aligned[0].fcc, name).max())
    np.testing.assert_allclose(found.judged.held_out, aligned[0].judged.held_out, rtol=1e-3, atol=1e-2)


def test_trajectories_of_other_frames_are_refused(tiny, aligned, stack):
    trajectories = replace(aligned[0].trajectories, displacement_yx_angstrom=aligned[0].trajectories.displacement_yx_angstrom[:, :9])
    with pytest.raises(MovieError, match="run again"):
        polish.polish_movie(tiny.movies[0], tiny.of(tiny.movies[0]), trajectories, exposure_weights(), tiny.prepared, stack=stack)


def test_weights_of_longer_movies_are_resampled(polished, plain):
    result = polished(weights=exposure_weights(frames=40))
    np.testing.assert_allclose(result.images, plain.images, atol=0.02)


def test_weights_of_other_optics_groups_are_refused(polished):
    two = exposure_weights()
    with pytest.raises(InputError, match="2 optics groups"):
        polished(weights=replace(two, weight=np.repeat(two.weight, 2, 0)))


# --- weights ---------------------------------------------------------------------------------------------------------

def test_weights_of_the_job_agree_with_the_true_damage(tiny, calibrated, aligned):
    found = weigh.fit_weights([a.fcc for a in aligned], calibrated)
    with np.load(tiny.folder / "truth" / "damage.npz") as truth:
        k = truth["frequency_per_angstrom"]
        amplitude = np.stack([np.interp(found.frequency_per_angstrom, k, row) for row in truth["amplitude"]])
    assert weight_agreement(found.weight[0], amplitude, found.frequency_per_angstrom, (20.0, 7.0))[1] > 0.93
    assert found.frequency_per_angstrom[-1] >= 0.25 and found.normalisation == "sum"
    np.testing.assert_allclose(found.weight.sum(1), 1.0)


def fcc_table(frames, cross, dose=1.5):
    shape = (1, frames, 20)
    return FccTable(np.arange(20) * 0.01, dose * (np.arange(frames) + 0.5), np.full(shape, cross), np.ones(shape), np.ones(shape), np.ones(shape))


def test_tables_are_summed_by_kind_the_one_with_most_data_first():
    total, *others = weigh.sum_tables([fcc_table(8, 1.0), fcc_table(16, 2.0), fcc_table(16, 3.0), fcc_table(16, 4.0, dose=1.0)])
    assert total.cross.shape == (1, 16, 20) and (total.cross == 5.0).all() and (total.components == 2.0).all()
    assert (total.dose_e_per_A2 == fcc_table(16, 0.0).dose_e_per_A2).all()
    assert [t.cross[0, 0, 0] for t in others] == [4.0, 1.0]
    with pytest.raises(InputError, match="no movie was aligned"):
        weigh.sum_tables([])


def test_movies_of_nearly_the_same_doses_are_one_kind_of_their_mean_dose():
    three = replace(fcc_table(4, 1.0, dose=1.52), components=np.full((1, 4, 20), 3.0))
    total, other = weigh.sum_tables([fcc_table(4, 1.0, dose=1.48), three, fcc_table(4, 1.0, dose=1.7)])
    assert (total.cross == 2.0).all() and (other.cross == 1.0).all()
    np.testing.assert_allclose(total.dose_e_per_A2, (1.48 + 3 * 1.52) / 4 * (np.arange(4) + 0.5))


def test_relion_s_b_factors_are_read_as_weights(tmp_path):
    file = tmp_path / "bfactors.star"
    file.write_text("\ndata_perframe_bfactors\n\nloop_ \n_rlnMovieFrameNumber #1 \n_rlnBfactorUsedForSharpening #2 \n_rlnFittedInterceptGuinierPlot #3 \n"
                    "0 -40.0 -0.7 \n1 -20.0 0.0 \n2 -60.0 -0.2 \n\n")
    dose = 1.5 * (np.arange(3) + 0.5)
    found = weigh.load_weights(file, dose)
    k = found.frequency_per_angstrom
    relative = found.weight[0] / found.weight[0][1]
    np.testing.assert_allclose(relative[0], np.exp(-0.7 - 20.0 * k ** 2 / 4), rtol=1e-6)
    np.testing.assert_allclose(relative[2], np.exp(-0.2 - 40.0 * k ** 2 / 4), rtol=1e-6)
    np.testing.assert_allclose(found.weight.sum(1), 1.0)
    with pytest.raises(InputError, match="have 3 frames but the movies have"):
        weigh.load_weights(file, dose[:2])
    with pytest.raises(InputError, match="weights.npz.*bfactors.star.*was expected"):
        weigh.load_weights(Path("weights.txt"))
