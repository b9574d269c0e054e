"""The evidence of a prior: how probable a movie's correlation maps are under it, with the trajectories integrated out.

Around a fit the correlation is close to quadratic with the expected curvature h, so each particle and frame acts as one
measurement y = d + force / h of the deviation with variance 1 / h. For a Gaussian prior the evidence is then in closed form, so
priors are compared without a fit for each. Source of the principle: MacKay 1992, Neural Computation 4:415-447.

A handful of frame x frame decompositions serves all modes: mode m of the spatial kernel (eigenvalue lambda_m) has the covariance
N + lambda_m T: N = offset + jitter + noise, T the motion's own. One generalised eigendecomposition T = W diag(mu) W^T, N = W W^T makes
all of them diagonal; the shift common to all particles is one more frame x frame matrix (Woodbury). The course of the input counts as
measured too (common.py). Only for priors whose velocities and accelerations share the kernel.
"""
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Optional

import torch

from ..maths.small import eigh_of_few
from .common import common_shift
from .correlate import CorrelationMaps
from .escape import fit_out_of_false_peaks
from .fit import Fit
from .prior import build_prior, motion_root, spatial_modes, velocity_precisions
from .timeline import Columns, Timeline

LEAST_CURVATURE = 1e-6     # 1/A^2: frames without signal measure nothing
# fields of Hyperparameters that each part depends on
OF_FRAMES = ("velocity_sigma", "acceleration_sigma", "early_factor", "early_dose_e_per_A2", "offset_angstrom", "jitter_angstrom")
OF_SHIFT = ("early_factor", "early_dose_e_per_A2", "global_angstrom", "common_sigma")


class SeenModes(NamedTuple):
    """The modes of a spatial kernel: ``eigenvalue`` (P,), ``sums`` (P,) over particles and what is ``measured`` of them (F, 2, P), A."""

    eigenvalue: torch.Tensor
    sums: torch.Tensor
    measured: torch.Tensor


@dataclass(frozen=True)
class Measured:
    """One movie as measurements: ``deviation`` (P, F, 2) A with inverse variances ``curvature`` (F,) per axis, 1/A^2; where and when.

    ``course_yx_angstrom`` (F, 2) the input's rigid motion, None: unknown.
    """

    deviation: torch.Tensor
    curvature: torch.Tensor
    position_yx_angstrom: torch.Tensor
    dose_e_per_A2: torch.Tensor
    course_yx_angstrom: Optional[torch.Tensor] = None
    known_modes: dict = field(default_factory=dict, init=False, compare=False, repr=False)
    latest: dict = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def timeline(self):
        """The movie's frames."""
        return Timeline(self.dose_e_per_A2, self.course_yx_angstrom)

    def modes(self, correlation_angstrom, kernel):
        """:class:`SeenModes` of a kernel, decomposed once."""
        key = correlation_angstrom, kernel
        if key not in self.known_modes:
            eigenvalue, modes = spatial_modes(*key, self.position_yx_angstrom)
            seen = torch.einsum("pfa,pm->fam", self.deviation, modes)
            self.known_modes[key] = SeenModes(eigenvalue, modes.sum(0), seen)
        return self.known_modes[key]

    def once(self, fields, hypers, work):
        """``work(Columns)`` of the sets, which depends on these fields alone.

        Done for one set, which then stands for all, where their values are the same in all, and not again where they are those of last time.
        """
        values = [tuple(getattr(h, name) for name in fields) for h in hypers]
        values = values[:1] if len(set(values)) == 1 else values
        if self.latest.get(fields, (None, None))[0] != values:
            self.latest[fields] = values, work(Columns.of(hypers[:len(values)], self.curvature.device))
        return self.latest[fields][1]

    def prior(self, hypers):
        """The priors of hyperparameter sets at these positions and doses."""
        return build_prior(hypers, self.position_yx_angstrom, self.dose_e_per_A2, self.course_yx_angstrom)


def measured_around(fit: Fit, maps: CorrelationMaps, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom=None):
    """The measurements that the maps amount to near the first set of a fit."""
    curvature = maps.curvature.mean(0).to(torch.float64).clamp(min=LEAST_CURVATURE)
    return Measured(fit.deviation[0] + fit.force[0] / curvature[:, None], curvature, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom)


def measure(maps: CorrelationMaps, hyper, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom=None):
    """Fit under one set; returns the measurements around it and the logarithm of the evidence there, from the maps themselves."""
    prior = build_prior([hyper], position_yx_angstrom, dose_e_per_A2, course_yx_angstrom)
    fit = fit_out_of_false_peaks(maps, prior)
    found = measured_around(fit, maps, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom)
    return found, float(prior.shift.log_probability[0] - fit.energy[0] - fit.metric.log_determinant()[0])


def log_evidence(hypers, measured: Measured, noise_factor=None):
    """log p(measured | set) up to a constant, both axes together, float64 (b,), of b sets with correlated accelerations.

    ``noise_factor`` (b,): variances are 1 / h times this (none: 1). Jitter is white as noise is, but does not grow with damage:
    where the factor is free, an error of a few percent in h is not taken for jitter.
    """
    timeline, device = measured.timeline, measured.curvature.device
    variance = 1.0 / measured.curvature
    if noise_factor is None:
        frames = measured.once(OF_FRAMES, hypers, lambda sets: _decomposed(sets, variance, timeline))
    else:
        frames = _decomposed(Columns.of(hypers, device), noise_factor.to(device, non_blocking=True)[:, None] * variance, timeline)
    shift = measured.once(OF_SHIFT, hypers, lambda sets: common_shift(sets, timeline))
    kernels = [(h.correlation_distance_angstrom, h.kernel) for h in hypers]
    kernels = kernels[:1] if len(set(kernels)) == 1 else kernels
    modes = SeenModes(*(torch.stack(part) for part in zip(*(measured.modes(*kernel) for kernel in kernels))))
    return (_log_normal(*frames, modes, shift, timeline.eye) + shift.log_probability).expand(len(hypers))


def _decomposed(sets, variance, timeline):
    """The covariances N and T of frames made diagonal: W^-1 (b, F, F), mu (b, F), log det N (b,); ``variance`` (b, F) or (F,) of noise."""
    fixed = sets.offset[..., None] + torch.diag_embed(variance + sets.jitter)
    root = torch.linalg.cholesky_ex(fixed)[0]                                               # positive: no look whether it failed
    unit = torch.linalg.solve_triangular(root, timeline.eye, upper=False)
    whitened = motion_root(sum(velocity_precisions(sets, timeline)), timeline) @ unit.transpose(-1, -2)
    mu, turn = eigh_of_few(whitened.transpose(-1, -2) @ whitened)
    return turn.transpose(-1, -2) @ unit, mu.clamp(min=0.0), 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _log_normal(inverse, mu, log_determinant, modes, shift, eye):
    """Logarithm of the normal density of measurements, without its 2 pi, (b,).

    Covariances are diagonal behind ``inverse`` W^-1 (b, F, F): 1 + ``mu`` (b, F) times each mode's eigenvalue; i: row of W^-1. Each argument
    is for b sets or for one, which then stands for all.
    """
    sums, n = modes.sums[:, None], modes.sums.shape[-1]
    size = 1.0 + mu[..., None] * modes.eigenvalue[:, None]                                  # (b, i, mode)
    centred = modes.measured - shift.mean[..., None] * sums[:, None]                        # (b, F, axis, mode)
    z = (inverse @ centred.flatten(2)).unflatten(2, centred.shape[2:])                      # (b, i, axis, mode)
    squares = (z.square() / size[:, :, None]).sum((1, 2, 3))
    weight = sums / size                                                                    # (b, i, mode)
    response = inverse @ shift.factor                                                       # (b, i, F g)
    back = response.transpose(-1, -2)
    schur = torch.linalg.cholesky_ex(eye + back @ ((sums * weight).sum(-1, keepdim=True) * response))[0]
    force = back @ (z @ weight[..., None])[..., 0]                                          # (b, F g, axis)
    taken = torch.linalg.solve_triangular(schur, force, upper=False).square().sum((1, 2))
    logarithm = n * log_determinant + size.log().sum((1, 2)) + 2.0 * schur.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (squares - taken) - logarithm
