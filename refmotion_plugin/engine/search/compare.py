"""What scores can tell: differences with errors, and choices that are judged on other items than those they were made on.

Items (particles) stand in groups (movies). Given the trajectories, the noise that scores carry is independent from item to
item, so items give the error of what was won on *these* groups; the scatter between groups says how it would differ on others.
"""
import math

import numpy as np

FOLDS = 5


def error_over_items(values, group):
    """Standard error of the sum of ``values`` (item,), from the scatter of items inside their ``group`` (item,).

    A group of one item counts with the square of its value.
    """
    total = 0.0
    for name in np.unique(group):
        own = values[group == name]
        total += float(own[0] ** 2) if len(own) == 1 else len(own) * float(np.var(own, ddof=1))
    return math.sqrt(total)


def error_over_groups(values, group):
    """Standard error of the sum from the scatter of the groups' sums; infinite for a single group."""
    sums = group_sums(values, group)
    return float(np.std(sums, ddof=1)) * math.sqrt(len(sums)) if len(sums) > 1 else math.inf


def group_sums(values, group):
    """Sum of ``values`` per group, in the order of the groups' numbers."""
    return np.array([values[group == name].sum() for name in np.unique(group)])


def cautious_error(values, group):
    """The larger of both errors; that of the items alone where there is one group."""
    between = error_over_groups(values, group)
    return max(error_over_items(values, group), between if math.isfinite(between) else 0.0)


def folds_of(group, count=FOLDS):
    """Fold (item,) of each item: every group is dealt out evenly, so each fold has a part of each."""
    group = np.asarray(group)
    fold = np.empty(len(group), dtype=int)
    for name in np.unique(group):
        members = np.flatnonzero(group == name)
        fold[members] = np.arange(len(members)) % count
    return fold


def held_out_scores(scores, fold):
    """Scores (item,) of the column that is best on the *other* folds: what a choice among columns is worth, without its luck.

    ``scores`` (item, column), lower is better; not a number counts as infinitely bad. With a single item, or one column, there is
    nothing to hold out.
    """
    scores = np.where(np.isnan(scores), np.inf, scores)
    held = scores[:, int(np.argmin(scores.sum(axis=0)))].copy()
    for number in np.unique(fold):
        inside = fold == number
        if not inside.all():
            held[inside] = scores[inside, int(np.argmin(scores[~inside].sum(axis=0)))]
    return held


def choose(candidates, group, standard_errors):
    """Name of the first candidate that no later one beats clearly, and {name: (margin, error)} of all against it.

    ``candidates`` {name: held-out scores (item,)} from the simplest to the richest; a later one must be better than the one
    chosen so far by ``standard_errors`` of the difference. Margins are positive where a candidate is worse than the chosen.
    """
    names = list(candidates)
    chosen = names[0]
    for name in names[1:]:
        won = candidates[chosen] - candidates[name]
        if won.sum() > standard_errors * cautious_error(won, group):
            chosen = name
    worse = {name: scores - candidates[chosen] for name, scores in candidates.items()}
    return chosen, {name: (float(value.sum()), cautious_error(value, group)) for name, value in worse.items()}
