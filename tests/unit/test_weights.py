"""Dose weights from synthetic correlation tables with known truth."""
from dataclasses import replace

import numpy as np
import pytest

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.records import DoseWeights, FccTable
from refmotion_plugin.engine.dose import weights as w

K = np.arange(97) / 320.0                           # up to 0.3 / A
DOSES = 1.2 * (np.arange(30) + 0.5)
BAND = (K >= 1 / 20.0) & (K <= 1 / 4.0)
MUCH, LITTLE = 40000, 150                           # particles


def table_of(shape, particles, seed=0, signal=None, doses=DOSES):
    """A table whose cross term is drawn with the variance it has in movies: sigma^2 = 1 per component."""
    rng = np.random.default_rng(seed)
    s = 0.06 * np.exp(-40.0 * K ** 2) if signal is None else signal
    components = np.broadcast_to(particles * np.pi * np.maximum(np.arange(len(K)), 0.5), shape.shape)
    reference = 2 * components * (0.5 + np.exp(-60.0 * K ** 2))      # any spectrum
    cross = reference * s * shape + np.sqrt(reference) * rng.normal(size=shape.shape)
    power = 2 * components * (1 + (s * shape) ** 2)
    return FccTable(frequency_per_angstrom=K, dose_e_per_A2=doses, cross=cross[None], power_movie=power[None],
                    power_reference=reference[None].copy(), components=components[None].copy())


def _parts(table):
    return table.cross, table.power_movie, table.power_reference, table.components


def snr_kept(weight, shape, band=BAND):
    """(sum w a)^2 / (sum w^2 sum a^2): the share of the best possible SNR in white noise."""
    a, b = weight[:, band], shape[:, band]
    return float(((a * b).sum(0) ** 2 / ((a ** 2).sum(0) * (b ** 2).sum(0))).mean())


def motion_shape(doses=DOSES, b_first=90.0, c_first=0.55):
    """Standard exposure curve times early blur: C and B per frame that depart from 1 and 0 at the start."""
    early = np.exp(-(doses - doses[0]) / 2.0)
    b, c = b_first * early, 1.0 - (1.0 - c_first) * early
    return exposure_amplitude(doses, K) * c[:, None] * np.exp(-b[:, None] * K ** 2 / 4.0), b, c


def fitted(table, **options):
    return w.fit_dose_weights(table, 300.0, high_frequency_per_angstrom=0.25, **options)


def test_known_scales_and_b_factors_are_recovered():
    """Up to what no data tell: one factor for all frames, and B against the average frame is held by the prior."""
    shape, b, c = motion_shape()
    table = table_of(shape, MUCH)
    t, error = w.amplitude_and_error(*[part[0][:, BAND] for part in _parts(table)])
    fit = w.fit_frames(t, error, exposure_amplitude(DOSES, K[BAND]), DOSES, K[BAND])
    assert fit.b_factor_A2[:3] - fit.b_factor_A2[-10:].mean() == pytest.approx(b[:3], abs=6.0)
    assert fit.scale[:3] / fit.scale[-10:].mean() == pytest.approx(c[:3], rel=0.06)
    inner = fit.amplitude * (fit.scale[-10:].mean())
    assert inner == pytest.approx((0.06 * np.exp(-40.0 * K ** 2))[BAND], rel=0.1)


def test_standard_errors_of_the_amplitude_are_the_scatter():
    shape, _, _ = motion_shape()
    t, error = w.amplitude_and_error(*[part[0] for part in _parts(table_of(shape, LITTLE, 7))])
    score = (t - 0.06 * np.exp(-40.0 * K ** 2) * shape) / error
    assert score[:, 1:].std() == pytest.approx(1.0, abs=0.06) and abs(score[:, 1:].mean()) < 0.06
    t, error = w.amplitude_and_error(*[np.zeros((2, 3))] * 4)
    assert not t.any() and np.isinf(error).all()


@pytest.mark.parametrize("particles, least", [(MUCH, 0.995), (2000, 0.99), (LITTLE, 0.98)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_most_of_the_signal_to_noise_ratio_is_kept(particles, least, seed):
    shape, _, _ = motion_shape()
    assert snr_kept(fitted(table_of(shape, particles, seed)).weight[0], shape) > least


def test_data_improve_on_the_standard_curve_and_nothing_does_not():
    shape, _, _ = motion_shape(c_first=0.3, b_first=150.0)
    standard = exposure_amplitude(DOSES, K)
    assert snr_kept(fitted(table_of(shape, MUCH)).weight[0], shape) > snr_kept(standard, shape) + 0.005
    empty = [snr_kept(fitted(table_of(shape, 1, seed, signal=np.zeros(len(K)))).weight[0], standard) for seed in range(4)]
    assert min(empty) > 0.85 and np.mean(empty) > 0.9


@pytest.mark.parametrize("particles, seed", [(MUCH, 3), (LITTLE, 4), (20, 5), (20, 6)])
def test_weights_never_rise_again(particles, seed):
    shape, _, _ = motion_shape()
    weight = fitted(table_of(shape, particles, seed), highest_frequency_per_angstrom=0.6, normalisation="peak").weight[0]
    for column in weight.T:
        peak = int(column.argmax())
        assert DOSES[peak] - DOSES[0] <= w.LATEST_PEAK_DOSE
        assert (np.diff(column[peak:]) <= 1e-12).all()
    assert np.isfinite(weight).all() and weight.min() >= 0


def test_a_second_rise_is_cut_and_what_falls_is_kept():
    doses = np.arange(8.0)
    amplitude = np.array([0.6, 1.0, 0.8, 0.5, 0.6, 0.9, 0.3, 0.2])[:, None]
    cut = w.without_second_rise(np.hstack([amplitude, amplitude[::-1] * 0 + np.arange(8, 0, -1)[:, None]]), doses, np.array([1.0, 0.1]))
    assert cut[:, 0].tolist() == [0.6, 1.0, 0.8, 0.5, 0.5, 0.5, 0.3, 0.2]
    assert cut[:, 1].tolist() == list(range(8, 0, -1))
    late = w.without_second_rise(np.linspace(0.1, 1.0, 20)[:, None], 2.0 * np.arange(20), np.ones(1))
    assert np.argmax(late[:, 0]) == 5 and (late[5:, 0] == late[5, 0]).all()      # a peak later than 10 e/A^2 is none


def test_no_shell_peaks_later_than_all_of_them_together():
    amplitude = np.array([[0.7, 0.8], [1.0, 0.9], [0.8, 1.0], [0.6, 0.7]])
    assert w.without_second_rise(amplitude, np.arange(4.0), np.array([5.0, 1.0]))[:, 1].tolist() == [0.8, 0.9, 0.9, 0.7]
    assert w.without_second_rise(amplitude, np.arange(4.0), np.array([1.0, 5.0])).tolist() == amplitude.tolist()


@pytest.mark.parametrize("peak", [1, 2])
def test_a_peak_at_frame_two_or_three_is_recovered(peak):
    early = np.zeros(len(DOSES))
    early[:peak] = [60.0, 20.0][:peak]
    shape = exposure_amplitude(DOSES, K) * np.exp(-early[:, None] * K ** 2 / 4.0)
    shape[:peak] *= 0.7
    weight = fitted(table_of(shape, MUCH), normalisation="peak").weight[0]
    fine = (K > 0.1) & (K < 0.2)
    assert (np.argmax(shape[:, fine], axis=0) == peak).all()
    assert np.mean(np.argmax(weight[:, fine], axis=0) == peak) > 0.95


@pytest.mark.parametrize("kind, total", [("sum", lambda a: a.sum(0)), ("power", lambda a: (a ** 2).sum(0)), ("peak", lambda a: a.max(0))])
def test_normalisations_are_what_their_names_say(kind, total):
    shape, _, _ = motion_shape()
    found = fitted(table_of(shape, 2000), normalisation=kind)
    assert found.normalisation == kind
    np.testing.assert_allclose(total(found.weight[0]), 1.0, rtol=1e-10)
    with pytest.raises(ValueError, match="'mean'"):
        w.normalise(found.weight[0], "mean")


def test_the_axis_goes_on_to_the_highest_frequency_asked_for():
    shape, _, _ = motion_shape()
    found = fitted(table_of(shape, 2000), highest_frequency_per_angstrom=0.5)
    np.testing.assert_allclose(found.frequency_per_angstrom[:len(K)], K)
    assert found.frequency_per_angstrom[-1] == pytest.approx(0.5, abs=1 / 320.0)
    assert found.weight.shape == (1, 30, len(found.frequency_per_angstrom)) and (found.weight[0].sum(0) > 0.99).all()


def test_groups_are_fitted_on_their_own():
    one, _, _ = motion_shape()
    other = exposure_amplitude(DOSES, K)
    tables = table_of(one, MUCH), table_of(other, MUCH, 1)
    both = replace(tables[0], **{n: np.concatenate([getattr(t, n) for t in tables]) for n in
                                 ("cross", "power_movie", "power_reference", "components")})
    found = fitted(both)
    for group, shape in enumerate((one, other)):
        assert snr_kept(found.weight[group], shape) > 0.995
        np.testing.assert_allclose(found.weight[group], fitted(tables[group]).weight[0], rtol=1e-6)


def test_groups_without_particles_fall_back_to_the_standard_curve():
    table = table_of(motion_shape()[0], 2000)
    none = replace(table, **{n: np.zeros_like(getattr(table, n)) for n in ("cross", "power_movie", "power_reference", "components")})
    weight = fitted(none).weight[0]
    np.testing.assert_allclose(weight, w.normalise(exposure_amplitude(DOSES, K), "sum"), rtol=1e-4)


def test_standard_errors_shrink_with_the_data():
    shape, _, _ = motion_shape()
    few, many = fitted(table_of(shape, LITTLE)), fitted(table_of(shape, MUCH))
    assert (many.b_factor_error_A2[0, :3] < 0.5 * few.b_factor_error_A2[0, :3]).all()
    assert (few.b_factor_error_A2 > 0).all() and (few.scale_error > 0).all()


def test_reported_b_factors_describe_the_weights():
    shape, _, _ = motion_shape()
    found = fitted(table_of(shape, MUCH))
    assert np.argmin(found.b_factor_A2[0]) in range(1, 8) and found.b_factor_A2[0, -1] > found.b_factor_A2[0, 6]
    model = found.scale[0][:, None] * np.exp(-found.b_factor_A2[0][:, None] * K ** 2 / 4.0)
    assert np.corrcoef(np.log(model[:, BAND]).ravel(), np.log(found.weight[0][:, BAND]).ravel())[0, 1] > 0.99


def test_a_movie_of_one_frame_has_weight_one():
    shape = exposure_amplitude(DOSES[:1], K)
    found = w.fit_dose_weights(table_of(shape, 500, doses=DOSES[:1]), 300.0)
    np.testing.assert_allclose(found.weight, 1.0)


def test_a_band_too_narrow_for_a_fit_still_gives_weights():
    shape, _, _ = motion_shape()
    found = w.fit_dose_weights(table_of(shape, 2000), 300.0, high_frequency_per_angstrom=1 / 30.0)
    assert np.isfinite(found.weight).all() and snr_kept(found.weight[0], shape) > 0.9


# --- other movies ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def found():
    return fitted(table_of(motion_shape()[0], MUCH), highest_frequency_per_angstrom=0.5)


@pytest.mark.parametrize("kind", ["sum", "power", "peak"])
def test_resampling_to_the_same_axes_changes_nothing(kind):
    stored = fitted(table_of(motion_shape()[0], MUCH), normalisation=kind)
    np.testing.assert_allclose(w.resample(stored, 0, DOSES.copy(), K), stored.weight[0], rtol=1e-12)


def test_resampling_to_other_frames_follows_dose_not_frame_number(found):
    doses = 2.4 * (np.arange(15) + 0.5)                           # the same exposure in half as many frames
    halved = w.resample(found, 0, doses, K)
    paired = w.normalise(np.sqrt(found.weight[0][0::2] * found.weight[0][1::2])[:, :len(K)], "sum")
    late = doses > 10.0                                           # earlier the motion inside the longer frames counts
    np.testing.assert_allclose(halved[late] / halved[late].sum(0), paired[late] / paired[late].sum(0), rtol=1e-8)
    np.testing.assert_allclose(halved.sum(0), 1.0)
    fine = K > 0.15
    assert (halved[0, fine] < 0.9 * paired[0, fine]).all()        # a frame of twice the dose is blurred by twice the path
    part = w.resample(found, 0, DOSES[5:15], K)
    np.testing.assert_allclose(part, w.normalise(found.weight[0][5:15, :len(K)], "sum"), rtol=1e-8)


def test_resampling_to_other_frequencies(found):
    other = np.array([0.0, 0.033, 0.1111, 0.27, 0.49, 0.9])
    table = w.resample(found, 0, DOSES, other)
    for f in (0, 7, 29):
        raw = np.interp(other, found.frequency_per_angstrom, found.weight[0, f])
        ratio = table[f] / raw
        np.testing.assert_allclose(ratio, 1.0, atol=1e-6)
    np.testing.assert_allclose(table[:, -1], w.normalise(found.weight[0][:, -1:], "sum")[:, 0])


def test_frames_beyond_the_stored_dose_go_on_falling(found):
    doses = 1.2 * (np.arange(40) + 0.5)
    longer = w.resample(replace(found, normalisation="peak"), 0, doses, K)
    assert (np.diff(longer[29:], axis=0) <= 1e-12).all() and (longer > 0).all()
    fine = K > 0.15
    assert (longer[-1, fine] < 0.9 * longer[29, fine]).all()


def test_weights_that_end_level_go_on_falling_as_late_frames_do(found):
    level = found.weight.copy()
    level[:, -2:] = level[:, -3:-2]                    # as a fit leaves frames whose signal seemed to rise
    doses, shells = 1.2 * (np.arange(60) + 0.5), slice(5, 25)
    longer = w.resample(replace(found, weight=level, normalisation="peak"), 0, doses, K)
    expected = exposure_amplitude(doses, K)
    fall = np.log(longer[-1] / longer[29])[shells]
    np.testing.assert_allclose(fall, np.log(expected[-1] / expected[29])[shells], rtol=0.1, atol=0.06)


def test_a_stored_rise_at_the_end_is_not_continued(found):
    rising = replace(found, weight=np.sort(found.weight, axis=1))
    longer = w.resample(rising, 0, np.append(DOSES, [50.0, 90.0]), K)
    np.testing.assert_allclose(longer[-1], longer[29], rtol=1e-3)        # where nothing is known of damage, the curve has an even smaller share


def test_one_stored_frame_serves_any_number(found):
    single = replace(found, weight=found.weight[:, :1], dose_e_per_A2=DOSES[:1])
    table = w.resample(single, 0, DOSES[:4], K)
    np.testing.assert_allclose(table, 0.25)


def _coarser(table, every=2):
    """The same table on every second shell, as movies of a smaller box give it."""
    pick = slice(None, None, every)
    return replace(table, frequency_per_angstrom=table.frequency_per_angstrom[pick], cross=table.cross[..., pick],
                   power_movie=table.power_movie[..., pick], power_reference=table.power_reference[..., pick],
                   components=table.components[..., pick])


def test_movies_of_other_doses_and_boxes_share_the_curve():
    """Few movies of one kind gain from many of another kind, whose overall scale differs; frames keep their own doses."""
    doses = 2.0 * (np.arange(18) + 0.5)
    shape, _, _ = motion_shape()
    other_shape, _, _ = motion_shape(doses)
    few, many = table_of(shape, 60, seed=3), _coarser(table_of(1.2 * other_shape, MUCH, seed=4, doses=doses))
    alone, joint = fitted(few), fitted(few, others=[many])
    assert joint.weight.shape == alone.weight.shape and (joint.dose_e_per_A2 == DOSES).all()
    assert snr_kept(joint.weight[0], shape) > max(0.995, snr_kept(alone.weight[0], shape))


@pytest.fixture
def fits(monkeypatch):
    """The fits that are asked for, each as the frames of its kinds of movies; nothing is fitted."""
    seen = []

    def fit(t, error, exposure, doses, k, kind):
        seen.append(np.bincount(kind).tolist())
        return w.FrameFit(*[np.full(len(doses), value) for value in (1.0, 0.0, 0.1, 1.0)], None)

    monkeypatch.setattr(w, "fit_frames", fit)
    return seen


def kind_of(frames, *data):
    """A table of movies of so many frames; ``data`` of each optics group, in components of a frame."""
    part = np.asarray(data, float)[:, None, None] * np.ones((len(data), frames, len(K)))
    return FccTable(K, 0.2 * (np.arange(frames) + 0.5), 0.1 * part, part, part, part)


def test_a_fit_to_many_kinds_of_movies_is_one_to_those_with_most_data(fits, caplog):
    caplog.set_level("INFO")
    fitted(kind_of(60, 7), others=[kind_of(60, 1)] * 10)
    assert fits.pop() == [60] * 4 and "of optics group 1 are fitted to 4 of 11 kinds of movies (frames, doses, pixels), which hold 59 % of" in caplog.text
    caplog.clear()
    fitted(kind_of(w.MOST_FRAMES + 1, 1))
    assert fits == [[w.MOST_FRAMES + 1]] and not caplog.text


def test_each_optics_group_is_fitted_to_the_kinds_of_movies_that_hold_its_data(fits, caplog):
    """EER movies in one group, movies of other frames in the other: the first of all gives the frames, each group's own its data."""
    caplog.set_level("INFO")
    fitted(kind_of(160, 9, 0, 0), others=[kind_of(100, 0, 5, 0)])
    assert fits == [[160], [160, 100], [160]] and not caplog.text
    fits.clear()
    fitted(kind_of(160, 9, 1), others=[kind_of(100, 0, 5), kind_of(60, 1, 2), kind_of(20, 1, 0)])
    assert fits == [[160, 60, 20], [160, 100]] and "of optics group 2 are fitted to 2 of 3 kinds" in caplog.text and "group 1" not in caplog.text


def test_a_group_whose_movies_are_all_of_another_kind_has_weights_of_its_data(monkeypatch):
    monkeypatch.setattr(w, "MOST_FRAMES", 40)
    doses, motion = 2.0 * (np.arange(18) + 0.5), dict(c_first=0.3, b_first=150.0)
    first, second = table_of(motion_shape()[0], MUCH), table_of(motion_shape(doses, **motion)[0], MUCH, doses=doses)
    groups = lambda *parts: [np.concatenate(pair) for pair in zip(*map(_parts, parts))]
    empty = [replace(table, **{n: np.zeros_like(table.cross) for n in ("cross", "power_movie", "power_reference", "components")}) for table in (first, second)]
    found = fitted(FccTable(K, DOSES, *groups(first, empty[0])), others=[FccTable(K, doses, *groups(empty[1], second))])
    shape = motion_shape(**motion)[0]
    assert snr_kept(found.weight[1], shape) > snr_kept(exposure_amplitude(DOSES, K), shape) + 0.005
    np.testing.assert_allclose(found.weight[0], fitted(first).weight[0], rtol=1e-6)


def test_weights_of_one_data_set_serve_another_with_other_doses_and_pixels():
    doses, k = 0.8 * (np.arange(45) + 0.5), np.arange(150) / 400.0
    shape, _, _ = motion_shape()
    found = fitted(table_of(shape, MUCH), highest_frequency_per_angstrom=0.5)
    early = np.exp(-(doses - doses[0]) / 2.0)
    blur = (0.8 / 1.2) ** 2                 # of shorter frames: by the square of the path in them
    wanted = exposure_amplitude(doses, k) * ((1.0 - 0.45 * early) ** blur)[:, None] * np.exp(-90.0 * blur * early[:, None] * k ** 2 / 4.0)
    moved = w.resample(found, 0, doses, k)
    assert snr_kept(moved, wanted, (k >= 0.05) & (k <= 0.25)) > 0.99


def known(shape, doses):
    """Weights as exact as they can be."""
    nothing = np.zeros((1, len(doses)))
    return DoseWeights(w.normalise(shape, "sum")[None], K, doses, nothing, nothing, nothing, nothing, "sum", "truth")


def damage_and_blur(doses, rate, motion, per_frame):
    """Amplitudes (frame, shell) of frames of ``per_frame`` e/A^2: damage at a rate of the 300 kV curve, times blur that grows with its square."""
    early = motion * np.exp(-doses / 2.0) * per_frame ** 2
    return exposure_amplitude(doses, K) ** rate * np.exp(-early[:, None] * (0.3 + 60.0 * K ** 2 / 4.0))


@pytest.mark.parametrize("per_frame", [0.6, 2.4])
@pytest.mark.parametrize("motion", [0.0, 1.0])
@pytest.mark.parametrize("rate", [0.75, 1.0, 1.25, 2.0])
def test_frames_of_another_dose_take_no_damage_for_motion_nor_motion_for_damage(rate, motion, per_frame):
    doses = per_frame * (np.arange(int(36 / per_frame)) + 0.5)
    moved = w.resample(known(damage_and_blur(DOSES, rate, motion, 1.2), DOSES), 0, doses, K)
    assert snr_kept(moved, damage_and_blur(doses, rate, motion, per_frame)) > 0.995


def test_two_late_frames_that_differ_are_not_believed_a_rate_of_damage():
    """An error of 8 A^2 in the last frame must not make early frames look blurred."""
    doses, longer = DOSES[:9], 2.4 * (np.arange(4) + 0.5)
    shape = exposure_amplitude(doses, K)
    shape[-1] *= np.exp(-8.0 * K ** 2 / 4.0)
    assert snr_kept(w.resample(known(shape, doses), 0, longer, K), exposure_amplitude(longer, K)) > 0.99


@pytest.mark.parametrize("rate", [0.75, 1.0, 1.25, 2.0])
def test_frames_before_the_stored_ones_have_what_damage_took_until_then(rate):
    """Weights of movies that were exposed before, used for movies that were not."""
    later = DOSES + 30.0
    moved = w.resample(known(exposure_amplitude(later, K) ** rate, later), 0, DOSES, K)
    assert snr_kept(moved, exposure_amplitude(DOSES, K) ** rate) > 0.999
    rising = known(np.exp(0.05 * later)[:, None] * np.ones(len(K)), later)          # no damage at all: nothing to give back
    np.testing.assert_allclose(w.resample(rising, 0, DOSES[:2], K), 0.5)


@pytest.mark.parametrize("times", [0.4, 1.0, 2.0])
def test_faster_and_slower_damage_is_found(times):
    """A microscope or a specimen whose damage is not the published: many particles show it whatever the prior says."""
    shape = motion_shape()[0] * exposure_amplitude(DOSES, K) ** (times - 1.0)
    assert snr_kept(fitted(table_of(shape, 4000)).weight[0], shape) > 0.995
    b_factor = np.exp(-4.0 * DOSES[:, None] * K ** 2 / 4.0)
    assert snr_kept(fitted(table_of(b_factor, 4000)).weight[0], b_factor) > 0.995


def test_frames_of_other_length_do_not_make_weights_rise():
    found = fitted(table_of(motion_shape(b_first=200.0)[0], MUCH), normalisation="peak")
    for dose in (0.5, 2.0, 3.0):
        moved = w.resample(found, 0, dose * (np.arange(int(36 / dose)) + 0.5), K)
        for column in moved.T:
            assert (np.diff(column[column.argmax():]) <= 1e-9).all()


def test_a_group_without_data_does_not_ask_for_more_movies():
    from refmotion_plugin.contract.weighting import snr_lost_to_errors
    shape, free = (2, len(DOSES)), 1.0 - 1.0 / len(DOSES)
    error = np.array([0.01, 0.5])[:, None] * np.ones(shape)
    weights = DoseWeights(np.ones(shape + (len(K),)), K, DOSES, np.ones(shape), np.ones(shape), np.zeros(shape), error, "sum", "fit")
    assert snr_lost_to_errors(weights, [0]) == pytest.approx(1e-4 * free) and snr_lost_to_errors(weights) == pytest.approx(0.25 * free) == snr_lost_to_errors(weights, [0, 1])


def test_one_frame_loses_nothing_to_the_error_of_its_weight():
    """Whatever its weight, it is all there is."""
    from refmotion_plugin.contract.weighting import snr_lost_to_errors
    one = np.ones((1, 1))
    assert snr_lost_to_errors(DoseWeights(np.ones((1, 1, len(K))), K, DOSES[:1], one, one, 0 * one, 0.5 * one, "sum", "fit")) == 0.0


def test_each_optics_group_is_fitted_beside_the_curve_of_its_own_voltage():
    """Few particles give the standard curve: of 300 kV in one group, of 200 kV, where damage is faster, in the other."""
    table = FccTable(K, DOSES, *[np.full((2, len(DOSES), len(K)), v) for v in (1e-9, 1.0, 1.0, 1e-6)])
    found = w.fit_dose_weights(table, [300.0, 200.0])
    for group, voltage in enumerate((300.0, 200.0)):
        alone = w.fit_dose_weights(table, voltage)
        np.testing.assert_array_equal(found.weight[group], alone.weight[group])
    assert np.abs(found.weight[0] - found.weight[1]).max() > 0.01
