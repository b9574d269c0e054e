"""The search's mechanics, on functions whose optimum is known; and what scores can tell."""
import math

import numpy as np
import pytest

from refmotion_plugin.engine.search import compare
from refmotion_plugin.engine.search.climb import Parameter, climb, errors
from refmotion_plugin.engine.search.rays import Ray, RaySearch, spread_rays


def rays(n=2, first=0.5, factor=2.0, last=8.0, still=0.1):
    return RaySearch(spread_rays(n, (1000.0,)), first, factor, last, still)


# ---- rays -------------------------------------------------------------------------------------------------------------------

def test_rays_stand_between_the_axes_at_every_height():
    found = spread_rays(3, (700.0, 1500.0))
    assert [round(math.degrees(r.theta)) for r in found] == [15, 45, 75] * 2 and [r.z for r in found] == [700.0] * 3 + [1500.0] * 3


def test_rays_go_outward_together_by_the_factor_until_the_maximum():
    search, asked = rays(), []
    while search.ask():
        asked.append(search.ask())
        search.tell([(1.0, 1.0)] * len(search.ask()))
    assert asked == [[(0, r), (1, r)] for r in (0.5, 1.0, 2.0, 4.0, 8.0)]
    assert search.retired == {0: "maximum strength", 1: "maximum strength"} and search.last_activity == 1.0


def test_a_ray_retires_when_nothing_moves_and_the_others_go_on():
    search = rays()
    search.tell([(3.0, 0.05), (2.0, 0.5)])
    assert search.retired == {0: "nothing moves any more"} and search.ask() == [(1, 1.0)]
    search.tell([(5.0, 0.5)])
    assert search.ask() == [(1, 2.0)] and search.last_activity == 0.5


def test_a_ray_retires_when_its_score_is_no_number_and_is_never_the_best():
    search = rays()
    search.tell([(math.nan, 1.0), (2.0, 1.0)])
    search.tell([(-math.inf, 1.0)])
    assert search.retired == {0: "score is not finite", 1: "score is not finite"} and not search.ask()
    assert search.best.ray == 1 and search.best.score == 2.0


def test_the_best_point_is_the_lowest_of_all_rays_and_iterations():
    search, bottom = rays(5, first=0.1, factor=1.5, last=50.0), 3.0
    while search.ask():
        search.tell([(abs(math.log(r / bottom)) + abs(search.rays[i].theta - math.pi / 4), 1.0) for i, r in search.ask()])
    assert search.best.ray == 2 and abs(math.log(search.best.r / bottom)) <= math.log(1.5) / 2


def test_a_search_without_any_score_says_so():
    search = rays(1)
    search.tell([(math.nan, 1.0)])
    with pytest.raises(ValueError, match="no point"):
        search.best
    with pytest.raises(ValueError, match="2 values for 0 points"):
        search.tell([(1.0, 1.0), (1.0, 1.0)])


@pytest.mark.parametrize("wrong", [dict(first=0.0), dict(factor=1.0), dict(last=0.1)])
def test_impossible_rays_are_refused(wrong):
    with pytest.raises(ValueError, match="needs rays"):
        rays(**wrong)
    with pytest.raises(ValueError, match="needs rays"):
        RaySearch([], 1.0, 2.0, 4.0, 0.1)
    assert Ray(0.1, 2.0).z == 2.0


# ---- climbing ---------------------------------------------------------------------------------------------------------------

WIDE = (Parameter("a", 1e-3, 1e3, 1.0, 100.0), Parameter("b", 1e-3, 1e3, 1.0, 100.0))


def hill(tops, bends=(200.0, 50.0)):
    """Each group's log probability: a quadratic hill in the logarithms around its own top."""
    return lambda points: np.stack([-0.5 * (np.array(bends) / len(tops) * np.square(points - np.log(top))).sum(axis=1) for top in tops])


def test_the_top_of_all_groups_together_is_climbed():
    place, value = climb(hill([(2.0, 0.5), (8.0, 0.5)]), WIDE, {"a": 1.0, "b": 1.0}, 50)
    assert place["a"] == pytest.approx(4.0, rel=0.01) and place["b"] == pytest.approx(0.5, rel=0.02)
    assert value == pytest.approx(-0.5 * 200 * np.log(2.0) ** 2, abs=0.1)


def test_what_data_do_not_say_stays_typical_and_limits_hold():
    shy = (Parameter("a", 0.5, 3.0, 1.0, 1.0), Parameter("b", 1e-3, 1e3, 7.0, 1.0))
    place, _ = climb(hill([(100.0, 1.0)], (200.0, 0.0)), shy, {"a": 1.0, "b": 7.0}, 50)
    assert place["a"] == pytest.approx(3.0) and place["b"] == pytest.approx(7.0, rel=1e-3)
    assert climb(hill([(9.0, 1.0)], (200.0, 0.0)), shy, {"a": 90.0, "b": 7.0}, 1)[0]["a"] <= 3.0 + 1e-9
    half, _ = climb(hill([(9.0, 1.0)], (1.0, 0.0)), (Parameter("a", 1e-3, 1e3, 1.0, 1.0), shy[1]), {"a": 1.0, "b": 7.0}, 50)
    assert half["a"] == pytest.approx(3.0, rel=0.02)              # as much prior as data: half way in the logarithm


def test_errors_are_those_of_the_curvature_or_of_the_groups_scatter():
    alike = hill([(2.0, 0.5)] * 4)
    found = errors(alike, WIDE, {"a": 2.0, "b": 0.5})
    assert found["a"] == pytest.approx(200 ** -0.5, rel=0.01) and found["b"] == pytest.approx(50 ** -0.5, rel=0.01)
    tops = np.exp(np.random.default_rng(0).normal(size=(12, 2)))
    center = dict(zip("ab", np.exp(np.log(tops).mean(axis=0))))
    found = errors(hill(tops), WIDE, center)
    expected = np.log(tops).std(axis=0, ddof=1) / 12 ** 0.5
    assert [found["a"], found["b"]] == pytest.approx(np.maximum(expected, [200 ** -0.5, 50 ** -0.5]), rel=0.01)


def test_where_nothing_is_known_the_error_is_that_of_the_prior():
    shy = (Parameter("a", 1e-3, 1e3, 1.0, 0.7),)
    assert errors(lambda points: np.zeros((1, len(points))), shy, {"a": 1.0}) == {"a": pytest.approx(0.7)}
    rising = errors(lambda points: 5.0 * points[None, :, 0] ** 2, shy, {"a": 1.0})
    assert rising["a"] == pytest.approx(0.7)                      # a hollow is no top


# ---- what scores can tell -----------------------------------------------------------------------------------------------------

def test_the_error_of_a_sum_is_its_scatter():
    rng, group = np.random.default_rng(1), np.repeat(np.arange(4), 25)
    sums = [rng.normal(3.0, 2.0, size=100).sum() for _ in range(2000)]
    errors = [compare.error_over_items(rng.normal(3.0, 2.0, size=100), group) for _ in range(200)]
    assert np.mean(errors) == pytest.approx(np.std(sums), rel=0.05)


def test_what_differs_between_movies_is_no_noise_of_particles():
    group, values = np.repeat(np.arange(3), 10), np.repeat([1.0, 5.0, 30.0], 10)
    assert compare.error_over_items(values, group) == 0.0
    assert compare.error_over_groups(values, group) == pytest.approx(np.std([10, 50, 300], ddof=1) * math.sqrt(3))
    assert compare.cautious_error(values, group) == compare.error_over_groups(values, group)
    assert list(compare.group_sums(values, group)) == [10.0, 50.0, 300.0]


def test_with_one_movie_the_error_comes_from_the_particles():
    values, group = np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4, int)
    assert compare.error_over_groups(values, group) == math.inf
    assert compare.cautious_error(values, group) == pytest.approx(math.sqrt(4 * np.var(values, ddof=1)))
    assert compare.error_over_items(np.array([3.0]), np.array([0])) == 3.0


def test_the_most_probable_candidate_is_taken_with_margins_of_all():
    group, scores = np.repeat([0, 1], 50), np.random.default_rng(0).normal(size=(3, 100))
    by_name = {"default": scores[0], "smooth": scores[0] - 1.0, "rough": scores[0] + 0.5}
    chosen, margins = compare.choose({"default": -9.0, "smooth": 5.0, "rough": 4.0}, by_name, group, 2.0)
    assert chosen == "smooth" and margins["smooth"] == (0.0, 0.0)
    assert margins["default"][0] == pytest.approx(100.0) and margins["rough"][0] == pytest.approx(150.0)


def test_the_first_candidate_stays_where_it_predicts_clearly_better():
    group, noise = np.repeat([0, 1], 50), np.random.default_rng(0).normal(size=100)
    lost = noise - noise.mean() + 0.15                            # 15 +- about 10 worse than the first
    evidence = {"default": 0.0, "smooth": 50.0}
    assert compare.choose(evidence, {"default": np.zeros(100), "smooth": lost}, group, 2.0)[0] == "smooth"
    chosen, margins = compare.choose(evidence, {"default": np.zeros(100), "smooth": 3 * lost - 2 * (noise - noise.mean())}, group, 2.0)
    assert chosen == "default" and margins["default"] == (0.0, 0.0) and margins["smooth"][0] == pytest.approx(45.0)
