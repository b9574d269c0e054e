"""How strongly this movie moves: the prior's strength scaled by the movie's own evidence.

Beam-induced motion differs from movie to movie by factors; a strength that fits one lets noise into the tracks of a movie that
hardly moves. Around a first fit the correlation is close to quadratic with the expected curvature h, so each particle and frame
acts as one measurement y = d + force / h of the deviation with variance 1 / h. The evidence of a Gaussian prior given such
measurements is closed form (the determinant comes with the fit's metric), so no further fit is needed to choose.
Source of the principle: MacKay 1992, Neural Computation 4:415-447 (evidence for strengths of priors).
"""
import math
from dataclasses import replace

import torch

from .correlate import CorrelationMaps
from .evidence import evidence_of_scales
from .fit import Fit, Metric
from .prior import MotionPrior, build_prior

MOTION_SCALES = (0.03, 0.1, 0.3, 1.0, 3.0, 9.0)
GLOBAL_SCALES = (0.1, 0.3, 1.0, 2.0)
LEAST_CURVATURE = 1e-6     # 1/A^2: frames without signal measure nothing


def scaled(hyper, motion, shift):
    """Hyperparameters with velocity, acceleration and jitter times ``motion`` and the global shift times ``shift``."""
    return replace(hyper, velocity_sigma=hyper.velocity_sigma * motion, acceleration_sigma=hyper.acceleration_sigma * motion,
                   jitter_angstrom=hyper.jitter_angstrom * motion, global_angstrom=hyper.global_angstrom * shift)


def log_evidence(prior: MotionPrior, measured, curvature):
    """log p(measured | prior) up to a constant, both axes together, (b,).

    ``measured`` (P, F, 2) A; ``curvature`` (F,) inverse variances per axis. With the optimum x of the quadratic problem,
    -2 log p = sum h y^2 - x^T M x + 2 axes * log det M, M the metric of the whitened coordinates.
    """
    batch = prior.shape[0]
    metric = Metric(prior, curvature.expand(batch, -1))
    force = prior.adjoint((curvature[:, None] * measured).expand(batch, -1, -1, -1))
    solution = metric.solve(*force)
    gained = sum((f * x).flatten(1).sum(-1) for f, x in zip(force, solution))
    return 0.5 * gained - metric.log_determinant()


def adapt_strength(hyper, fit: Fit, maps: CorrelationMaps, position_yx_angstrom, dose_e_per_A2):
    """The hyperparameters with this movie's strengths: most probable scales of motion and of the global shift.

    Scales have log-normal priors of width ``hyper.movie_spread`` around 1; 0 returns ``hyper`` as it is.
    """
    if hyper.movie_spread <= 0:
        return hyper
    curvature = maps.curvature.mean(0).to(torch.float64).clamp(min=LEAST_CURVATURE)
    measured = fit.deviation[0] + fit.force[0] / curvature[:, None]

    def evidence(pairs):
        if hyper.correlated_acceleration:
            return evidence_of_scales(hyper, pairs, measured, curvature, position_yx_angstrom, dose_e_per_A2)
        prior = build_prior([scaled(hyper, *pair) for pair in pairs], position_yx_angstrom, dose_e_per_A2)
        return log_evidence(prior, measured, curvature)

    def score(pairs):
        penalty = [sum(math.log(v) ** 2 for v in pair) / (2 * hyper.movie_spread ** 2) for pair in pairs]
        return (evidence(pairs).cpu() - torch.tensor(penalty, dtype=torch.float64)).tolist()

    motion = _peak(MOTION_SCALES, score([(m, 1.0) for m in MOTION_SCALES]))
    shift = _peak(GLOBAL_SCALES, score([(motion, g) for g in GLOBAL_SCALES])) if hyper.global_angstrom > 0 else 1.0
    motion = _peak(MOTION_SCALES, score([(m, shift) for m in MOTION_SCALES]))
    return scaled(hyper, motion, shift)


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
