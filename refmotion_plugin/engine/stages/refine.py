"""Families of priors, each refined around its start; a ledger keeps every trial with its score per particle."""
import logging
import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from refmotion_plugin.contract.records import Hyperparameters
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS

from ..search import compare
from ..search.pattern import PatternSearch
from .validate import TuningSet, rigid

ROUNDS = {"fast": 2, "balanced": 4, "extensive": 8}
FAMILY_MARGIN = 2.0            # standard errors by which a richer family must win
FEW_PARTICLES = 200            # below, only the first parameters of each family are searched
FEW_PARAMETERS = 3
DEFAULT_FAMILY = "default prior"

_EXPONENTIAL = dict(kernel="exponential", correlated_acceleration=False, jitter_angstrom=0.0, global_angstrom=0.0, movie_spread=0.0,
                    acceleration_sigma=9.0, correlation_distance_angstrom=6000.0)


@dataclass(frozen=True)
class Family:
    """A kind of prior: the parameters searched, most telling ones first, and how the start is changed into it."""

    name: str
    parameters: tuple
    changes: dict


FAMILIES = (
    Family("constant strengths", ("velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma"),
           dict(_EXPONENTIAL, early_factor=0.0, velocity_sigma=1.0)),
    Family("strengths that fall with dose", ("velocity_sigma", "correlation_distance_angstrom", "early_factor", "early_dose_e_per_A2",
                                             "acceleration_sigma"), dict(_EXPONENTIAL, early_factor=8.0, velocity_sigma=0.5)),
    Family("field with jitter", ("acceleration_sigma", "correlation_distance_angstrom", "velocity_sigma", "jitter_angstrom",
                                        "early_factor", "early_dose_e_per_A2", "global_angstrom"), {}),
)
ROUGH = dict(kernel="exponential", correlation_distance_angstrom=3000.0)
STEP = {"velocity_sigma": 0.7, "correlation_distance_angstrom": 0.5, "acceleration_sigma": 0.7, "early_factor": 0.7,
        "early_dose_e_per_A2": 0.5, "jitter_angstrom": 0.7, "global_angstrom": 0.6}       # natural logarithms

log = logging.getLogger(__name__)


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

    def evaluate(self, kind, family, hypers, scales=None, places=None):
        """Trials of ``hypers``, in their order. ``places``: what else the journal says of each."""
        scores, activities = self.tuning_set.evaluate(hypers, scales)
        fresh = [Tested(kind, family, h, scores[:, i], float(activities[i]), places[i] if places else {}) for i, h in enumerate(hypers)]
        self.tested += fresh
        return fresh

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
    """A family's best hyperparameters and its scores per particle, each by a choice in which the particle had no part."""

    family: str
    hyperparameters: Hyperparameters
    held_out: np.ndarray


def default_candidate(ledger: Ledger):
    """The default prior as it is: nothing is chosen, so nothing is held out."""
    trial = ledger.evaluate("default", DEFAULT_FAMILY, [DEFAULT_HYPERPARAMETERS])[0]
    return Candidate(DEFAULT_FAMILY, trial.hyperparameters, trial.scores)


def refine_families(ledger: Ledger, ray_best: Hyperparameters, thoroughness, progress):
    """Candidates of all families, simplest first, the default prior among them."""
    families = FAMILIES[-1:] if thoroughness == "fast" else FAMILIES
    candidates = [default_candidate(ledger)]
    progress(0, len(families), "refinement")
    for index, family in enumerate(families):
        candidates.append(refine_family(ledger, family, _starts(family, ray_best), ROUNDS[thoroughness]))
        progress(index + 1, len(families), "refinement")
    return candidates


def _starts(family, ray_best):
    """Points from which a family may be refined: the default, the default with a rougher field and the ray's best; or its own."""
    if family.changes:
        return [replace(DEFAULT_HYPERPARAMETERS, **family.changes)]
    return [DEFAULT_HYPERPARAMETERS, replace(DEFAULT_HYPERPARAMETERS, **ROUGH), ray_best,
            replace(ray_best, movie_spread=DEFAULT_HYPERPARAMETERS.movie_spread)]


def refine_family(ledger: Ledger, family: Family, starts, rounds):
    """Refine the better of some starts; the movies' own strengths are held meanwhile and found again at the end."""
    start = min(ledger.evaluate("start", family.name, starts), key=lambda t: t.total).hyperparameters
    scales = ledger.tuning_set.scales(start) if start.movie_spread > 0 else None
    few = len(ledger.movie_of) < FEW_PARTICLES
    trials = refine(ledger, family.name, start, family.parameters[:FEW_PARAMETERS] if few else family.parameters, rounds, scales)
    best = min(trials, key=lambda t: t.total)
    held_out = compare.held_out_scores(np.stack([t.scores for t in trials], axis=1), compare.folds_of(ledger.movie_of))
    finals = [best.hyperparameters] if start.movie_spread > 0 else [replace(best.hyperparameters,
                                                                           movie_spread=DEFAULT_HYPERPARAMETERS.movie_spread)]
    final = ledger.evaluate("own strength", family.name, finals)[0]
    if start.movie_spread > 0 or final.total < best.total:
        return Candidate(family.name, final.hyperparameters, held_out + final.scores - best.scores)
    return Candidate(family.name, best.hyperparameters, held_out)


def refine(ledger: Ledger, family, start, parameters, rounds, scales=None):
    """Pattern search in the logarithms of some parameters; returns its trials."""
    def at(point):
        return replace(start, **{p: math.exp(v) for p, v in zip(parameters, point)})

    def trials_of(points):
        return ledger.evaluate("refine", family, [at(p) for p in points], scales)

    center = [math.log(getattr(start, p)) for p in parameters]
    trials = trials_of([center])
    search = PatternSearch(center, [STEP[p] for p in parameters], trials[0].total, max_rounds=rounds)
    while not search.over:
        points = search.ask()
        fresh = trials_of(points)
        proposed = search.combined([t.total for t in fresh])
        points, fresh = points + [proposed], fresh + trials_of([proposed])
        search.tell(points, [t.total for t in fresh])
        trials += fresh
    return trials
