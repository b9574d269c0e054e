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
NOISE = Parameter("noise_factor", 0.75, 1.6, 1.0, 0.1)
MAX_ITERATIONS = 12
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
    sigma = errors(data.values_of, data.parameters, place)
    noise = place["noise_factor"]
    log.info("most probable %s kernel: noise factor %.3f, spread of movies %.2f; %s", hyper.kernel, noise, spread, ", ".join(
        "%s %.3g (ln +- %.2f)" % (p.name, place[p.name], sigma[p.name]) for p in data.parameters if p is not NOISE))
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
        """What is looked for: all strengths that are not switched off, and the noise factor."""
        return tuple(p for p in PARAMETERS if getattr(self.start, p.name) > 0) + (NOISE,)

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
    searched = [p for p in PARAMETERS if getattr(hyper, p.name) > 0]
    return total + float(log_prior(searched, np.log([[getattr(hyper, p.name) for p in searched]]))[0])
