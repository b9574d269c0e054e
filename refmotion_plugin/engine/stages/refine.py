"""Families of priors, each led to its most probable parameters; a ledger keeps every trial with its score per particle."""
import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from refmotion_plugin.contract.records import Hyperparameters
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS

from ..search import compare
from .probable import STILL_SIGMA, Probable, most_probable, own_probability
from .validate import TuningSet, rigid

ROUNDS = {"fast": 2, "balanced": 3, "extensive": 4}
DEFAULT_FAMILY = "default prior"
# families of one interface: how the start is changed into each
FAMILIES = {"smooth field": {}, "rough field": {"kernel": "exponential"},
            "still ice": {"velocity_sigma": STILL_SIGMA, "acceleration_sigma": STILL_SIGMA}}
ROUGHER = 2.0               # an exponential kernel of this many times the distance is about as wide as a Matern one

@dataclass(frozen=True)
class Tested:
    """One trial: where it came from, its hyperparameters, ``scores`` per particle and the activity in A."""

    kind: str
    family: str
    hyperparameters: Hyperparameters
    scores: np.ndarray
    activity: float
    place: dict

    @property
    def total(self):
        """Sum of the scores; infinite where it is not a number."""
        total = float(self.scores.sum())
        return total if math.isfinite(total) else math.inf


class Ledger:
    """Evaluates hyperparameters on the tuning set and remembers all of them, beside the score of rigid motion."""

    def __init__(self, tuning_set: TuningSet):
        self.tuning_set, self.tested = tuning_set, []
        self.movie_of = tuning_set.movie_of
        self.rigid = self.evaluate("rigid", "rigid motion", [rigid(DEFAULT_HYPERPARAMETERS)])[0].scores

    def evaluate(self, kind, family, hypers, places=None):
        """Trials of ``hypers``, in their order. ``places``: what else the journal says of each."""
        scores, activities = self.tuning_set.evaluate(hypers)
        fresh = [Tested(kind, family, h, scores[:, i], float(activities[i]), places[i] if places else {}) for i, h in enumerate(hypers)]
        self.tested += fresh
        return fresh

    @property
    def can_judge(self):
        """Whether the held-out band holds anything to judge by: where it does not, all scores are nought, rigid motion's too."""
        return bool(self.rigid.any())

    def gain(self, scores):
        """(gain over rigid motion, its standard error over particles) of scores per particle."""
        won = self.rigid - scores
        return float(won.sum()), compare.error_over_items(won, self.movie_of)

    def journal(self):
        """One record per trial, ready for JSON lines."""
        rows = []
        for trial in self.tested:
            gain, error = self.gain(trial.scores)
            finite = lambda value: value if math.isfinite(value) else None
            rows.append(dict(kind=trial.kind, family=trial.family, score=finite(float(trial.scores.sum())), gain=finite(gain),
                             gain_error=finite(error), activity_angstrom=finite(trial.activity),
                             hyperparameters=asdict(trial.hyperparameters), **trial.place))
        return rows


@dataclass(frozen=True)
class Candidate:
    """A family's most probable hyperparameters: its scores per particle and the logarithm of its evidence with all priors.

    ``found``: the climb's own account, None for the default prior, which is taken as it is.
    """

    family: str
    hyperparameters: Hyperparameters
    scores: np.ndarray
    evidence: float
    found: Probable = None


def refine_families(ledger: Ledger, ray_best: Hyperparameters, thoroughness, progress):
    """Candidates of all families, the default prior first. ``fast`` takes the smooth field only, ``extensive`` climbs from both starts."""
    tuning_set, names = ledger.tuning_set, list(FAMILIES)[:1] if thoroughness == "fast" else list(FAMILIES)
    progress(0, len(names), "refinement")
    candidates = [_candidate(ledger, "default", DEFAULT_FAMILY, DEFAULT_HYPERPARAMETERS, own_probability(tuning_set, DEFAULT_HYPERPARAMETERS))]
    starts = [replace(DEFAULT_HYPERPARAMETERS, movie_spread=0.0), replace(ray_best, movie_spread=0.0)]
    if thoroughness != "extensive":
        starts = [max(starts, key=lambda h: own_probability(tuning_set, h))]
    for index, name in enumerate(names):
        climbs = [most_probable(tuning_set, _as_family(name, start), ROUNDS[thoroughness]) for start in starts]
        found = max(climbs, key=lambda c: c.evidence)
        candidates.append(_candidate(ledger, "most probable", name, found.hyperparameters, found.evidence, found))
        progress(index + 1, len(names), "refinement")
    return candidates


def _candidate(ledger, kind, family, hyper, evidence, found=None):
    trial = ledger.evaluate(kind, family, [hyper], [{"log_evidence": evidence}])[0]
    return Candidate(family, hyper, trial.scores, evidence, found)


def _as_family(name, start):
    changes = FAMILIES[name]
    if changes.get("kernel", start.kernel) != start.kernel:
        start = replace(start, correlation_distance_angstrom=ROUGHER * start.correlation_distance_angstrom)
    return replace(start, **changes)
