"""Which movies the dose weights rest on, and that nothing but the job itself decides it."""
from dataclasses import replace

import numpy as np
import pytest

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.layout import content_hash
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.weighting import snr_lost_to_errors
from refmotion_plugin.engine.run import distribute, leaders
from refmotion_plugin.engine.run.executor import run_here
from refmotion_plugin.engine.run.job import run_job

from tests.unit.job_stand_ins import FakeStages, write_project

MOVIES = 9


class Stages(FakeStages):
    """Weights whose errors shrink with the movies they were fitted to, so that the tolerance decides; alignment differs by movie."""

    def align_movie(self, movie, particles, prepared, stack=None):
        aligned = super().align_movie(movie, particles, prepared, stack)
        number = 1 + int(movie.micrograph[-5])
        aligned.fcc = replace(aligned.fcc, cross=aligned.fcc.cross * number, components=np.ones_like(aligned.fcc.components))
        return aligned

    def fit_weights(self, tables, prepared):
        weights = super().fit_weights(tables, prepared)
        movies = tables[0].components.mean()
        return replace(weights, scale_error=0.115 / np.sqrt(movies) * np.ones_like(weights.scale))

    def numbers(self, name):
        return [c[1] for c in self.calls if c[0] == name]


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.setattr(leaders, "LEAST_PARTICLES", 4)
    monkeypatch.setattr(leaders, "LEAST_MOVIES", 2)
    monkeypatch.setattr(leaders, "GROWTH", 1.1)
    return tolerating(write_project(tmp_path / "project", movies=MOVIES), 0.0026)        # four movies: 0.01 / 4


def tolerating(spec, tolerance):
    return spec.model_copy(update={"dose": spec.dose.model_copy(update={"error_tolerance": tolerance})})


def go(folder, spec, stage="all", **faults):
    fake = Stages(**faults)
    return fake, run_job(folder, spec, stage, fake.recipes())


def weights_of(folder):
    return JobResults(folder).weights()


def test_the_order_is_a_permutation_whose_beginnings_are_spread():
    for count in (1, 2, 3, 9, 100, 257):
        assert sorted(leaders.spread_order(count)) == list(range(count))
    assert leaders.spread_order(9) == [0, 8, 4, 2, 6, 1, 3, 5, 7]
    for length in (5, 9, 33):
        first = np.sort(leaders.spread_order(1025)[:length])
        assert np.ptp(np.diff(first)) <= 1


def test_steps_rise_to_all_movies():
    assert leaders.steps([100] * 30, 0.001) == [5, 8, 13, 21, 30]
    assert leaders.steps([1000] * 6, 0.001) == [4, 6] and leaders.steps([3, 3], 0.001) == [2]
    assert leaders.steps([1000] * 6, 0.0) == [6]


def test_followers_are_decoded_once_and_leaders_twice(tmp_path, spec):
    fake, outcome = go(tmp_path / "OUT", spec)
    first = sorted(leaders.spread_order(MOVIES)[:4])
    assert outcome == ({}, 2 * MOVIES, 0)
    assert sorted(fake.numbers("align")) == sorted(fake.numbers("polish")) == list(range(MOVIES))
    loads = fake.numbers("load")
    assert [i for i in range(MOVIES) if loads.count(i) == 2] == first and len(loads) == MOVIES + 4
    weights = weights_of(tmp_path / "OUT")
    assert weights.source.endswith("of 8 particles in 4 of 9 movies")
    assert weights.weight.mean() == pytest.approx(2.1 * sum(1 + i for i in first))
    assert JobResults(tmp_path / "OUT").fcc_total().components.mean() == MOVIES            # the figures show all movies


def test_a_tolerance_of_zero_and_one_never_reached_take_all_movies(tmp_path, spec):
    for tolerance in (0.0, 1e-9):
        fake, _ = go(tmp_path / ("OUT%g" % tolerance), tolerating(spec, tolerance))
        assert fake.count("load") == 2 * MOVIES
        assert weights_of(tmp_path / ("OUT%g" % tolerance)).source.endswith("in 9 of 9 movies")


def test_stage_by_stage_finds_the_same_weights_and_images(tmp_path, spec):
    go(tmp_path / "whole", spec)
    for stage in ("align", "weigh", "polish"):
        go(tmp_path / "staged", spec, stage)
    whole, staged = (JobResults(tmp_path / name) for name in ("whole", "staged"))
    np.testing.assert_array_equal(whole.weights().weight, staged.weights().weight)
    assert whole.weights().source == staged.weights().source
    assert content_hash(whole.layout.weights) == content_hash(staged.layout.weights)
    assert go(tmp_path / "staged", spec)[0].calls == [] and go(tmp_path / "whole", spec, "weigh")[0].calls == []


def test_who_is_finished_first_does_not_matter(tmp_path, spec, monkeypatch):
    go(tmp_path / "in_order", spec)
    monkeypatch.setattr(distribute, "run_here", lambda tasks, place, **how: reversed(list(run_here(tasks[::-1], place, **how))))
    go(tmp_path / "backwards", spec)
    one, other = (JobResults(tmp_path / name) for name in ("in_order", "backwards"))
    assert content_hash(one.layout.weights) == content_hash(other.layout.weights)
    np.testing.assert_array_equal(one.fcc_total().cross, other.fcc_total().cross)


def test_movies_weigh_polish_read_followers_once_too(tmp_path, spec):
    fake, _ = go(tmp_path / "OUT", spec, "movies")
    assert fake.count("align") == fake.count("load") == MOVIES and fake.count("polish") == MOVIES - 4
    fake, _ = go(tmp_path / "OUT", spec, "weigh")
    assert fake.calls == ["reach_verdict"]                              # the weights are those found before
    fake, outcome = go(tmp_path / "OUT", spec, "polish")
    assert fake.count("polish") == 4 and outcome == ({}, 2 * MOVIES, 0)
    go(tmp_path / "whole", spec)
    assert content_hash(JobResults(tmp_path / "OUT").layout.weights) == content_hash(JobResults(tmp_path / "whole").layout.weights)
    only_aligned = spec.model_copy(update={"output": spec.output.model_copy(update={"stop_after": "dose-weights"})})
    assert go(tmp_path / "weights", only_aligned, "movies")[0].count("polish") == 0


@pytest.mark.parametrize("number, where", [(8, "align"), (2, "align"), (1, "align"), (7, "polish"), (0, "polish")])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path, spec, number, where):
    go(tmp_path / "undisturbed", spec)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "OUT", spec, broken={number: KeyboardInterrupt()}, broken_in=where)
    fake, outcome = go(tmp_path / "OUT", spec)
    assert outcome == ({}, 2 * MOVIES, 0)
    np.testing.assert_array_equal(weights_of(tmp_path / "OUT").weight, weights_of(tmp_path / "undisturbed").weight)
    assert go(tmp_path / "OUT", spec)[0].calls == []
    if where == "polish":
        assert fake.count("fit_weights") == 0                       # they were found before the run was killed


def test_a_leader_that_fails_is_left_out_and_comes_in_when_repaired(tmp_path, spec):
    _, outcome = go(tmp_path / "OUT", spec, broken={4: MovieError("cut off")})
    assert outcome.failed == {"M/mic_4.mrc": "cut off"} and weights_of(tmp_path / "OUT").source.endswith("in 4 of 9 movies")
    without = weights_of(tmp_path / "OUT").weight.mean()
    _, outcome = go(tmp_path / "OUT", spec)
    assert outcome == ({}, 2 * MOVIES, 0)
    go(tmp_path / "undisturbed", spec)
    assert weights_of(tmp_path / "OUT").weight.mean() == weights_of(tmp_path / "undisturbed").weight.mean() != without


def test_a_lower_tolerance_weighs_anew_and_polishes_all(tmp_path, spec):
    go(tmp_path / "OUT", spec)
    fake, _ = go(tmp_path / "OUT", tolerating(spec, 0.0))
    assert fake.count("align") == 0 and fake.count("polish") == MOVIES


def test_what_errors_cost_is_what_they_cost():
    rng, frames, draws = np.random.default_rng(3), 12, 4000
    fake = FakeStages().fit_weights([FakeStages().align_table(np.arange(4.0))], None)
    k, dose = np.linspace(0.05, 0.25, 9), np.arange(frames) * 1.2
    scale, b = np.exp(-dose / 20), 2.0 * dose
    relative, b_error = np.full(frames, 0.03), np.full(frames, 3.0)
    weight = scale[:, None] * np.exp(-b[:, None] * k ** 2 / 4)
    table = replace(fake, weight=weight[None], frequency_per_angstrom=k, dose_e_per_A2=dose, scale=scale[None], b_factor_A2=b[None],
                    scale_error=(scale * relative)[None], b_factor_error_A2=b_error[None])
    wrong = weight * np.exp(rng.normal(size=(draws, frames, 1)) * relative[:, None]
                            - rng.normal(size=(draws, frames, 1)) * b_error[:, None] * k ** 2 / 4)
    kept = (wrong * weight).sum(1) ** 2 / ((wrong ** 2).sum(1) * (weight ** 2).sum(0))
    assert snr_lost_to_errors(table) == pytest.approx(1 - kept.mean(), rel=0.03)
