"""The motion prior: a Gaussian over the deviations of all particles and frames of a movie from the input motion.

deviation[p, f] = smooth[p, f] + offset[p] + jitter[p, f] + shift[f], per axis, ``shift`` as in common.py. ``smooth`` is given by its velocities and
accelerations, both with the standard deviation sigma (1 + beta exp(-N / tau)) at dose N, correlated over particles by the kernel K.
In the basis K = U diag(lambda) U^T each mode has one (frame x frame) covariance: everything costs one small factorisation per mode.
Sources: Zivanov, Nakane & Scheres 2019, eqs. 5-8 (velocity and acceleration); the dose dependence, jitter and shift are ours.
"""
import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from refmotion_plugin.contract.records import Hyperparameters

from .common import CommonShift, acceleration_sd, common_shift

EIGENVALUE_FLOOR = 1e-6     # of the largest: modes below cannot be told from zero motion


@dataclass(frozen=True)
class MotionPrior:
    """Factors of the prior covariance of one movie; b = hyperparameter sets solved together.

    ``modes`` (b, P, P) columns are spatial modes; ``factor`` (b, P, F, F) lower Cholesky factors of the modes' covariances;
    ``shift`` what all particles share; ``left_out`` (b,) variance of a jitter that is in none of them and only adds to errors, A^2.
    Coordinates are whitened: z (b, P, F, 2) for the modes, g (b, F, 2) for the shift.
    """

    modes: torch.Tensor
    factor: torch.Tensor
    shift: CommonShift
    left_out: torch.Tensor

    @property
    def shape(self):
        """(b, particles, frames)."""
        return self.factor.shape[:3]

    def deviation(self, z, g):
        """Whitened coordinates -> deviation (b, P, F, 2), A."""
        smooth = torch.einsum("bpm,bmfa->bpfa", self.modes, self.factor @ z)
        return smooth + (self.shift.mean + self.shift.factor @ g)[:, None]

    def adjoint(self, gradient):
        """Transpose of the linear part of :meth:`deviation`: (b, P, F, 2) -> z and g parts."""
        z = self.factor.transpose(-1, -2) @ torch.einsum("bpm,bpfa->bmfa", self.modes, gradient)
        return z, self.shift.factor.transpose(-1, -2) @ gradient.sum(1)


def spatial_kernel(distance_angstrom, correlation_angstrom, kind):
    """K(r): ``exponential`` exp(-r/s) or ``matern`` (3/2) (1 + sqrt(3) r/s) exp(-sqrt(3) r/s)."""
    if kind == "exponential":
        return torch.exp(-distance_angstrom / correlation_angstrom)
    if kind == "matern":
        scaled = math.sqrt(3.0) * distance_angstrom / correlation_angstrom
        return (1.0 + scaled) * torch.exp(-scaled)
    raise ValueError("spatial kernel is %r: 'matern' or 'exponential' was expected" % (kind,))


def temporal_precisions(hyper: Hyperparameters, dose_e_per_A2):
    """Velocity and acceleration parts (F, F) of the precision of one unit-variance mode, 1/A^2.

    ``dose_e_per_A2`` (F,) at mid-frame. A velocity belongs to the dose between its two frames, an acceleration to its middle
    frame; both strengths are per e/A^2 and scale with the dose of a frame.
    """
    n = len(dose_e_per_A2)
    step = torch.diff(dose_e_per_A2)
    first = torch.diff(torch.eye(n, dtype=torch.float64, device=dose_e_per_A2.device), dim=0)
    early = lambda dose: 1.0 + hyper.early_factor * torch.exp(-dose / hyper.early_dose_e_per_A2)
    between = 0.5 * (dose_e_per_A2[1:] + dose_e_per_A2[:-1])
    sd_velocity = hyper.velocity_sigma * step * early(between)
    velocity = first.T @ (first / sd_velocity[:, None] ** 2)
    if n < 3:
        return velocity, torch.zeros_like(velocity)
    second = torch.diff(first, dim=0)
    sd_acceleration = acceleration_sd(hyper, hyper.acceleration_sigma, dose_e_per_A2)
    return velocity, second.T @ (second / sd_acceleration[:, None] ** 2)


def build_prior(hypers, position_yx_angstrom, dose_e_per_A2, course_yx_angstrom=None):
    """Prior factors for one movie and one or more hyperparameter sets.

    ``hypers`` list of Hyperparameters; ``position_yx_angstrom`` (P, 2), ``dose_e_per_A2`` (F,) and, if known, the input's rigid motion
    ``course_yx_angstrom`` (F, 2), float64 tensors. With one frame there is nothing but the offset, the jitter and the shift.
    """
    shared = {}
    for h in hypers:
        key = h.correlation_distance_angstrom, h.kernel
        if key not in shared:
            shared[key] = spatial_modes(*key, position_yx_angstrom)
    spatial = [shared[h.correlation_distance_angstrom, h.kernel] for h in hypers]
    factor = torch.stack([_factors(h, eigenvalue, dose_e_per_A2) for h, (eigenvalue, _) in zip(hypers, spatial)])
    left_out = factor.new_tensor([0.0 if h.jitter_followed else h.jitter_angstrom ** 2 for h in hypers])
    return MotionPrior(torch.stack([modes for _, modes in spatial]), factor, common_shift(hypers, dose_e_per_A2, course_yx_angstrom), left_out)


def spatial_modes(correlation_angstrom, kind, position):
    """Eigenvalues (P,) and modes (P, P) of the spatial kernel."""
    distance = torch.cdist(position, position, compute_mode="donot_use_mm_for_euclid_dist")
    eigenvalue, modes = torch.linalg.eigh(spatial_kernel(distance, correlation_angstrom, kind))
    return eigenvalue.clamp(min=EIGENVALUE_FLOOR * float(eigenvalue[-1])), modes


def _factors(hyper, eigenvalue, dose):
    """Cholesky factors (P, F, F) of the modes' covariances."""
    n = len(dose)
    eye = torch.eye(n, dtype=torch.float64, device=dose.device)
    covariance = hyper.offset_angstrom ** 2 * torch.ones_like(eye).expand(len(eigenvalue), n, n)
    if n > 1:
        if hyper.correlated_acceleration:      # both parts share the kernel: one inverse serves all modes
            motion = motion_covariance(hyper, dose) * eigenvalue[:, None, None]
        else:
            velocity, acceleration = temporal_precisions(hyper, dose)
            motion = _inverse_up_to_constants(velocity / eigenvalue[:, None, None] + acceleration)
        covariance = covariance + motion
    covariance = 0.5 * (covariance + covariance.transpose(-1, -2))
    if hyper.jitter_followed:
        covariance = covariance + hyper.jitter_angstrom ** 2 * eye
    return _cholesky(covariance)


def motion_covariance(hyper: Hyperparameters, dose_e_per_A2):
    """Covariance (F, F) of the motion of one unit-variance mode whose velocities and accelerations share the kernel, A^2."""
    if len(dose_e_per_A2) == 1:
        return torch.zeros(1, 1, dtype=torch.float64, device=dose_e_per_A2.device)
    velocity, acceleration = temporal_precisions(hyper, dose_e_per_A2)
    return _inverse_up_to_constants((velocity + acceleration)[None])[0]


def _inverse_up_to_constants(precision):
    """Covariance (m, F, F) of trajectories of mean zero from precisions that know nothing of constants.

    Inverted in velocities, where it is regular: beside the offset a stiff precision would lose it, or not be invertible.
    """
    position = _positions(precision.shape[-1]).to(precision)
    return position @ torch.linalg.inv(position.T @ precision @ position) @ position.T


@lru_cache(maxsize=16)
def _positions(n):
    """Matrix (F, F - 1): velocities -> positions of mean zero."""
    return torch.linalg.pinv(torch.diff(torch.eye(n, dtype=torch.float64), dim=0))


def _cholesky(covariance):
    """Lower factor; a relative 1e-10 on the diagonal keeps stiff priors factorable in double precision."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.cholesky(covariance + 1e-10 * scale * eye)
