"""Hyperparameters from the data: rays of prior strength, then the most probable parameters, judged between the half-maps.

Strengths are 1 / sigma in units of the default prior: (1 / sigma_V, 1 / sigma_A) = r sqrt(2) (cos theta, sin theta) in those units, so r = 1 at
45 degrees is the default; jitter and global shift fall with r beyond 1, so that infinite strength is rigid motion. z is the
correlation distance. Then all parameters of each family of priors are led to where the low band's evidence is highest; the most
probable family is taken unless the default prior predicts the high band clearly better.
"""
import logging
import math
from dataclasses import dataclass, replace
from typing import Dict, List

import numpy as np

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.records import Hyperparameters
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.contract.verdict import rounded

from ..search import compare
from ..search.rays import RaySearch, spread_rays
from .budget import GIB
from .load import make_room
from .memory import release
from .prepared import Prepared
from .refine import Ledger, refine_families
from .validate import TuningSet, prepare_tuning

RAYS = {"fast": (1, (1500.0,)), "balanced": (3, (700.0, 1500.0, 4000.0)), "extensive": (5, (400.0, 800.0, 1500.0, 3000.0, 6000.0))}
FIRST_R, FACTOR = 0.2, 2.5
STILL_ANGSTROM = 0.03          # 75th percentile of the path's length below which nothing moves
CERTAIN = 2.0                  # standard errors above which a gain is one
OVERRULED = 3.0                # by so many the default has to predict better: the evidence, which is sharper, speaks against it
SIMPLER = 1.0                  # standard errors up to which what is simpler is as good (Breiman et al. 1984, section 3.4.3)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuning:
    """Result of a search.

    ``gain``: log-likelihood of the high band, which had no part in the choice, won over rigid motion; ``gain_error``: its standard
    error over particles; ``gain_error_over_movies``: what it would scatter by on other movies (infinite for one movie);
    ``movies_with_gain``: how many movies gain; ``margins``: {family: (how much worse than the chosen in the high band, error)};
    ``evidence``: {family: how much less probable than the best, natural logarithm}; ``errors``: standard errors over movies
    of the parameters' natural logarithms (none for the default prior); ``journal``: one record per trial, ready for JSON lines;
    ``unseen``: why the high band has nothing to judge by, else "".
    """

    hyperparameters: Hyperparameters
    family: str
    margins: Dict[str, tuple]
    evidence: Dict[str, float]
    errors: Dict[str, float]
    gain: float
    gain_error: float
    gain_error_over_movies: float
    movies_with_gain: int
    particles: int
    movies: List[str]
    activity_at_last_angstrom: float
    journal: List[dict]
    unseen: str = ""

    @property
    def worth_it(self):
        """Whether local motion explains held-out data better than none, by more than two standard errors; None if nothing tells."""
        return None if self.unseen else bool(self.gain > CERTAIN * self.gain_error)

    @property
    def text(self):
        """The finding in one sentence."""
        if self.unseen:
            return "whether local motion helps cannot be told: %s; prior: %s" % (self.unseen, self.family)
        numbers = "%.0f ± %.0f (log-likelihood; %d particles, %d of %d movies gain)" % (
            rounded(self.gain), self.gain_error, self.particles, self.movies_with_gain, len(self.movies))
        if self.worth_it:
            return "local motion explains held-out data better than rigid motion does, by %s; prior: %s" % (numbers, self.family)
        return "no gain from local motion: it does not explain held-out data better than rigid motion does, beyond chance: %s; prior: %s" % (numbers, self.family)


def choose_subset(movies, particles_of, seed):
    """Movies that have particles, in a random (seeded) order: taken from the front until there are enough, the rest replaces the unusable."""
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
    budget = prepared.budget
    tuning_set = TuningSet(int(spec.cache_gib * GIB), room_bytes=budget.host_room if budget.device is None else budget.device)
    try:
        names = _fill(tuning_set, movies, particles_of, prepared, progress)
        release(prepared.device)        # blocks that wait for a next movie: now the trials need the memory
        ledger = Ledger(tuning_set)
        rays = _search_rays(ledger, spec, progress)
        ray = rays.rays[rays.best.ray]
        start = strength(_base(), ray.theta, rays.best.r, ray.z)
        found = _conclude(ledger, refine_families(ledger, start, spec.thoroughness, progress), rays, names)
        return found if ledger.can_judge else replace(found, unseen=_nothing_to_judge_by(movies[0], prepared))
    finally:
        tuning_set.close()
        make_room(0)            # those on the disk wait for their alignment


def _nothing_to_judge_by(movie, prepared):
    """Why all maps of the high band are nought, as a part of a sentence."""
    ends = max(float(a.frequency_per_angstrom[a.factor > 0].max()) for a in prepared.amplitudes)
    asked = prepared.spec.search.fourier_fraction
    share = min(asked, (ends / prepared.band_per_angstrom(movie.original_pixel_angstrom)) ** 2)
    return ("the movies show nothing of the reference beyond %.1f A, and all up to there was aligned with; "
            "a fraction of Fourier components (--fourier-fraction) below %.2g, not %.2g, leaves something to judge by" % (1.0 / ends, share, asked))


def _base():
    """The default prior with the same strength for every movie: what rays are scaled from."""
    return replace(DEFAULT_HYPERPARAMETERS, movie_spread=0.0)


def _conclude(ledger, candidates, rays, names):
    by_name = {c.family: c for c in candidates}
    best = max(c.evidence for c in candidates)
    chosen, margins = compare.choose({n: c.evidence for n, c in by_name.items()}, {n: c.scores for n, c in by_name.items()},
                                     ledger.movie_of, OVERRULED)
    taken = follow_jitter(ledger, by_name[chosen])
    found, won = by_name[chosen].found, ledger.rigid - taken.scores
    return Tuning(taken.hyperparameters, chosen, margins, {n: best - c.evidence for n, c in by_name.items()},
                  found.errors if found else {}, float(won.sum()), compare.error_over_items(won, ledger.movie_of),
                  compare.error_over_groups(won, ledger.movie_of), int((compare.group_sums(won, ledger.movie_of) > 0).sum()),
                  len(won), names, rays.last_activity, ledger.journal())


def follow_jitter(ledger, candidate):
    """The candidate, or its trial without following the jitter, unless following it predicts the high band better by a standard error.

    A jitter that is much smaller than the noise hardly shows in the evidence, be it there or not. Followed without being there it only adds
    noise; as part of the standard deviations it does no harm, so there it stays. Where nothing can judge, it is followed as by default.
    """
    if not (candidate.hyperparameters.jitter_angstrom > 0 and ledger.can_judge):
        return candidate
    left_out = ledger.evaluate("jitter not followed", candidate.family, [replace(candidate.hyperparameters, jitter_followed=False)])[0]
    return candidate if compare.exceeds(left_out.scores - candidate.scores, ledger.movie_of, SIMPLER) else left_out


def _fill(tuning_set, movies, particles_of, prepared, progress):
    target = min(prepared.spec.search.target_particles, sum(len(particles_of(m)) for m in movies))
    names, faults = [], []
    progress(0, target, "correlation maps")
    for movie in choose_subset(movies, particles_of, prepared.spec.seed):
        if tuning_set.n_particles >= target:
            break
        try:
            tuning_set.add(prepare_tuning(movie, particles_of(movie), _beside(prepared, tuning_set.used)))
            names.append(movie.micrograph)
        except MovieError as error:
            faults.append(str(error))
            log.warning("%s is left out of the hyperparameter search: %s", movie.micrograph, error)
        progress(min(tuning_set.n_particles, target), target, "correlation maps")
    if not names:
        raise InputError("no movie could be used for the hyperparameter search; the first says: %s" % faults[0])
    return names


def _beside(prepared, held):
    """The same with less memory for movies: maps hold so many bytes of it."""
    budget = prepared.budget
    less = {"program": budget.program + held} if budget.device is None else {"device": max(0, budget.device - held)}
    return replace(prepared, budget=replace(budget, **less))


def _search_rays(ledger, spec, progress):
    n_theta, heights = RAYS[spec.thoroughness]
    search = RaySearch(spread_rays(n_theta, heights), FIRST_R, FACTOR, spec.max_prior_strength, STILL_ANGSTROM)
    total = int(math.log(spec.max_prior_strength / FIRST_R) / math.log(FACTOR)) + 1
    progress(0, total, "rays")
    while search.ask():
        asked = [(i, search.rays[i], r) for i, r in search.ask()]
        places = [dict(iteration=search.iteration, ray=i, theta_degree=math.degrees(ray.theta), correlation_distance_angstrom=ray.z,
                       strength=r) for i, ray, r in asked]
        trials = ledger.evaluate("ray", "rays", [strength(_base(), ray.theta, r, ray.z) for _, ray, r in asked], places=places)
        search.tell([(t.total, t.activity) for t in trials])
        log.info("search iteration %d: strength %.3g, %d rays, largest gain %.1f, largest activity %.3f A", search.iteration, asked[0][2],
                 len(asked), max(ledger.gain(t.scores)[0] for t in trials), max(t.activity for t in trials))
        progress(search.iteration, total, "rays")
    if search.last_activity > 10 * STILL_ANGSTROM:
        log.warning("particles still move by %.2f A at the largest prior strength: raise the maximum total prior strength",
                    search.last_activity)
    return search
