"""How this movie moves: the prior's parameters scaled by the movie's own evidence.

Beam-induced motion differs from movie to movie by factors; a strength that fits one lets noise into the tracks of a movie that
hardly moves. The evidence says which factors are the most probable.
"""
import math
from dataclasses import replace
from typing import NamedTuple

from .correlate import CorrelationMaps
from .evidence import Measured, log_evidence, measured_around
from .fit import Fit, Metric
from .prior import MotionPrior


class Scales(NamedTuple):
    """Factors of a movie: of velocities and accelerations together, of the common shift, of the course's acceleration, of accelerations
    alone, of what is stronger at first, of the correlation distance."""

    motion: float = 1.0
    shift: float = 1.0
    common: float = 1.0
    acceleration: float = 1.0
    early: float = 1.0
    distance: float = 1.0


TRIED = Scales(motion=(0.03, 0.1, 0.3, 1.0, 3.0, 9.0), shift=(0.1, 0.3, 1.0, 2.0), common=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
               acceleration=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0), early=(0.01, 0.1, 0.3, 1.0, 3.0), distance=(0.3, 0.55, 1.0, 1.8, 3.3))
# one after the other, and back again: they depend on each other
ORDER = ("motion", "distance", "acceleration", "early", "common", "shift", "common", "early", "acceleration", "distance", "motion")


def scaled(hyper, *scales):
    """Hyperparameters times the :class:`Scales` given in their order, the rest 1. Jitter stays: it is no part of the ice's motion, and
    with it would fall the errors that are claimed for still movies."""
    by = Scales(*scales)
    return replace(hyper, velocity_sigma=hyper.velocity_sigma * by.motion, acceleration_sigma=hyper.acceleration_sigma * by.motion * by.acceleration,
                   common_sigma=hyper.common_sigma * by.common, global_angstrom=hyper.global_angstrom * by.shift,
                   early_factor=hyper.early_factor * by.early, correlation_distance_angstrom=hyper.correlation_distance_angstrom * by.distance)


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
    """The hyperparameters with this movie's most probable :class:`Scales`.

    Scales have log-normal priors of width ``hyper.movie_spread`` around 1; 0 returns ``hyper`` as it is.
    """
    if hyper.movie_spread <= 0:
        return hyper
    return scaled(hyper, *own_scales(hyper, measured_around(fit, maps, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom))[0])


def own_scales(hyper, measured: Measured):
    """The most probable :class:`Scales` of a movie for a set with ``movie_spread`` > 0; and the logarithm of the share of their prior
    that the movie leaves them (<= 0): evidence at the most probable scales times this share is about the evidence of all scales."""
    def evidence(trials):
        hypers = [scaled(hyper, *trial) for trial in trials]
        if hyper.correlated_acceleration:
            return log_evidence(hypers, measured)
        return prior_evidence(measured.prior(hypers), measured.deviation, measured.curvature)

    def score(trials):
        found = [value - lost_by_scales(hyper, trial) for value, trial in zip(evidence(trials).tolist(), trials)]
        if any(map(math.isnan, found)):
            raise ValueError("the evidence of a movie's own motion is not a number: %s at %s" % (found, trials))
        return found

    found, width = Scales(), {}
    for name in ORDER:
        if _matters(name, hyper, measured):
            tried = getattr(TRIED, name)
            scale, sd = _peak(tried, score([found._replace(**{name: one}) for one in tried]), hyper.movie_spread)
            found, width[name] = found._replace(**{name: scale}), sd
    return found, sum(math.log(sd / hyper.movie_spread) for sd in width.values())


def lost_by_scales(hyper, scales):
    """Minus the logarithm of the scales' log-normal prior, 0 where all are 1."""
    return sum(math.log(scale) ** 2 for scale in scales) / (2 * hyper.movie_spread ** 2)


def _matters(name, hyper, measured):
    if name in ("shift", "common") and not hyper.global_angstrom > 0:
        return False
    return {"common": hyper.common_sigma > 0 and measured.course_yx_angstrom is not None, "early": hyper.early_factor > 0,
            "distance": len(measured.deviation) > 1}.get(name, True)


def _peak(scales, scores, widest):
    """Scale of the highest score, refined by the parabola through it and its neighbours in the logarithm of the scale, and that
    logarithm's standard deviation: ``widest`` at most, and where there is no peak."""
    best = max(range(len(scales)), key=scores.__getitem__)
    if best in (0, len(scales) - 1):
        return scales[best], widest
    x = [math.log(scales[i]) for i in (best - 1, best, best + 1)]
    y = [scores[i] for i in (best - 1, best, best + 1)]
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    bend = 2 * (right - left) / (x[2] - x[0])
    if bend >= 0:
        return scales[best], widest
    top = 0.5 * (x[0] + x[1]) - left / bend
    return math.exp(min(max(top, x[0]), x[2])), min(widest, (-bend) ** -0.5)
