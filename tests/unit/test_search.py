"""The search's mechanics, on functions whose optimum is known; and what scores can tell."""
import math

import numpy as np
import pytest

from refmotion_plugin.engine.search import compare
from refmotion_plugin.engine.search.pattern import PatternSearch
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


# ---- pattern ----------------------------------------------------------------------------------------------------------------

def minimise(function, center, steps, **options):
    search = PatternSearch(list(center), list(steps), function(center), **options)
    while not search.over:
        points = search.ask()
        scores = [function(p) for p in points]
        proposed = search.combined(scores)
        search.tell(points + [proposed], scores + [function(proposed)])
    return search


def test_a_quadratic_bowl_is_found_at_once():
    search = minimise(lambda p: (p[0] - 0.6) ** 2 + 3 * (p[1] + 0.4) ** 2, (0.0, 0.0), (0.7, 0.5), smallest=1e-3, max_rounds=12)
    assert np.allclose(search.center, (0.6, -0.4), atol=1e-9) and search.score == pytest.approx(0.0, abs=1e-12)


def test_a_far_optimum_is_walked_to():
    search = minimise(lambda p: abs(p[0] - 5.0) + abs(p[1] - 0.2), (0.0, 0.0), (1.0, 0.5), max_rounds=30, smallest=0.01)
    assert np.allclose(search.center, (5.0, 0.2), atol=0.05)


def test_noise_does_not_lead_far_away():
    rng = np.random.default_rng(0)
    ends = [minimise(lambda p: 10 * (p[0] - 0.3) ** 2 + 10 * (p[1] - 0.3) ** 2 + 0.3 * rng.normal(), (0.0, 0.0), (0.7, 0.7)).center
            for _ in range(20)]
    assert np.sqrt(np.square(np.array(ends) - 0.3).mean()) < 0.25


def test_steps_are_halved_where_nothing_improves_and_the_search_ends():
    search = PatternSearch([0.0], [1.0], 0.0, smallest=0.3)
    asked = []
    while not search.over:
        asked.append([p[0] for p in search.ask()])
        assert not search.tell(search.ask(), [1.0, 1.0])
    assert asked == [[-1.0, 1.0], [-0.5, 0.5]] and search.ask() == [] and search.center == [0.0]


def test_the_search_ends_after_its_rounds():
    search = minimise(lambda p: -p[0], (0.0,), (1.0,), max_rounds=3)
    assert search.rounds == 3 and search.center == [3.0]


def test_scores_that_are_no_numbers_are_not_taken():
    search = PatternSearch([0.0], [1.0], 5.0)
    assert search.combined([math.nan, 4.0]) == [1.0]
    assert search.tell([[-1.0], [1.0]], [math.nan, 4.0]) and search.center == [1.0]


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


def test_folds_have_a_part_of_every_movie():
    group = np.repeat([0, 1, 2], [10, 11, 2])
    fold = compare.folds_of(group, 5)
    assert [np.bincount(fold[group == g], minlength=5).max() - np.bincount(fold[group == g], minlength=5).min() for g in range(3)] == [0, 1, 1]


def test_a_choice_among_noise_gains_nothing_where_it_is_held_out():
    """The best of many columns of noise looks good; judged on particles that did not choose it, it is worth nothing."""
    rng, group = np.random.default_rng(2), np.zeros(200, int)
    looks, held = [], []
    for _ in range(100):
        scores = rng.normal(size=(200, 40))
        looks.append(scores.sum(0).min())
        held.append(compare.held_out_scores(scores, compare.folds_of(group)).sum())
    assert np.mean(looks) < -25 and abs(np.mean(held)) < 4 * np.std(held) / 10


def test_a_clear_winner_is_held_out_as_itself():
    scores = np.random.default_rng(3).normal(size=(50, 6))
    scores[:, 4] -= 3.0
    np.testing.assert_array_equal(compare.held_out_scores(scores, compare.folds_of(np.zeros(50, int))), scores[:, 4])
    scores[:, 2] = np.nan
    np.testing.assert_array_equal(compare.held_out_scores(scores, compare.folds_of(np.zeros(50, int))), scores[:, 4])
    assert compare.held_out_scores(scores[:1], np.zeros(1, int)) == scores[0, [0, 1, 3, 4, 5]].min()


def noisy(mean, n=100, seed=0):
    return mean + np.random.default_rng(seed).normal(size=n)


def test_a_richer_candidate_must_win_clearly():
    group, simple = np.repeat([0, 1], 50), noisy(0.0)
    better = simple - noisy(0.05, seed=1)           # 5 of 100 particles' scatter of 10
    chosen, margins = compare.choose({"simple": simple, "rich": better}, group, 2.0)
    assert chosen == "simple" and margins["simple"] == (0.0, 0.0)
    assert margins["rich"][0] == pytest.approx((better - simple).sum()) and margins["rich"][1] > 5
    chosen, margins = compare.choose({"simple": simple, "rich": simple - noisy(1.0, seed=1)}, group, 2.0)
    assert chosen == "rich" and margins["simple"][0] > 0 and margins["rich"] == (0.0, 0.0)


def test_the_third_must_beat_the_second_that_won():
    group, first = np.repeat([0, 1], 50), noisy(0.0)
    second = first - noisy(1.0, seed=1)
    third = second - noisy(0.01, seed=2)
    assert compare.choose({"a": first, "b": second, "c": third}, group, 2.0)[0] == "b"


def test_one_movie_that_gains_much_does_not_choose_for_all():
    group, simple = np.repeat([0, 1, 2, 3], 25), np.zeros(100)
    rich = np.where(group == 0, -4.0, 0.0) + 0.1 * noisy(0.0)
    assert compare.choose({"simple": simple, "rich": rich}, group, 2.0)[0] == "simple"
