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
from typing import Optional

import torch

from .common import common_shift
from .correlate import CorrelationMaps
from .escape import fit_out_of_false_peaks
from .fit import Fit
from .prior import build_prior, motion_covariance, spatial_modes

LEAST_CURVATURE = 1e-6     # 1/A^2: frames without signal measure nothing


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
    known_modes: dict = field(default_factory=dict, compare=False, repr=False)

    def modes(self, correlation_angstrom, kernel):
        """Spatial modes at these positions, decomposed once."""
        key = correlation_angstrom, kernel
        if key not in self.known_modes:
            self.known_modes[key] = spatial_modes(*key, self.position_yx_angstrom)
        return self.known_modes[key]

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
    curvature, dose = measured.curvature, measured.dose_e_per_A2
    factor = torch.ones(len(hypers), dtype=torch.float64) if noise_factor is None else noise_factor
    noise = torch.diag_embed(factor.to(curvature)[:, None] / curvature)
    column = lambda name: torch.tensor([getattr(h, name) for h in hypers], dtype=torch.float64, device=curvature.device)
    eye = torch.eye(len(dose), dtype=torch.float64, device=curvature.device)
    fixed = column("offset_angstrom")[:, None, None] ** 2 * torch.ones_like(eye) + noise + column("jitter_angstrom")[:, None, None] ** 2 * eye
    motion = torch.stack([motion_covariance(h, dose) for h in hypers])
    kernels = [(h.correlation_distance_angstrom, h.kernel) for h in hypers]
    shift = common_shift(hypers, dose, measured.course_yx_angstrom)
    found = torch.empty(len(hypers), dtype=torch.float64, device=curvature.device)
    for kernel in dict.fromkeys(kernels):
        which = [i for i, own in enumerate(kernels) if own == kernel]
        found[which] = _log_normal(measured.deviation, *measured.modes(*kernel), fixed[which], motion[which],
                                   shift.mean[which], shift.factor[which])
    return found + shift.log_probability


def _log_normal(measured, eigenvalue, modes, fixed, motion, mean, factor):
    """Logarithm of the normal density of measurements, without its 2 pi.

    Covariances: ``fixed`` (b, F, F) in all modes, ``motion`` (b, F, F) times each mode's eigenvalue; ``mean`` (b, F, 2) and
    ``factor`` (b, F, F) of the common shift.
    """
    n, eye = len(measured), torch.eye(measured.shape[1], dtype=torch.float64, device=measured.device)
    root = torch.linalg.cholesky(fixed)                                                     # (b, F, F)
    half = torch.linalg.solve_triangular(root, motion, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.transpose(-1, -2), upper=False)
    mu, turn = torch.linalg.eigh(0.5 * (whitened + whitened.transpose(-1, -2)))
    inverse = turn.transpose(-1, -2) @ torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)        # W^-1
    size = 1.0 + eigenvalue[:, None] * mu.clamp(min=0.0)[:, None]                           # (b, mode, i)
    sums = modes.sum(0)
    centred = torch.einsum("pm,pfa->mfa", modes, measured) - sums[:, None, None] * mean[:, None]                      # (b, mode, F, axis)
    z = torch.einsum("bif,bmfa->bmia", inverse, centred)
    squares = (z ** 2 / size[..., None]).sum((1, 2, 3))
    logarithm = 2.0 * n * root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + size.log().sum((1, 2))
    response = inverse @ factor                                                             # (b, i, F g)
    shared = response.transpose(-1, -2) @ ((sums[:, None] ** 2 / size).sum(1)[..., None] * response)
    schur = torch.linalg.cholesky(eye + 0.5 * (shared + shared.transpose(-1, -2)))
    force = response.transpose(-1, -2) @ (sums[:, None, None] * z / size[..., None]).sum(1)    # (b, F g, axis)
    taken = torch.linalg.solve_triangular(schur, force, upper=False).square().sum((1, 2))
    logarithm = logarithm + 2.0 * schur.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (squares - taken) - logarithm
