"""What scores can tell: differences with errors, and a choice that held-out scores may overrule.

Items (particles) stand in groups (movies). Given the trajectories, the noise that scores carry is independent from item to
item, so items give the error of what was won on *these* groups; the scatter between groups says how it would differ on others.
"""
import math

import numpy as np


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


def exceeds(values, group, standard_errors):
    """Whether the sum of ``values`` (item,) is larger than so many of its cautious errors."""
    return bool(values.sum() > standard_errors * cautious_error(values, group))


def choose(evidence, scores, group, standard_errors):
    """Name of the most probable candidate, unless the first one predicts held-out data clearly better; and the margins.

    ``evidence`` {name: log probability} from the simplest candidate on; ``scores`` {name: (item,)}, lower is better. Margins
    {name: (how much worse than the chosen, error)}.
    """
    first = next(iter(evidence))
    chosen = max(evidence, key=evidence.get)
    if exceeds(scores[chosen] - scores[first], group, standard_errors):
        chosen = first
    worse = {name: values - scores[chosen] for name, values in scores.items()}
    return chosen, {name: (float(value.sum()), cautious_error(value, group)) for name, value in worse.items()}
