"""The verdict's arithmetic on numbers that are known, and the verdict on simulated movies."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.spec import PriorSpec
from refmotion_plugin.contract.store import save_fcc
from refmotion_plugin.contract.verdict import CANNOT_TELL, GAIN, NO_GAIN, NOT_JUDGED, WRONG, Finding, JudgedMovie
from refmotion_plugin.engine.dose.gain import WeightScore, score_weights
from refmotion_plugin.engine.maths.fourier import spread_from_shells
from refmotion_plugin.engine.optics.resolution import expected_resolution
from refmotion_plugin.engine.run.verdict import gather_evidence
from refmotion_plugin.engine.stages import align, judged, verdict, weigh

from tests.unit.test_weights import DOSES, K, motion_shape, table_of

BAND = (K >= 1 / 20) & (K <= 1 / 4)


def movies(gain, error, start=100.0, particles=50, count=4, seed=0, unknown=0.0):
    """Judged movies whose total gain has about the given share and standard error."""
    rng = np.random.default_rng(seed)
    n = particles * count
    won = rng.normal(size=n)
    won = (won - won.mean()) * error * start * n ** 0.5 + gain * start
    at_start = np.full(n, start) + rng.normal(size=n)
    return [JudgedMovie(np.zeros(particles, np.int32), np.arange(particles), (at_start + won)[i::count], at_start[i::count],
                        np.full(particles, unknown))
            for i in range(count)]


SPECTRUM = verdict.Spectrum(K, np.where(BAND, 1.0, 0.0) / BAND.sum())


@pytest.mark.parametrize("gain, error, word", [(0.05, 0.005, GAIN), (-0.001, 0.0005, NO_GAIN), (0.005, 0.02, CANNOT_TELL), (0.05, 0.04, CANNOT_TELL)])
def test_words_follow_gain_and_error(gain, error, word):
    finding, (b_factor, b_error) = verdict.judge_trajectories(movies(gain, error), SPECTRUM)
    assert finding.word == word and finding.gain == pytest.approx(gain, rel=0.02, abs=1e-4)
    assert 0.5 * error < finding.error < 2 * error and np.sign(b_factor) == np.sign(gain) and b_error > 0


def test_no_gain_needs_motion_that_is_known():
    finding, _ = verdict.judge_trajectories(movies(-0.001, 0.0005, unknown=0.1), SPECTRUM)
    assert finding.word == CANNOT_TELL and "0.32" in finding.text
    assert verdict.judge_trajectories(movies(-0.001, 0.0005, unknown=0.01), SPECTRUM)[0].word == NO_GAIN
    assert verdict.judge_trajectories(movies(0.05, 0.005, unknown=0.1), SPECTRUM)[0].word == GAIN


def test_the_b_factor_is_that_of_the_signal_lost():
    lost = np.exp(-20.0 * K ** 2 / 4.0)
    share = np.where(BAND, 1.0, 0.0) / BAND.sum()                 # with the better trajectories
    gain = 1.0 / (share * lost).sum() - 1.0
    assert verdict.Spectrum(K, share).b_factor_A2(gain) == pytest.approx(20.0, abs=1e-6)
    assert verdict.Spectrum(K, share).b_factor_A2(-0.02) < 0


@pytest.mark.parametrize("won", [-0.5, -0.99, -1.02, -3.0])
def test_trajectories_that_lose_all_that_was_seen_are_no_gain(won):
    """Less than nothing is left of the log-likelihood, as noise has it: no B-factor explains that."""
    finding, (b_factor, _) = verdict.judge_trajectories(movies(won, 0.01), SPECTRUM)
    assert finding.word == NO_GAIN and b_factor < -20


def crowded(sizes, gain, scatter, seed):
    """Judged movies of so many particles, whose gains per particle scatter from movie to movie."""
    rng = np.random.default_rng(seed)
    made = []
    for n in sizes:
        start = 100.0 + 30.0 * rng.normal(size=n)
        won = gain * start + rng.normal(size=n) + scatter * rng.normal()
        made.append(JudgedMovie(np.zeros(n, np.int32), np.arange(n), start + won, start, np.zeros(n)))
    return made


@pytest.mark.parametrize("sizes", [(30,) * 8, (30, 3, 30, 3, 30, 3, 30, 3), (30, 15, 8, 4, 2, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize("scatter", [0.0, 1.0])
def test_movies_with_few_particles_beside_full_ones_make_no_error(sizes, scatter):
    """The error of a gain is what it scatters by, however many particles each movie has."""
    found = [verdict.judge_trajectories(crowded(sizes, 0.03, scatter, seed), SPECTRUM)[0] for seed in range(300)]
    real, told = np.std([f.gain for f in found]), np.sqrt(np.mean([f.error ** 2 for f in found]))
    assert np.mean([f.word == GAIN for f in found]) > 0.95 and np.mean([f.gain for f in found]) == pytest.approx(0.03, rel=0.02)
    assert 0.9 * real < told < 1.45 * real


def test_movies_that_show_nothing_cannot_be_judged():
    finding, b_factor = verdict.judge_trajectories(movies(0.5, 1.0, start=0.001), SPECTRUM)
    assert finding.word == CANNOT_TELL and finding.gain is None and b_factor == (None, None)
    assert verdict.judge_trajectories([], SPECTRUM)[0].word == NOT_JUDGED


def test_better_weights_score_better_by_as_much_as_they_keep():
    shape, _, _ = motion_shape(c_first=0.3, b_first=150.0)
    table, standard = table_of(shape, 40000), exposure_amplitude(DOSES, K)
    score = score_weights(table, 0, shape, standard, BAND)
    kept = lambda w: (w * shape).sum(0) / np.sqrt((w ** 2).sum(0))
    expected = (0.06 * np.exp(-40 * K ** 2) * np.sqrt(table.power_reference[0, 0]) * kept(shape))[BAND].sum()
    assert score.mine == pytest.approx(expected, rel=0.02)
    gain, error = score.gain
    assert gain > 5 * error > 0
    assert score_weights(table, 0, 7.0 * standard, standard, BAND).gain == pytest.approx((0.0, 0.0), abs=1e-7)


def test_the_error_of_a_weights_gain_is_its_scatter():
    shape, _, _ = motion_shape()
    standard = exposure_amplitude(DOSES, K)
    gains, errors = zip(*[score_weights(table_of(shape, 300, seed), 0, shape, np.ones_like(shape), BAND).gain for seed in range(40)])
    assert np.std(gains) == pytest.approx(np.mean(errors), rel=0.35)
    both = score_weights(table_of(shape, 300, 0), 0, shape, standard, BAND) + score_weights(table_of(shape, 300, 1), 0, shape, standard, BAND)
    assert both.variance > 0 and WeightScore().gain[1] == np.inf


def test_resolution_follows_the_b_factor():
    k = np.arange(60) / 200.0
    ratio = 400.0 * np.exp(-250.0 * k ** 2 / 2)
    wanted = (np.log(400 * (1 - 0.143) / 0.143) / 125.0) ** -0.5
    change = expected_resolution(wanted, k, ratio / (1 + ratio), 0.0, 5.0, 0.0, 0.0)
    assert change.before == wanted == pytest.approx(change.after) and change.error > 0
    assert expected_resolution(wanted, k, ratio / (1 + ratio), 30.0, 0.0, 0.0, 0.0).after == pytest.approx(wanted * (220 / 250) ** 0.5, rel=1e-3)
    assert expected_resolution(wanted, k, ratio / (1 + ratio), 0.0, 0.0, 0.1, 0.01).after < change.before
    assert expected_resolution(wanted, k[:20], (ratio / (1 + ratio))[:20], 0.0, 0.0, 0.0, 0.0) is None        # to Nyquist
    assert expected_resolution(wanted, k, np.zeros(60), 1.0, 1.0, 0.0, 0.0) is None


def test_resolution_before_is_the_half_maps_own():
    """An FSC that ends sooner than its straight line: what is expected starts where it ends, and nothing is expected where that goes nowhere sure."""
    k = np.arange(60) / 200.0
    ratio = 400.0 * np.exp(-250.0 * k ** 2 / 2)
    fsc = np.where(k > 0.22, 0.0, ratio / (1 + ratio))
    change = expected_resolution(4.6, k, fsc, 30.0, 3.0, 0.0, 0.0)
    assert change.before == 4.6 and change.after == pytest.approx(4.6 * (220 / 250) ** 0.5, rel=1e-3) and 0 < change.error < 0.1
    assert expected_resolution(4.6, k, fsc, 150.0, 60.0, 0.0, 0.0) is None


@pytest.mark.parametrize("trajectories, weights, against", [
    (NO_GAIN, NO_GAIN, "the input motion and the standard exposure curve"), (NO_GAIN, NOT_JUDGED, "the input motion"),
    (NOT_JUDGED, NO_GAIN, "the standard exposure curve")])
def test_no_gain_is_told_over_what_was_judged_alone(trajectories, weights, against):
    findings = [Finding(word, None, None, "") for word in (trajectories, weights)]
    assert verdict._overall(*findings, ()) == NO_GAIN
    assert verdict._sentence(NO_GAIN, *findings, (None, None), None, ()) == "No gain over %s." % against


def test_the_sentence_joins_the_numbers_that_there_are():
    none, weights = Finding(NOT_JUDGED, None, None, ""), Finding(CANNOT_TELL, -0.0004, 0.008, "")
    said = "Whether there is a gain cannot be told from these data"
    by_weighting = "signal-to-noise ratio by weighting +0.0 ± 0.8 %."
    assert verdict._sentence(CANNOT_TELL, none, weights, (None, None), None, ()) == "%s: %s" % (said, by_weighting)
    assert verdict._sentence(CANNOT_TELL, none, none, (None, None), None, ()).startswith("Nothing was judged: the input motion was kept")
    assert verdict._sentence(CANNOT_TELL, weights, weights, (-3.0, 2.2), None, ()) == "%s: B-factor higher by 3.0 ± 2.2 Å², %s" % (said, by_weighting)


def test_trajectories_that_lose_are_said_to_make_the_b_factor_higher():
    found, (b_factor, error) = verdict.judge_trajectories(movies(-0.1, 0.01), SPECTRUM)
    assert b_factor < 0 and "input motion: B-factor higher by %.1f ± %.1f Å² (" % (-b_factor, error) in found.text and "off the B-factor" not in found.text


# ---- on movies ------------------------------------------------------------------------------------------------------------------

def evidence_of(aligned):
    halves = tuple([a.fcc] for a in aligned)
    return SimpleNamespace(judged=[a.judged for a in aligned], totals=weigh.sum_tables([a.fcc for a in aligned]), halves=halves)


def changed_spec(job, part, **values):
    """The prepared job with other values in one part of its spec."""
    return replace(job, spec=job.spec.model_copy(update={part: getattr(job.spec, part).model_copy(update=values)}))


@pytest.fixture(scope="module")
def reached(aligned, calibrated):
    return verdict.reach_verdict(evidence_of(aligned), calibrated)


def test_moving_particles_gain(reached):
    assert reached.word == GAIN and reached.trajectories.word == GAIN and reached.b_factor_A2 > 3 * reached.b_factor_error_A2
    assert reached.particles == 24 and reached.movies == 2 and reached.warnings == ()
    assert reached.even_weights.gain > 0 and "B-factor lower by" in reached.text


def test_a_warning_makes_it_wrong(aligned, calibrated):
    found = verdict.reach_verdict(evidence_of(aligned), calibrated, ("half-sets are swapped",))
    assert found.word == WRONG and found.text == "The inputs look wrong: half-sets are swapped." and found.resolution_angstrom is None


def test_one_movie_is_not_enough_for_weights(aligned, calibrated):
    table = [aligned[0].fcc]
    evidence = SimpleNamespace(judged=[aligned[0].judged], totals=table, halves=(table, []))
    found = verdict.reach_verdict(evidence, calibrated)
    assert found.weights.word == NOT_JUDGED and found.trajectories.word in (GAIN, CANNOT_TELL)


def test_weights_that_were_given_are_not_judged(aligned, calibrated, reached):
    """They may have been fitted to these very movies, where they would win nothing but noise."""
    found = verdict.reach_verdict(evidence_of(aligned), changed_spec(calibrated, "dose", weights_file="w.npz"))
    assert found.weights.word == found.even_weights.word == NOT_JUDGED and found.weights.gain is None and "were given" in found.weights.text
    assert found.word == found.trajectories.word == GAIN and "weight" not in found.text and reached.weights.gain is not None


def test_the_b_factor_is_of_the_shells_that_trajectories_are_judged_by(aligned, calibrated):
    """With a part of the components the others have no share in the log-likelihood."""
    table = weigh.sum_tables([a.fcc for a in aligned])[0]
    part = changed_spec(calibrated, "alignment", all_components=False)
    whole, low = verdict.seen_spectrum(table, calibrated), verdict.seen_spectrum(table, part)
    beyond = low.frequency_per_angstrom > part.aligned_per_angstrom(0.95 * 0.5 / low.frequency_per_angstrom[-1])
    assert beyond.any() and not low.share[beyond].any() and low.share.sum() == pytest.approx(1.0)
    assert whole.share[beyond].any() and low.b_factor_A2(0.02) > whole.b_factor_A2(0.02)


def test_input_motion_that_is_kept_is_not_judged(tiny, calibrated):
    job = replace(calibrated, spec=calibrated.spec.model_copy(update={"motion_prior": PriorSpec(rigid=True)}))
    result = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), job)
    assert result.judged is None


def test_weights_are_judged_on_movies_that_they_have_not_seen(calibrated, monkeypatch):
    judged_on = []
    monkeypatch.setattr(verdict, "fit_weights", lambda tables, prepared: tables)
    monkeypatch.setattr(verdict, "_against_both", lambda table, found, groups, prepared: judged_on.append((table, found)) or ())
    odd, even = (SimpleNamespace(components=np.ones((1, 2, 3))) for _ in range(2))
    verdict.judge_weights(SimpleNamespace(halves=([odd], [even])), calibrated)
    assert judged_on == [(odd, [even]), (even, [odd])]


def of_group(table, group, groups=2):
    """The table of one group as one of several, the others without data."""
    place = lambda array: np.stack([array[0] if g == group else 0.0 * array[0] for g in range(groups)])
    return replace(table, **{name: place(getattr(table, name)) for name in ("cross", "power_movie", "power_reference", "components")})


def two_groups(job):
    """The prepared job with a second optics group."""
    first = next(iter(job.optics[0].values()))
    return replace(job, optics=({1: replace(first, number=1), 2: replace(first, number=2)},))


def test_a_group_is_judged_where_both_halves_have_data_of_it(calibrated):
    """Weights that no data were seen for are the exposure curve: they would win 0 ± 0 over it."""
    job, shape = two_groups(calibrated), motion_shape(c_first=0.3, b_first=150.0)[0]
    tables = [of_group(table_of(shape, 20000, seed), group) for seed, group in ((1, 0), (2, 1), (3, 0))]
    apart, _ = verdict.judge_weights(SimpleNamespace(halves=([tables[0]], [tables[1]])), job)
    assert apart.word == NOT_JUDGED and apart.gain is None and "no optics group is in two movies" in apart.text
    found, _ = verdict.judge_weights(SimpleNamespace(halves=([tables[0]], [tables[1] + tables[2]])), job)
    alone, _ = verdict.judge_weights(SimpleNamespace(halves=([tables[0]], [tables[2]])), job)
    assert found.word == GAIN and found == alone


@pytest.mark.parametrize("kinds", ["groups", "frames"])
def test_movies_that_take_turns_are_in_both_halves(tmp_path, kinds):
    """Every other movie of each optics group and kind: else one half would hold all of a group."""
    layout, keys = JobLayout(tmp_path), [str(i) for i in range(8)]
    for number, key in enumerate(keys):
        table = of_group(table_of(np.ones((len(DOSES), len(K))), 100), number % 2 if kinds == "groups" else 0)
        if kinds == "frames" and number % 2:
            table = replace(table, dose_e_per_A2=table.dose_e_per_A2 / 2)
        layout.fcc(key).parent.mkdir(parents=True)
        save_fcc(layout.fcc(key), table)
    data = [np.stack([t.components.sum((1, 2)) for t in half]) for half in gather_evidence(layout, keys).halves]
    assert data[0].all() == (kinds == "groups") and np.array_equal(*data) and len(data[0]) == (1 if kinds == "groups" else 2)


class PlainJudge(judged.Judge):
    """Beside the sums, the same from the formula: Re sum S D / sigma^2 Y exp(2 pi i k d) conj(A_opp), with whole planes."""

    def __init__(self, view, fit, model, amplitudes, unit):
        super().__init__(view, fit, model, amplitudes, unit)
        self.amplitudes, self.unit, self.expected = amplitudes, unit, 0.0

    def __call__(self, frames, spectra):
        super().__call__(frames, spectra)
        (frame,), spectrum = frames, spectra[:][0]
        y, x = self.grid.index_yx(dtype=torch.float64)
        offset = self.offset_px[:, :, frame].to(torch.float64)
        turn = 2 * np.pi / self.grid.size_px * (y[:, None] * offset[..., :1, None] + x * offset[..., 1:, None])
        scale = spread_from_shells(self.amplitudes[0].on(self.grid, "cpu") * self.unit, self.grid) * self.model.frame_filter(frame)
        plane = (spectrum[self.rows] * self.view.opposite[self.rows].conj())[:, None] * torch.polar(torch.ones_like(turn), turn)
        self.expected = self.expected + (plane * scale).real.sum((-2, -1))

    def result(self):
        np.testing.assert_allclose(self.total, self.expected, rtol=1e-3, atol=1e-3 * float(self.expected.abs().max()))
        PlainJudge.checked = len(self.rows)
        return super().result()


def test_the_judge_sums_what_the_formula_says(tiny, calibrated, monkeypatch):
    monkeypatch.setattr(align, "Judge", PlainJudge)
    align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), calibrated)
    assert PlainJudge.checked == 12


def test_the_evidence_is_of_all_movies_and_of_every_other_one(tmp_path):
    """Weights of one half are judged on the other: no movie may be in both."""
    layout, share = JobLayout(tmp_path), [1.0, 2.0, 4.0]
    for key, factor in zip("abc", share):
        table = table_of(np.ones((len(DOSES), len(K))), 100)
        path = layout.fcc(key)
        path.parent.mkdir(parents=True)
        save_fcc(path, replace(table, cross=factor * np.ones_like(table.cross)))
    found = gather_evidence(layout, list("abc"))
    sums = [[float(part.cross.mean()) for part in parts] for parts in (found.totals, *found.halves)]
    assert sums == [[7.0], [5.0], [2.0]] and found.judged == []
