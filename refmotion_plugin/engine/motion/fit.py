"""MAP trajectories: correlation maps + prior -> deviations, their standard deviations and why the fit stopped.

E(z, g) = - sum_pf CC_pf(residual_pf + deviation_pf(z, g)) + 1/2 |z|^2 + 1/2 |g|^2 in whitened coordinates.
"""
from dataclasses import dataclass
from functools import cached_property
from typing import List, Optional

import torch

from ..maths import minimise, spline
from .correlate import CorrelationMaps
from .prior import MotionPrior

TOLERANCE = 1e-7        # of the energy, relative: trajectories are then a few thousandths of an A from the optimum


@dataclass(frozen=True)
class Fit:
    """``deviation`` (b, P, F, 2) A from the starting trajectory; energies and reasons per b.

    ``whitened`` (b, n): coordinates of the optimum, where another fit can start. ``force`` (b, P, F, 2): gradient of the correlation there, 1/A. ``prior``, ``curvature`` (b, F), expected and mean over
    particles, 1/A^2, and ``metric`` are those it was found with. ``strength``: of the movie's own prior in units of the job's,
    None if it has none of its own.
    """

    deviation: torch.Tensor
    whitened: torch.Tensor
    force: torch.Tensor
    prior: MotionPrior
    curvature: torch.Tensor
    metric: "Metric"
    energy: torch.Tensor
    iterations: torch.Tensor
    reason: List[str]
    strength: Optional[float] = None

    @cached_property
    def sd(self):
        """Standard deviation (b, P, F) of the error, A per axis, with the expected (Fisher) curvature h; worked out where it is asked for.

        The posterior's. A jitter of variance s that is not followed adds about s (1 - h v) to its variance v: as far as a place rests on
        its own data, their jitter is in it.
        """
        return self._sd(self._variances[0], 1.0)

    @cached_property
    def motion_sd(self):
        """The same (b, P, F) of the displacement less its mean over frames: a constant offset is no motion, and weak particles know little of it."""
        return self._sd(self._variances[1], 1.0 - 1.0 / self.deviation.shape[2])

    @cached_property
    def _variances(self):
        return self.metric.variances(self.prior)

    def _sd(self, variance, white):
        """``white``: share of a white jitter's variance that is left when nothing of it is followed."""
        own = self.curvature[:, None] * variance.clamp(min=0)
        return (variance.clamp(min=0) + self.prior.left_out[:, None, None] * (white - own).clamp(min=0)).sqrt()


class Metric:
    """Inverse of the prior + mean data curvature: exact for equal particles, blocks of modes joined by the global shift.

    Per mode m: A_m = 1 + L_m^T h L_m; coupling to the shift B_m = L_m^T h s u_m, s its factor, u_m = sum of mode m over particles;
    its own block 1 + P s^T h s. Schur complement S = G - sum_m B_m^T A_m^-1 B_m (frame x frame).
    """

    def __init__(self, prior: MotionPrior, curvature):
        eye = torch.eye(prior.factor.shape[-1], dtype=torch.float64, device=curvature.device)
        weighted = curvature[:, None, :, None] * prior.factor                            # (b, P, F, F)
        self.blocks = torch.linalg.cholesky(prior.factor.transpose(-1, -2) @ weighted + eye)
        self.inverse = torch.cholesky_solve(eye.expand_as(self.blocks), self.blocks)     # A_m is regular: its eigenvalues are 1 or more
        sums = prior.modes.sum(1)                                               # (b, P)
        shift = prior.shift.factor
        self.coupling = weighted.transpose(-1, -2) @ shift[:, None] * sums[..., None, None]      # (b, P, F z, F g)
        self.solved = self.inverse @ self.coupling
        n = prior.shape[1]
        own = eye + n * shift.transpose(-1, -2) @ (curvature[..., None] * shift)
        schur = own - torch.einsum("bmfg,bmfh->bgh", self.coupling, self.solved)
        self.schur = torch.linalg.cholesky(0.5 * (schur + schur.transpose(-1, -2)))
        self.inverse_of_schur = torch.cholesky_solve(eye.expand_as(self.schur), self.schur)      # a fit solves tens of times: products are sooner done

    def solve(self, z, g):
        """Inverse times the parts z (b, P, F, 2) and g (b, F, 2) of a vector."""
        inner = self.inverse @ z
        g = self.inverse_of_schur @ (g - self.coupling.flatten(1, 2).transpose(-1, -2) @ inner.flatten(1, 2))
        return inner - (self.solved.flatten(1, 2) @ g).view_as(inner), g

    def log_determinant(self):
        """Logarithm of the determinant of the Hessian in whitened coordinates, per axis (b,)."""
        blocks = self.blocks.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))
        return 2.0 * (blocks + self.schur.diagonal(dim1=-2, dim2=-1).log().sum(-1))

    def variances(self, prior):
        """Posterior variances per axis under the mean curvature, (b, P, F) each: of the displacement, and of it less its mean over frames."""
        root, of_modes = self._shift_root(prior), self._of_modes(prior)
        whole = of_modes.diagonal(dim1=-2, dim2=-1)
        motion = whole - 2.0 * of_modes.mean(-1) + of_modes.mean((-2, -1))[..., None]
        whole, motion = (torch.einsum("bpm,bmf->bpf", prior.modes ** 2, part) for part in (whole, motion))
        return whole + (root ** 2).sum(-2), motion + root.sub_(root.mean(-1, keepdim=True)).square_().sum(-2)

    def covariance_blocks(self, prior):
        """Posterior covariance of each particle's own frames per axis (b, P, F, F) under the mean curvature."""
        root = self._shift_root(prior)
        return torch.einsum("bpm,bmfg->bpfg", prior.modes ** 2, self._of_modes(prior)) + root.transpose(-1, -2) @ root

    def _of_modes(self, prior):
        """Posterior covariance of each mode given the global shift (b, P, F, F)."""
        return prior.factor @ self.inverse @ prior.factor.transpose(-1, -2)

    def _shift_root(self, prior):
        """Root (b, P, F g, F) of what the global shift's own uncertainty adds: it reaches every particle through its unit
        response minus what the modes take up."""
        response = prior.shift.factor[:, None] - torch.einsum("bpm,bmfg->bpfg", prior.modes, prior.factor @ self.solved)
        return torch.linalg.solve_triangular(self.schur[:, None], response.transpose(-1, -2), upper=False)


def fit_trajectories(maps: CorrelationMaps, prior: MotionPrior, max_iterations=100, tolerance=TOLERANCE, start=None, after: Optional[Fit] = None):
    """MAP deviations from correlation maps under a prior, from whitened coordinates ``start`` (b, n); none: from zero deviation.

    ``after``: a fit of this movie under another prior, to start where this one's optimum lies if the correlation is quadratic around
    the other's, with the curvature that is expected: that saves iterations. Returns a :class:`Fit`.
    """
    batch, n, frames = prior.shape
    split = n * frames * 2
    surfaces = spline.Surfaces(maps.coefficients.flatten(0, 1))
    origin = (maps.residual_yx_angstrom / maps.step_angstrom + maps.center).to(torch.float64)

    def unpack(x):
        return x[:, :split].reshape(batch, n, frames, 2), x[:, split:].reshape(batch, frames, 2)

    def pack(z, g):
        return torch.cat([z.flatten(1), g.flatten(1)], dim=1)

    def correlate(deviation):
        position = torch.add(origin, deviation, alpha=1.0 / maps.step_angstrom)
        value, slope = surfaces.evaluate(position.reshape(batch, n * frames, 2))
        return value.sum(-1), slope.reshape(batch, n, frames, 2) / maps.step_angstrom

    def evaluate(x):
        value, force = correlate(prior.deviation(*unpack(x)))
        return 0.5 * (x * x).sum(-1) - value, x - pack(*prior.adjoint(force))

    curvature = maps.curvature.mean(0).to(torch.float64).expand(batch, frames)
    metric = Metric(prior, curvature)
    if after is not None:
        start = pack(*metric.solve(*prior.adjoint(after.force + curvature[:, None, :, None] * (after.deviation - prior.shift.mean[:, None]))))
    elif start is None:
        start = torch.zeros(batch, split + frames * 2, dtype=torch.float64, device=origin.device)
    result = minimise.minimise(evaluate, start, lambda v: pack(*metric.solve(*unpack(v))), max_iterations, tolerance)
    deviation = prior.deviation(*unpack(result.x))
    return Fit(deviation, result.x, correlate(deviation)[1], prior, curvature, metric, result.value, result.iterations, result.reason)
