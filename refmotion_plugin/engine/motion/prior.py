"""The motion prior: a Gaussian over the deviations of all particles and frames of a movie from the input motion.

deviation[p, f] = smooth[p, f] + offset[p] + jitter[p, f] + shift[f], per axis, ``shift`` as in common.py. ``smooth`` is given by its velocities and
accelerations, both with the standard deviation sigma (1 + beta exp(-N / tau)) at dose N, correlated over particles by the kernel K.
In the basis K = U diag(lambda) U^T each mode has one (frame x frame) covariance: everything costs one small factorisation per mode.
Sources: Zivanov, Nakane & Scheres 2019, eqs. 5-8 (velocity and acceleration); the dose dependence, jitter and shift are ours.
"""
import math
from dataclasses import dataclass

import torch

from .common import CommonShift, common_shift
from .timeline import Columns, Timeline

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


def velocity_precisions(sets, timeline):
    """Velocity and acceleration parts (b, F - 1, F - 1) of the precision of one unit-variance mode's velocities, 1/A^2, of ``Columns``.

    Both strengths are per e/A^2 and scale with the dose of a frame.
    """
    precision, turns = timeline.strengths(sets) ** -2, timeline.turns
    velocity, acceleration = precision[:, :turns.shape[1]] * sets.velocity, precision[:, turns.shape[1]:] * sets.acceleration
    return torch.diag_embed(velocity), turns.T @ (turns * acceleration[..., None])


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
    eigenvalue, modes = (torch.stack(part) for part in zip(*(shared[h.correlation_distance_angstrom, h.kernel] for h in hypers)))
    sets, timeline = Columns.of(hypers, dose_e_per_A2.device), Timeline(dose_e_per_A2, course_yx_angstrom)
    motion = _motion_of_modes([h.correlated_acceleration for h in hypers], sets, eigenvalue[..., None, None], timeline)
    covariance = motion + (sets.offset[..., None] + sets.followed[..., None] * timeline.eye)[:, None]
    return MotionPrior(modes, _cholesky(covariance, timeline.eye), common_shift(sets, timeline), sets.left_out[:, 0])


def spatial_modes(correlation_angstrom, kind, position):
    """Eigenvalues (P,) and modes (P, P) of the spatial kernel."""
    distance = torch.cdist(position, position, compute_mode="donot_use_mm_for_euclid_dist")
    eigenvalue, modes = torch.linalg.eigh(spatial_kernel(distance, correlation_angstrom, kind))
    return torch.maximum(eigenvalue, EIGENVALUE_FLOOR * eigenvalue[-1]), modes


def _motion_of_modes(correlated, sets, eigenvalue, timeline):
    """Covariances (b, P, F, F) of the modes' motion; ``eigenvalue`` (b, P, 1, 1), ``correlated`` accelerations or not, b times."""
    precisions = velocity_precisions(sets, timeline)
    if all(correlated):                        # both parts share the kernel: one inverse serves all modes
        root = motion_root(sum(precisions), timeline)[:, None]
        return (root.transpose(-1, -2) @ root) * eigenvalue
    velocity, acceleration = (part[:, None] / eigenvalue for part in precisions)
    own = torch.stack([a if shared else a * e for shared, a, e in zip(correlated, acceleration, eigenvalue)])
    root = motion_root(velocity + own, timeline)
    return root.transpose(-1, -2) @ root


def motion_root(precision, timeline):
    """Root B (..., F - 1, F) of the covariance B^T B of trajectories of mean zero whose velocities have a precision (..., F - 1, F - 1).

    Inverted in velocities, where it is regular: beside the offset a stiff precision would lose it, or not be invertible.
    """
    root = torch.linalg.cholesky_ex(precision)[0]            # a precision is positive: no look whether it failed
    return torch.linalg.solve_triangular(root, timeline.positions.T, upper=False)


def _cholesky(covariance, eye):
    """Lower factor; a relative 1e-10 on the diagonal keeps stiff priors factorable in double precision."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
    return torch.linalg.cholesky(covariance + 1e-10 * scale * eye)
