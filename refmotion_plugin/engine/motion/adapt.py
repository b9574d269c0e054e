"""How strongly this movie moves: the prior's strength scaled by the movie's own evidence.

Beam-induced motion differs from movie to movie by factors; a strength that fits one lets noise into the tracks of a movie that
hardly moves. The evidence says which factor is the most probable.
"""
import math
from dataclasses import replace

import torch

from .correlate import CorrelationMaps
from .evidence import Measured, log_evidence, measured_around
from .fit import Fit, Metric
from .prior import MotionPrior

MOTION_SCALES = (0.03, 0.1, 0.3, 1.0, 3.0, 9.0)
GLOBAL_SCALES = (0.1, 0.3, 1.0, 2.0)
ORDER = (0, 2, 1, 2, 0)          # motion, course, shift and again: the last two of the course and the shift depend on each other
COMMON_SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def scaled(hyper, motion, shift, common=1.0):
    """Hyperparameters with velocity, acceleration and jitter times ``motion``, the global shift times ``shift``, the course's acceleration
    times ``common``."""
    return replace(hyper, velocity_sigma=hyper.velocity_sigma * motion, acceleration_sigma=hyper.acceleration_sigma * motion,
                   common_sigma=hyper.common_sigma * common, jitter_angstrom=hyper.jitter_angstrom * motion,
                   global_angstrom=hyper.global_angstrom * shift)


def prior_evidence(prior: MotionPrior, measured, curvature):
    """log p(measured | prior) up to a constant, both axes together, (b,).

    ``measured`` (P, F, 2) A; ``curvature`` (F,) inverse variances per axis. With the optimum x of the quadratic problem,
    -2 log p = sum h y^2 - x^T M x + 2 axes * log det M, M the metric of the whitened coordinates, y from the mean of the shift.
    """
    batch = prior.shape[0]
    metric = Metric(prior, curvature.expand(batch, -1))
    centred = measured - prior.shift.mean[:, None]
    force = prior.adjoint(curvature[:, None] * centred)
    solution = metric.solve(*force)
    gained = sum((f * x).flatten(1).sum(-1) for f, x in zip(force, solution))
    lost = (curvature[:, None] * (centred ** 2 - measured ** 2)).sum((1, 2, 3))
    return 0.5 * (gained - lost) - metric.log_determinant() + prior.shift.log_probability


def adapt_strength(hyper, fit: Fit, maps: CorrelationMaps, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom=None):
    """The hyperparameters with this movie's strengths: most probable scales of motion and of the global shift.

    Scales have log-normal priors of width ``hyper.movie_spread`` around 1; 0 returns ``hyper`` as it is.
    """
    if hyper.movie_spread <= 0:
        return hyper
    return scaled(hyper, *own_scales(hyper, measured_around(fit, maps, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom)))


def own_scales(hyper, measured: Measured):
    """The most probable (motion, shift, common) of a movie for a set with ``movie_spread`` > 0."""
    def evidence(pairs):
        if hyper.correlated_acceleration:
            return log_evidence([scaled(hyper, *pair) for pair in pairs], measured)
        return prior_evidence(measured.prior([scaled(hyper, *pair) for pair in pairs]), measured.deviation, measured.curvature)

    def score(pairs):
        penalty = [sum(math.log(v) ** 2 for v in pair) / (2 * hyper.movie_spread ** 2) for pair in pairs]
        return (evidence(pairs).cpu() - torch.tensor(penalty, dtype=torch.float64)).tolist()

    free = (MOTION_SCALES, GLOBAL_SCALES if hyper.global_angstrom > 0 else (1.0,),
            COMMON_SCALES if hyper.common_sigma > 0 and hyper.global_angstrom > 0 and measured.course_yx_angstrom is not None else (1.0,))
    found = [1.0, 1.0, 1.0]
    for which in ORDER:
        found[which] = _peak(free[which], score([found[:which] + [scale] + found[which + 1:] for scale in free[which]]))
    return tuple(found)


def _peak(scales, scores):
    """Scale of the highest score, refined by the parabola through it and its neighbours in the logarithm of the scale."""
    best = max(range(len(scales)), key=scores.__getitem__)
    if best in (0, len(scales) - 1):
        return scales[best]
    x = [math.log(scales[i]) for i in (best - 1, best, best + 1)]
    y = [scores[i] for i in (best - 1, best, best + 1)]
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    bend = (right - left) / (x[2] - x[0])
    if bend >= 0:
        return scales[best]
    top = 0.5 * (x[0] + x[1]) - left / (2 * bend)
    return math.exp(min(max(top, x[0]), x[2]))
