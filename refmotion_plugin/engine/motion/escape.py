"""Trajectories that are not caught in false peaks of a particle's correlation.

Noise gives a particle's correlation more peaks than its own. Where the prior leaves a particle much freedom, as in first frames of fast motion
under a kernel that ties neighbours loosely, a fit climbs the peak that is nearest to its start. Given all other particles a particle is a small
problem of its own: their prediction is its prior, N(m, C), and its energy is E_p(d) = 1/2 (d - m)^T C^-1 (d - m) - sum_f CC_pf(d_f). Particles
that lie farther from the prediction than a peak is wide are fitted anew from there, all at once: first on smoothed maps, where narrow
peaks of noise have no place, then on their own. What lowers E_p is where the fit of the whole movie starts again, and the lower energy wins.
"""
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..maths import minimise, spline
from .correlate import CorrelationMaps
from .fit import TOLERANCE, Fit, fit_trajectories
from .held_out import prediction_of_others, with_offset_of
from .prior import MotionPrior

FAR_SAMPLES = 1.5            # sample distances of the maps (0.28 wavelengths of the band's end): nearer, it is the same peak
SMOOTH_SAMPLES = 2.0         # standard deviation of the smoothing: leaves half of the amplitude at half the band, 6 % at its end
COARSE, FINE = 1e-3, 1e-6    # tolerances of the minimiser; the fit of the whole movie follows
LEAST_GAIN = 0.5             # in the logarithm of the posterior: less is no other peak
ROUNDS = 3                   # particles that escaped predict their neighbours anew
FACTORABLE = 1e-10           # of the variance, added to the diagonal
AT_ONCE = 64                 # particles whose maps are copied at a time


def fit_out_of_false_peaks(maps: CorrelationMaps, prior: MotionPrior, tolerance=TOLERANCE, after=None):
    """The :class:`Fit` of a movie, or for each set of hyperparameters one of less energy where particles escaped from false peaks.

    ``tolerance``, ``after``: see :func:`.fit.fit_trajectories`. ``iterations`` counts those of all fits.
    """
    fit = fit_trajectories(maps, prior, tolerance=tolerance, after=after)
    for _ in range(ROUNDS):
        change = _way_out(maps, fit)
        if change is None:
            break
        again = fit_trajectories(maps, prior, tolerance=tolerance, start=fit.whitened + _whitened(prior, change))
        better = again.energy < fit.energy
        fit = _whichever(better, again, fit)
        if not bool(better.any()):
            break
    return fit


def _way_out(maps, fit):
    """Changes of deviation (b, P, F, 2) that lead particles to better peaks, zero for the others; None if there are none at all."""
    predicted, covariance = prediction_of_others(fit)
    start = with_offset_of(predicted, fit)
    far = (fit.deviation - start).norm(dim=-1).amax(-1) > FAR_SAMPLES * maps.step_angstrom       # (b, P)
    far = torch.nonzero(far)
    if not len(far):
        return None
    change = torch.zeros_like(fit.deviation)
    for which in far.split(AT_ONCE):
        root, failed = _factors(covariance[which[:, 0], which[:, 1]])
        b, p = which[failed == 0].unbind(1)
        alone = _Alone.among(maps, p, predicted[b, p], root[failed == 0], fit.curvature[b])
        now = fit.deviation[b, p]
        found = alone.fit(alone.smoothed().fit(start[b, p], COARSE), FINE)
        gain = alone.energy(now) - alone.energy(found)
        change[b, p] = torch.where((gain > LEAST_GAIN)[:, None, None], found - now, torch.zeros_like(now))
    return change if bool(change.any()) else None


def _factors(covariance):
    """Lower factors (n, F, F) of covariances, and 0 where there is one: some are too uneven for double precision."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.cholesky_ex(0.5 * (covariance + covariance.transpose(-1, -2)) + FACTORABLE * scale * eye)


def _whitened(prior, change):
    """Change of the whitened coordinates (b, n) for a change of deviation, all of it in the modes."""
    z = torch.linalg.solve_triangular(prior.factor, torch.einsum("bpm,bpfa->bmfa", prior.modes, change), upper=False).flatten(1)
    return torch.cat([z, z.new_zeros(len(z), 2 * prior.shape[2])], dim=1)


def _whichever(better, again, fit):
    pick = lambda new, old: torch.where(better.reshape((-1,) + (1,) * (new.dim() - 1)), new, old)
    fields = {name: pick(getattr(again, name), getattr(fit, name)) for name in ("deviation", "whitened", "force", "energy")}
    reason = [new if won else old for won, new, old in zip(better.tolist(), again.reason, fit.reason)]
    return replace(fit, iterations=fit.iterations + again.iterations, reason=reason, **fields)


@dataclass(frozen=True)
class _Alone:
    """n particles, each by itself under what the others predict of it: ``mean`` (n, F, 2) and the factor ``root`` (n, F, F) of its covariance."""

    coefficients: torch.Tensor
    origin: torch.Tensor
    step_angstrom: float
    mean: torch.Tensor
    root: torch.Tensor
    metric: torch.Tensor

    @cached_property
    def surfaces(self):
        """The maps, prepared for many looks."""
        return spline.Surfaces(self.coefficients)

    @staticmethod
    def among(maps, particles, mean, root, curvature):
        """Those whose indices are given, with their maps and the ``curvature`` (n, F) that their metric goes by."""
        eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        metric = torch.linalg.cholesky(eye + root.transpose(-1, -2) @ (curvature[..., None] * root))
        origin = maps.residual_yx_angstrom[particles] / maps.step_angstrom + maps.center
        return _Alone(maps.coefficients[particles].flatten(0, 1), origin.to(mean.dtype), maps.step_angstrom, mean, root, metric)

    def smoothed(self):
        """The same particles with smoothed maps."""
        index = torch.arange(self.coefficients.shape[-1], dtype=self.coefficients.dtype, device=self.coefficients.device)
        weight = torch.softmax(-0.5 * ((index[:, None] - index) / SMOOTH_SAMPLES) ** 2, dim=1)
        return replace(self, coefficients=weight @ self.coefficients @ weight.T)

    def fit(self, deviation, tolerance):
        """Deviations (n, F, 2) on top of the peaks on whose slopes the given ones are."""
        shape = deviation.shape
        track = lambda x: self.mean + self.root @ x.reshape(shape)

        def evaluate(x):
            value, force = self._correlate(track(x))
            return 0.5 * x.square().sum(-1) - value, x - (self.root.transpose(-1, -2) @ force).flatten(1)

        precondition = lambda v: torch.cholesky_solve(v.reshape(shape), self.metric).flatten(1)
        return track(minimise.minimise(evaluate, self._whitened(deviation).flatten(1), precondition, tolerance=tolerance).x)

    def energy(self, deviation):
        """E_p (n,)."""
        return 0.5 * self._whitened(deviation).square().sum((1, 2)) - self._correlate(deviation)[0]

    def _whitened(self, deviation):
        return torch.linalg.solve_triangular(self.root, deviation - self.mean, upper=False)

    def _correlate(self, deviation):
        value, slope = self.surfaces.evaluate((self.origin + deviation / self.step_angstrom).reshape(1, -1, 2))
        return value.reshape(deviation.shape[:2]).sum(1), slope.reshape(deviation.shape) / self.step_angstrom
