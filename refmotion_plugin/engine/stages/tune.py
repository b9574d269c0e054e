"""Hyperparameters from the data: rays of prior strength, then a local refinement, judged by cross-validation between the half-maps.

Strengths are 1 / sigma in units of the default prior: (1 / sigma_V, 1 / sigma_A) = r sqrt(2) (cos theta, sin theta) in those units, so r = 1 at
45 degrees is the default; jitter and global shift fall with r beyond 1, so that infinite strength is rigid motion. z is the
correlation distance. Then all parameters of each family of priors are refined, and the family that predicts best is taken.
"""
import logging
import math
from dataclasses import asdict, dataclass, replace
from typing import Dict, List

import numpy as np

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.records import Hyperparameters
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS

from ..search.pattern import PatternSearch
from ..search.rays import RaySearch, spread_rays
from .load import forget_stacks
from .prepared import Prepared
from .validate import TuningSet, prepare_tuning, rigid_score

RAYS = {"fast": (1, (1500.0,)), "balanced": (3, (700.0, 1500.0, 4000.0)), "extensive": (5, (400.0, 800.0, 1500.0, 3000.0, 6000.0))}
ROUNDS = {"fast": 2, "balanced": 4, "extensive": 8}
FIRST_R, FACTOR = 0.2, 2.5
STILL_ANGSTROM = 0.03          # 75th percentile of the path's length below which nothing moves
FAMILY_MARGIN = 1.0            # standard errors by which a family with more parameters must win
FEW_PARTICLES = 200            # below, only families with few parameters are tried

# name -> (parameters refined, how the default is changed to start it)
FAMILIES = {
    "constant strengths": (("velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma"),
                           dict(early_factor=0.0, kernel="exponential", correlated_acceleration=False, jitter_angstrom=0.0,
                                velocity_sigma=1.0, acceleration_sigma=9.0, correlation_distance_angstrom=6000.0, global_angstrom=0.0)),
    "strengths that fall with dose": (("velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma", "early_factor",
                                       "early_dose_e_per_A2"),
                                      dict(early_factor=8.0, kernel="exponential", correlated_acceleration=False, jitter_angstrom=0.0,
                                           velocity_sigma=0.5, acceleration_sigma=9.0, correlation_distance_angstrom=6000.0,
                                           global_angstrom=0.0)),
    "smooth field with jitter": (("velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma", "early_factor",
                                  "early_dose_e_per_A2", "jitter_angstrom", "global_angstrom"), {}),
}
STEP = {"velocity_sigma": 0.7, "correlation_distance_angstrom": 0.5, "acceleration_sigma": 0.7, "early_factor": 0.7,
        "early_dose_e_per_A2": 0.5, "jitter_angstrom": 0.5, "global_angstrom": 0.6}       # natural logarithms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A family's best: hyperparameters and scores per movie (lower is better)."""

    family: str
    hyperparameters: Hyperparameters
    scores: np.ndarray


@dataclass(frozen=True)
class Tuning:
    """Result of a search. ``gain``, ``gain_error``: log-likelihood won over rigid motion by cross-validation, and its
    standard error over movies; ``journal``: one record per trial, ready for JSON lines."""

    hyperparameters: Hyperparameters
    family: str
    margins: Dict[str, tuple]
    gain: float
    gain_error: float
    particles: int
    movies: List[str]
    activity_at_last: float
    journal: List[dict]

    @property
    def worth_it(self):
        """Whether local motion explains held-out data better than none, by more than two standard errors."""
        return self.gain > 2.0 * self.gain_error

    @property
    def text(self):
        """The finding in one sentence."""
        if self.worth_it:
            return ("%s: held-out data are explained better than by rigid motion by %.0f +- %.0f (log-likelihood, %d particles of %d movies)"
                    % (self.family, self.gain, self.gain_error, self.particles, len(self.movies)))
        return ("no gain from local motion: held-out data are explained %.0f +- %.0f better than by rigid motion (log-likelihood, %d "
                "particles of %d movies)" % (self.gain, self.gain_error, self.particles, len(self.movies)))


def choose_subset(movies, particles_of, target_particles, seed):
    """Movies drawn at random (seeded) until they hold ``target_particles``; and the rest in the drawn order, as replacements."""
    filled = [m for m in movies if len(particles_of(m))]
    if not filled:
        raise InputError("no movie has particles, so hyperparameters cannot be searched: check rlnMicrographName")
    return [filled[i] for i in np.random.default_rng(seed).permutation(len(filled))]


def strength(base: Hyperparameters, theta, r, distance):
    """Hyperparameters at a point of a ray."""
    weaker = min(1.0, 1.0 / r)
    return replace(base, velocity_sigma=base.velocity_sigma / (r * math.sqrt(2) * math.cos(theta)),
                   acceleration_sigma=base.acceleration_sigma / (r * math.sqrt(2) * math.sin(theta)),
                   correlation_distance_angstrom=distance, jitter_angstrom=base.jitter_angstrom * weaker,
                   global_angstrom=base.global_angstrom * weaker)


def tune(movies, particles_of, prepared: Prepared, progress=None):
    """Search hyperparameters on a random subset of movies. Needs calibrated references. Returns :class:`Tuning`.

    ``progress(done, total, sentence)``. Raises InputError when no movie of the subset can be used.
    """
    spec = prepared.spec.search
    progress = progress or (lambda done, total, sentence: None)
    tuning_set = TuningSet(int(spec.cache_gib * 2 ** 30))
    try:
        names = _fill(tuning_set, movies, particles_of, prepared, progress)
        journal = []
        search = _search_rays(tuning_set, spec, journal, progress)
        base = replace(DEFAULT_HYPERPARAMETERS, movie_spread=0.0)
        ray = search.rays[search.best.ray]
        start = strength(base, ray.theta, search.best.r, ray.z)
        rigid = np.array([rigid_score(m) for m in tuning_set])
        candidates = _refine_families(tuning_set, start, spec, journal, progress)
        best, margins = choose_family(candidates)
        gains = rigid - best.scores
        last = [t.activity for t in search.trials if t.iteration == search.iteration - 1]
        return Tuning(best.hyperparameters, best.family, margins, float(gains.sum()), _error_of_sum(gains), tuning_set.n_particles,
                      names, float(max(last)), journal)
    finally:
        tuning_set.close()
        forget_stacks()


def _fill(tuning_set, movies, particles_of, prepared, progress):
    target, names, faults = prepared.spec.search.target_particles, [], []
    for movie in choose_subset(movies, particles_of, target, prepared.spec.seed):
        if tuning_set.n_particles >= target:
            break
        try:
            tuning_set.add(prepare_tuning(movie, particles_of(movie), prepared))
            names.append(movie.micrograph)
        except MovieError as error:
            faults.append(str(error))
            log.warning("%s is left out of the hyperparameter search: %s", movie.micrograph, error)
        progress(min(tuning_set.n_particles, target), target, "correlation maps")
    if not names:
        raise InputError("no movie could be used for the hyperparameter search; the first says: %s" % faults[0])
    return names


def _search_rays(tuning_set, spec, journal, progress):
    n_theta, heights = RAYS[spec.thoroughness]
    base = replace(DEFAULT_HYPERPARAMETERS, movie_spread=0.0)
    search = RaySearch(spread_rays(n_theta, heights), FIRST_R, FACTOR, spec.max_prior_strength, STILL_ANGSTROM)
    total = int(math.log(spec.max_prior_strength / FIRST_R) / math.log(FACTOR)) + 1
    while search.ask():
        hypers = [strength(base, search.rays[i].theta, r, search.rays[i].z) for i, r in search.ask()]
        scores, activities = tuning_set.evaluate(hypers)
        for trial, hyper in zip(search.tell(list(zip(scores.sum(0), activities))), hypers):
            ray = search.rays[trial.ray]
            journal.append(dict(kind="ray", iteration=trial.iteration, ray=trial.ray, theta_degree=math.degrees(ray.theta),
                                correlation_distance_angstrom=ray.z, strength=trial.r, score=trial.score,
                                activity_angstrom=trial.activity, hyperparameters=asdict(hyper)))
        log.info("search iteration %d: strength %.3g, %d rays, best score %.1f, activity %.3f A", search.iteration, search.r / FACTOR,
                 len(hypers), float(scores.sum(0).min()), float(np.max(activities)))
        progress(search.iteration, total, "rays")
    if max(t.activity for t in search.trials if t.iteration == search.iteration - 1) > 10 * STILL_ANGSTROM:
        log.warning("particles still move at the largest prior strength: raise the maximum total prior strength")
    return search


def _refine_families(tuning_set, start, spec, journal, progress):
    names = list(FAMILIES)[:2] if tuning_set.n_particles < FEW_PARTICLES else list(FAMILIES)
    if spec.thoroughness == "fast":
        names = names[-1:]
    candidates = [_untuned(tuning_set, "default prior", DEFAULT_HYPERPARAMETERS, journal)]
    for index, name in enumerate(names):
        parameters, changes = FAMILIES[name]
        found = refine(tuning_set, name, replace(start, **changes), parameters, ROUNDS[spec.thoroughness], journal)
        candidates.append(_with_spread(tuning_set, found, journal))
        progress(index + 1, len(names), "refinement")
    return candidates


def _untuned(tuning_set, family, hyper, journal):
    scores, activities = tuning_set.evaluate([hyper])
    journal.append(dict(kind="default", family=family, score=float(scores.sum()), activity_angstrom=float(activities[0]),
                        hyperparameters=asdict(hyper)))
    return Candidate(family, hyper, scores[:, 0])


def refine(tuning_set, family, start, parameters, rounds, journal):
    """Pattern search in the logarithms of some parameters; returns the family's :class:`Candidate`."""
    def at(point):
        return replace(start, **{p: math.exp(v) for p, v in zip(parameters, point)})

    def scores_of(points):
        scores, activities = tuning_set.evaluate([at(p) for p in points])
        for i, point in enumerate(points):
            journal.append(dict(kind="refine", family=family, score=float(scores[:, i].sum()), activity_angstrom=float(activities[i]),
                                hyperparameters=asdict(at(point))))
        return scores

    center = [math.log(getattr(start, p)) for p in parameters]
    best = scores_of([center])[:, 0]
    search = PatternSearch(center, [STEP[p] for p in parameters], float(best.sum()), max_rounds=rounds)
    while not search.over:
        points = search.ask()
        scores = scores_of(points)
        proposed = search.combined(scores.sum(0).tolist())
        points, scores = points + [proposed], np.concatenate([scores, scores_of([proposed])], axis=1)
        if search.tell(points, scores.sum(0).tolist()):
            best = scores[:, int(np.argmin(scores.sum(0)))]
    return Candidate(family, at(search.center), best)


def choose_family(candidates):
    """The simplest family that no richer one beats clearly. Returns it and {family: (margin to the chosen, error)}.

    Candidates come from few to many parameters; margins are score differences (positive: worse than the chosen).
    """
    chosen = candidates[0]
    for richer in candidates[1:]:
        won = chosen.scores - richer.scores
        if won.sum() > FAMILY_MARGIN * _error_of_sum(won):
            chosen = richer
    margins = {c.family: (float((c.scores - chosen.scores).sum()), _error_of_sum(c.scores - chosen.scores)) for c in candidates}
    return chosen, margins


def _with_spread(tuning_set, best: Candidate, journal):
    """Let each movie have its own strength, if that predicts better."""
    if best.hyperparameters.movie_spread > 0:
        return best
    spread = replace(best.hyperparameters, movie_spread=DEFAULT_HYPERPARAMETERS.movie_spread)
    scores, activities = tuning_set.evaluate([spread])
    journal.append(dict(kind="spread", family=best.family, score=float(scores.sum()), activity_angstrom=float(activities[0]),
                        hyperparameters=asdict(spread)))
    return Candidate(best.family, spread, scores[:, 0]) if scores.sum() < best.scores.sum() else best


def _error_of_sum(values):
    """Standard error of a sum over movies; infinite for a single movie."""
    n = len(values)
    return float(np.std(values, ddof=1) * math.sqrt(n)) if n > 1 else math.inf
