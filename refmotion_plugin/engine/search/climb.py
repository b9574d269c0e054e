"""Most probable values of positive parameters: a function over groups of data, summed, times a log-normal prior for each parameter."""
import math
from dataclasses import dataclass

import numpy as np

STEP = 1e-3             # in the logarithms, for gradients
WIDE_STEP = 0.05        # for curvatures
ENOUGH = 0.05           # a gain of less in the logarithm of the probability ends a climb


@dataclass(frozen=True)
class Parameter:
    """A positive parameter: its limits, its ``typical`` value and the standard deviation ``width`` of its natural logarithm around that."""

    name: str
    low: float
    high: float
    typical: float
    width: float


def log_prior(parameters, points):
    """Logarithm of the prior (b,) at points (b, n) of logarithms, 0 at the typical values."""
    typical, width = np.log([p.typical for p in parameters]), np.array([p.width for p in parameters])
    return -0.5 * np.square((points - typical) / width).sum(axis=1)


def climb(values_of, parameters, start, max_iterations):
    """Climb from ``start`` {name: value} to the most probable values near by; returns ({name: value}, log probability).

    ``values_of(points (b, n)) -> (group, b)`` logarithms of the probability of each group's data at points of natural logarithms in
    the order of ``parameters``; all points of a gradient are asked for at once. Limited-memory quasi-Newton steps within the
    limits (Byrd, Lu, Nocedal & Zhu 1995, by scipy).
    """
    limits = [(math.log(p.low), math.log(p.high)) for p in parameters]
    center = np.clip(np.log([start[p.name] for p in parameters]), *np.transpose(limits))
    last = values_of(center[None]).sum()

    def falling(point):
        points = point + np.vstack([np.zeros(len(point)), STEP * np.eye(len(point))])
        value = -(values_of(points).sum(axis=0) + log_prior(parameters, points))
        return value[0], (value[1:] - value[0]) / STEP

    from scipy.optimize import minimize         # here: it slows every start, and workers do not need it
    found = minimize(falling, center, jac=True, method="L-BFGS-B", bounds=limits,
                     options={"maxiter": max_iterations, "ftol": ENOUGH / max(abs(last), 1.0)})
    return {p.name: float(v) for p, v in zip(parameters, np.exp(found.x))}, float(-found.fun)


def errors(values_of, parameters, place):
    """Standard errors {name: of the natural logarithm} at the most probable values ``place`` {name: value}.

    The larger of two: what the curvature of all data says, and what the scatter of the groups' slopes says about other groups
    (the sandwich; White 1982, Econometrica 50:1). One group has no scatter.
    """
    n, center = len(parameters), np.log([place[p.name] for p in parameters])
    unit = WIDE_STEP * np.eye(n)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    points = center + np.vstack([np.zeros((1, n)), unit, -unit] + [(unit[i] + unit[j])[None] for i, j in pairs])
    values = np.asarray(values_of(points))
    slope = (values[:, 1:n + 1] - values[:, n + 1:2 * n + 1]) / (2 * WIDE_STEP)
    total = values.sum(axis=0) + log_prior(parameters, points)
    up, down = total[1:n + 1], total[n + 1:2 * n + 1]
    curvature = np.diag(2 * total[0] - up - down)
    for (i, j), both in zip(pairs, total[2 * n + 1:]):
        curvature[i, j] = curvature[j, i] = up[i] + up[j] - total[0] - both
    inverse = _inverse_positive(curvature / WIDE_STEP ** 2, np.array([p.width for p in parameters]))
    variance = np.diag(inverse)
    groups = len(values)
    if groups > 1:
        scatter = groups * np.cov(slope.T).reshape(n, n)
        variance = np.maximum(variance, np.diag(inverse @ scatter @ inverse))
    return {p.name: float(math.sqrt(v)) for p, v in zip(parameters, variance)}


def _inverse_positive(curvature, width):
    """Inverse of a curvature that is nowhere below the prior's, 1 / width^2: what data do not bend, the prior does."""
    value, vector = np.linalg.eigh(curvature * width[:, None] * width)
    return (vector / np.maximum(value, 1.0)) @ vector.T * width[:, None] * width
