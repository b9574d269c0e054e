"""The most probable hyperparameters of a tuning set: climbs of the low band's evidence around fits, until fits and prior agree."""
import logging
import math
from dataclasses import dataclass, replace
from typing import Dict, List

import numpy as np
import torch

from refmotion_plugin.contract.records import Hyperparameters
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS

from ..motion.adapt import Scales, lost_by_scales, own_scales, scaled
from ..motion.evidence import Measured, log_evidence, measure
from ..search.climb import Parameter, climb, errors, log_prior
from .validate import TuningSet

# lowest, highest, and how many natural logarithms from the default are nothing special
_RANGE = {"velocity_sigma": (0.002, 20.0, 2.0), "acceleration_sigma": (0.0005, 20.0, 2.0), "correlation_distance_angstrom": (200.0, 5e4, 1.0),
          "early_factor": (0.02, 200.0, 1.5), "early_dose_e_per_A2": (0.5, 20.0, 0.7), "jitter_angstrom": (0.005, 2.0, 0.5),
          "global_angstrom": (0.005, 3.0, 2.0), "common_sigma": (0.002, 20.0, 2.0)}
PARAMETERS = tuple(Parameter(name, low, high, getattr(DEFAULT_HYPERPARAMETERS, name), width) for name, (low, high, width) in _RANGE.items())
STILL_SIGMA = 1e-5                                     # A per e/A^2: a field this strong moves nothing, and none of its parameters can be told
_FIELD = ("velocity_sigma", "acceleration_sigma", "correlation_distance_angstrom")
NOISE = Parameter("noise_factor", 0.75, 1.6, 1.0, 0.1)
MAX_ITERATIONS = 12
JITTER_NODES = np.linspace(-2.5, 2.5, 11)               # widths of the jitter's prior from its typical value
NOISE_STEP = 0.02                                      # in the logarithm of the noise factor: about its error
SPREADS = (0.0, 0.25, 0.5, 1.0, 1.5)
SPREAD_MARGIN = 2.0                                    # in the logarithm of the evidence, before movies differ
SPREAD_NODES = np.linspace(-3.0, 3.0, 13)              # natural logarithms of a movie's own strength

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probable:
    """Where a climb ended: ``evidence`` is the logarithm of the evidence times all priors; ``errors`` {name: of the natural logarithm}."""

    hyperparameters: Hyperparameters
    evidence: float
    noise_factor: float
    errors: Dict[str, float]


def searched(hyper):
    """The parameters of a set that are not switched off: at zero, or of a field that keeps still."""
    still = hyper.velocity_sigma <= STILL_SIGMA
    return tuple(p for p in PARAMETERS if getattr(hyper, p.name) > 0 and not (still and p.name in _FIELD))


def most_probable(tuning_set: TuningSet, start: Hyperparameters, rounds):
    """Climb from ``start``, with the same strength for every movie; then see whether movies differ, and if so climb once more.

    Each round fits anew under what the last one found.
    """
    place = dict({p.name: getattr(start, p.name) for p in PARAMETERS}, noise_factor=1.0)
    hyper, scales = replace(start, movie_spread=0.0), None
    for _ in range(rounds):
        hyper, place, data = _round(tuning_set, hyper, place, scales)
    spread = movie_spread(data, hyper)
    if spread > 0:
        hyper = replace(hyper, movie_spread=spread)
        hyper, place, data = _round(tuning_set, hyper, place, [own_scales(hyper, one)[0] for one in data.measured])
    if hyper.jitter_angstrom > 0:
        place = with_mean_jitter(data, place)
        hyper = data.at(place)
    sigma = errors(data.values_of, data.parameters, place)
    noise = place["noise_factor"]
    log.info("most probable %s kernel: noise factor %.3f, spread of movies %.2f; %s", hyper.kernel, noise, spread, ", ".join(
        "%s %.3g (ln ± %.2f)" % (p.name, place[p.name], sigma[p.name]) for p in data.parameters if p is not NOISE))
    return Probable(hyper, own_probability(tuning_set, hyper), noise, sigma)


def _round(tuning_set, hyper, place, scales):
    scales = scales or [Scales()] * len(tuning_set)
    data = _Linear(hyper, [measure(m.low, scaled(hyper, *s), *m.where)[0] for m, s in zip(tuning_set, scales)], scales)
    place, _ = climb(data.values_of, data.parameters, place, MAX_ITERATIONS)
    return data.at(place), place, data


@dataclass(frozen=True)
class _Linear:
    """The movies as measurements around fits, with each movie's own strength: what a climb asks."""

    start: Hyperparameters
    measured: List[Measured]
    scales: list

    @property
    def parameters(self):
        """What is looked for: all that is not switched off, and the noise factor."""
        return searched(self.start) + (NOISE,)

    def at(self, place):
        """The hyperparameters at {name: value}."""
        return replace(self.start, **{p.name: place[p.name] for p in self.parameters if p is not NOISE})

    def values_of(self, points):
        """Evidence (movie, b) at points of logarithms (b, n)."""
        names = [p.name for p in self.parameters]
        places = [dict(zip(names, row)) for row in np.exp(points)]
        hypers = [self.at(place) for place in places]
        noise = torch.tensor([place["noise_factor"] for place in places], dtype=torch.float64)
        return np.stack([log_evidence([scaled(h, *own) for h in hypers], one, noise).cpu().numpy()
                         for one, own in zip(self.measured, self.scales)])


def with_mean_jitter(data: _Linear, place):
    """``place`` {name: value} with the root mean square of the jitter, and the noise factor there, instead of where the climb ended.

    White jitter and noise that is a little more than thought look nearly alike: along a ridge of both the evidence is almost flat, and a
    climb ends anywhere on it. What standard deviations need is the mean of the jitter's variance over the ridge; the other parameters stay.
    """
    jitter = next(p for p in PARAMETERS if p.name == "jitter_angstrom")
    nodes = np.clip(jitter.typical * np.exp(jitter.width * JITTER_NODES), jitter.low, jitter.high)
    curvature = float(torch.stack([one.curvature.mean() for one in data.measured]).mean())
    ridge = place["noise_factor"] - curvature * (nodes ** 2 - place["jitter_angstrom"] ** 2)       # here the sum of both variances stays the same
    weight, noise = _over_noise(data, place, nodes, np.log(np.clip(ridge, NOISE.low, NOISE.high)))
    return dict(place, jitter_angstrom=math.sqrt(weight @ nodes ** 2), noise_factor=math.exp(weight @ noise))


def _over_noise(data: _Linear, place, jitters, noises):
    """Weights (node,) of jitters with the noise factor integrated out, and its logarithm's most probable value beside each.

    A parabola is integrated: the one through the logarithms ``noises`` (node,) and a step to either side.
    """
    names, steps = [p.name for p in data.parameters], NOISE_STEP * np.array([-1.0, 0.0, 1.0])
    points = np.tile(np.log([place[name] for name in names]), (len(jitters) * 3, 1))
    points[:, names.index("jitter_angstrom")] = np.log(np.repeat(jitters, 3))
    points[:, names.index(NOISE.name)] = (noises[:, None] + steps).ravel()
    score = (data.values_of(points).sum(axis=0) + log_prior(data.parameters, points)).reshape(-1, 3)
    bend = np.minimum((score[:, 0] - 2 * score[:, 1] + score[:, 2]) / NOISE_STEP ** 2, -NOISE.width ** -2)
    slope = (score[:, 2] - score[:, 0]) / (2 * NOISE_STEP)
    weight = score[:, 1] - 0.5 * slope ** 2 / bend - 0.5 * np.log(-bend)
    weight = np.exp(weight - weight.max())
    return weight / weight.sum(), noises - slope / bend


def movie_spread(data: _Linear, hyper):
    """The most probable of ``SPREADS``, integrated over each movie's own motion, shift and course; 0 unless another is clearly better."""
    tables = []
    for one in data.measured:
        for name in ("motion", "shift", "common"):
            hypers = [scaled(hyper, *Scales(**{name: math.exp(v)})) for v in SPREAD_NODES]
            tables.append(log_evidence(hypers, one).cpu().numpy())
    gain = [_integrated(np.array(tables), spread) for spread in SPREADS]
    best = int(np.argmax(gain))
    return SPREADS[best] if gain[best] > gain[0] + SPREAD_MARGIN else 0.0


def _integrated(tables, spread):
    """Sum over rows of the log evidence, integrated over the nodes with a normal weight of width ``spread``."""
    if spread == 0:
        return float(tables[:, len(SPREAD_NODES) // 2].sum())
    weight = np.exp(-0.5 * (SPREAD_NODES / spread) ** 2)
    top = tables.max(axis=1, keepdims=True)
    return float((np.log((np.exp(tables - top) * (weight / weight.sum())).sum(axis=1)) + top[:, 0]).sum())


def own_probability(tuning_set: TuningSet, hyper):
    """Logarithm of the evidence of all movies under one set, each with its own strength if the set allows that, times all priors."""
    total = 0.0
    for movie in tuning_set:
        measured, evidence = measure(movie.low, hyper, *movie.where)
        if hyper.movie_spread > 0:
            own, share = own_scales(hyper, measured)
            evidence = measure(movie.low, scaled(hyper, *own), *movie.where)[1]
            evidence += share - lost_by_scales(hyper, own)
        total += evidence
    free = searched(hyper)
    return total + float(log_prior(free, np.log([[getattr(hyper, p.name) for p in free]]))[0])
