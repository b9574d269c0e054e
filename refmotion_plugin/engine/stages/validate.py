"""Cross-validation between the half-maps: trajectories from low frequencies and the own half, judged at high frequencies by the
opposite half. What a movie needs for that is kept in memory, or on disk beyond a limit; a trial then costs only the fit.
"""
import math
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
import torch

from refmotion_plugin.contract.errors import InputError

from ..maths import spline
from ..motion.adapt import own_scales, scaled
from ..motion.correlate import CorrelationMaps, Window, correlation_maps
from ..motion.evidence import measure
from ..motion.fit import fit_trajectories
from ..motion.model import SignalModel, motion_inside_frames
from ..motion.prior import build_prior
from .align import band_indicator, estimate_deviation, movie_unit, scaled_prediction, view_movie
from .memory import within_memory
from .prepared import Prepared
from .spill import Spill

ACTIVITY_PERCENTILE = 75
RIGID_SIGMA = 1e-7            # strengths so small that nothing moves
HELD_SHARE = 1 / 2            # of the memory for movies that maps may hold
TRIAL_SHARE = 1 / 2           # of what they leave that sets solved together may take
ARRAYS_OF_A_TRIAL = 10        # (P, F, F) in double precision: the prior's factors and the metric's, with what it takes to make them


@dataclass(frozen=True)
class TuningMovie:
    """One movie of the subset: low-band maps (own half), high-band spline coefficients (opposite half) and its geometry."""

    micrograph: str
    low: CorrelationMaps
    high: CorrelationMaps
    position_yx_angstrom: torch.Tensor
    dose_e_per_A2: torch.Tensor
    course_yx_angstrom: Optional[torch.Tensor] = None        # the input's rigid motion (F, 2)

    @property
    def where(self):
        """What a prior asks of a movie: positions, doses and the input's course."""
        return self.position_yx_angstrom, self.dose_e_per_A2, self.course_yx_angstrom

    @property
    def n_particles(self):
        """Number of particles."""
        return len(self.position_yx_angstrom)

    @property
    def trial_bytes(self):
        """What one hyperparameter set takes while it is solved."""
        return 8 * ARRAYS_OF_A_TRIAL * self.n_particles * len(self.dose_e_per_A2) ** 2


@dataclass(frozen=True)
class Outcome:
    """What hyperparameter sets did on one movie: ``score`` (P, b), lower is better; ``activity`` (b,) A; ``reason`` per set."""

    score: np.ndarray
    activity: np.ndarray
    reason: tuple


def split_frequency(prepared: Prepared, movie_pixel_angstrom):
    """(k_cut, k_max) in 1/A: the fraction of Fourier pixels below k_cut aligns, the rest judges."""
    k_max = prepared.band_per_angstrom(movie_pixel_angstrom)
    return k_max * prepared.spec.search.fourier_fraction ** 0.5, k_max


@within_memory
def prepare_tuning(movie, particles, prepared: Prepared):
    """Decode a movie and make both sets of maps, with the blur inside frames of a first full fit. MovieError as in alignment."""
    view = view_movie(movie, particles, prepared)
    first, model = estimate_deviation(view, prepared.amplitudes, prepared)
    unit = movie_unit(view)
    own, _ = scaled_prediction(view, prepared.amplitudes, unit)
    opposite, _ = scaled_prediction(replace(view, own=view.opposite), prepared.amplitudes, unit)
    k_cut, k_max = split_frequency(prepared, view.grid.pixel_angstrom)
    k = view.grid.shell_frequency_per_angstrom(prepared.device, torch.float64)
    band = band_indicator(view, prepared)
    initial = torch.from_numpy(view.initial_yx_angstrom).to(prepared.device)
    blur = motion_inside_frames(initial + first.deviation[0])
    radius = prepared.spec.alignment.search_radius_angstrom
    maps = []
    for template, inside, limit in ((own, k <= k_cut, k_cut), (opposite, k > k_cut, k_max)):
        part = SignalModel(view.grid, template, band * inside, model.damage, model.noise, blur)
        maps.append(correlation_maps(view.spectra, part, Window.covering(radius, limit), view.residual_yx_angstrom))
    position = torch.from_numpy(particles.position_yx_angstrom).to(prepared.device)
    dose = torch.from_numpy(view.dose_e_per_A2).to(prepared.device)
    return TuningMovie(movie.micrograph, maps[0], maps[1], position, dose, initial.mean(0))


def rigid(hyper):
    """The same prior, infinitely strong: only each particle's constant offset is left, which is no motion."""
    return replace(hyper, velocity_sigma=RIGID_SIGMA, acceleration_sigma=RIGID_SIGMA, jitter_angstrom=0.0, global_angstrom=0.0,
                   movie_spread=0.0)


def try_hyperparameters(movie: TuningMovie, hypers, room_bytes=math.inf):
    """Score and activity of hyperparameter sets on one movie, as many solved as one batch as ``room_bytes`` allow, one at least.

    The score is minus the opposite-half correlation of the high band along the low-band trajectories, per particle. A set with
    ``movie_spread`` > 0 is first adapted to the movie by its low-band evidence.
    """
    together = max(1, int(min(room_bytes / movie.trial_bytes, len(hypers))))
    parts = [_solved(movie, hypers[i:i + together]) for i in range(0, len(hypers), together)]
    score, activity = np.concatenate([p.score for p in parts], axis=1), np.concatenate([p.activity for p in parts])
    return Outcome(score, activity, sum((p.reason for p in parts), ()))


def _solved(movie, hypers):
    adapted = [scaled(h, *movie_scales(movie, h)) if h.movie_spread > 0 else h for h in hypers]
    fit = fit_trajectories(movie.low, build_prior(adapted, *movie.where))
    length = torch.diff(fit.deviation, dim=2).norm(dim=-1).sum(-1)                    # (b, P)
    activity = torch.quantile(length, ACTIVITY_PERCENTILE / 100.0, dim=1)
    return Outcome(-judged(movie, fit.deviation).T.cpu().numpy(), activity.cpu().numpy(), tuple(fit.reason))


def judged(movie: TuningMovie, deviation):
    """High-band correlation with the opposite half along deviations (b, P, F, 2): float64 (b, P)."""
    maps = movie.high
    place = (maps.residual_yx_angstrom / maps.step_angstrom + maps.center + deviation / maps.step_angstrom)
    flat = place.reshape(len(deviation), -1, 2)
    value, _ = spline.evaluate(maps.coefficients.reshape((-1,) + tuple(maps.coefficients.shape[-2:])), flat)
    return value.reshape(deviation.shape[:-1]).sum(-1)


def movie_scales(movie: TuningMovie, hyper):
    """The scales that the movie's low-band evidence gives a set with ``movie_spread`` > 0."""
    return own_scales(hyper, measure(movie.low, hyper, *movie.where)[0])[0]


class TuningSet:
    """The subset's movies, in memory up to ``cache_bytes``, the rest on the disk for temporary files.

    ``room_bytes``: of the memory that they and the trials share; they hold at most ``HELD_SHARE`` of it.
    """

    def __init__(self, cache_bytes, folder=None, room_bytes=math.inf):
        self.cache_bytes, self.room_bytes = min(cache_bytes, HELD_SHARE * room_bytes), room_bytes
        self.used, self.items, self.spill = 0, [], Spill(folder)

    def add(self, movie: TuningMovie):
        """Keep one movie's maps. Raises InputError when there is no room for them on the disk either."""
        size = _map_bytes(movie)
        if self.used + size <= self.cache_bytes:
            self.used += size
            self.items.append(movie)
            return
        places = [self.spill.put(maps.coefficients) for maps in (movie.low, movie.high)]
        empty = torch.empty(0)
        self.items.append((places, replace(movie, low=replace(movie.low, coefficients=empty), high=replace(movie.high, coefficients=empty))))

    def __iter__(self):
        for item in self.items:
            if isinstance(item, TuningMovie):
                yield item
                continue
            places, movie = item
            low, high = [self.spill.get(place).to(movie.position_yx_angstrom.device) for place in places]
            yield replace(movie, low=replace(movie.low, coefficients=low), high=replace(movie.high, coefficients=high))

    def __len__(self):
        return len(self.items)

    @property
    def movie_of(self):
        """Number of the movie of each particle, (particle,)."""
        counts = [(m if isinstance(m, TuningMovie) else m[1]).n_particles for m in self.items]
        return np.repeat(np.arange(len(counts)), counts)

    @property
    def n_particles(self):
        """Particles of all movies."""
        return len(self.movie_of)

    def evaluate(self, hypers):
        """Scores (particle, set), in the order of :attr:`movie_of`, and mean activities (set,) of hyperparameter sets.

        InputError if the set is empty.
        """
        if not self.items:
            raise InputError("the hyperparameter search has no usable movie: see the reasons in the log")
        outcomes = [try_hyperparameters(movie, hypers, self._trial_room(movie)) for movie in self]
        return np.concatenate([o.score for o in outcomes]), np.mean([o.activity for o in outcomes], axis=0)

    def _trial_room(self, movie):
        """Bytes for the sets that are solved together; the movie's maps may have come from the disk."""
        return max(0.0, TRIAL_SHARE * (self.room_bytes - self.used - _map_bytes(movie)))

    def close(self):
        """Remove what was spilled to disk."""
        self.spill.close()


def _map_bytes(movie):
    return sum(m.coefficients.numel() * 4 for m in (movie.low, movie.high))
