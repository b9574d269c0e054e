"""Evidence of many strengths of one prior at once: a handful of frame x frame decompositions serves all modes.

With measurements y = deviation + noise of variance 1 / h_f, mode m of the spatial kernel (eigenvalue lambda_m) has the covariance
N + lambda_m T: N = offset + jitter + noise, T the motion's own. One generalised eigendecomposition T = W diag(mu) W^T, N = W W^T makes
all of them diagonal; the shift common to all particles is one more frame x frame matrix (Woodbury). Only for priors whose velocities
and accelerations share the kernel.
"""
import torch

from .prior import motion_covariance, spatial_modes


def evidence_of_scales(hyper, pairs, measured, curvature, position_yx_angstrom, dose_e_per_A2):
    """log p(measured | prior) up to a constant, both axes together, float64 (b,).

    ``pairs`` b (factor of velocity, acceleration and jitter; factor of the global shift); ``measured`` (P, F, 2) A; ``curvature``
    (F,) inverse variances per axis; ``hyper`` with correlated accelerations.
    """
    scales = torch.tensor(pairs, dtype=torch.float64, device=measured.device)
    n, frames = measured.shape[:2]
    eye = torch.eye(frames, dtype=torch.float64, device=measured.device)
    eigenvalue, modes = spatial_modes(hyper.correlation_distance_angstrom, hyper.kernel, position_yx_angstrom)
    motion = scales[:, 0, None, None] ** 2
    fixed = hyper.offset_angstrom ** 2 * torch.ones_like(eye) + torch.diag(1.0 / curvature) + motion * hyper.jitter_angstrom ** 2 * eye
    root = torch.linalg.cholesky(fixed)                                                     # (b, F, F)
    half = torch.linalg.solve_triangular(root, motion * motion_covariance(hyper, dose_e_per_A2), upper=False)
    whitened = torch.linalg.solve_triangular(root, half.transpose(-1, -2), upper=False)
    mu, turn = torch.linalg.eigh(0.5 * (whitened + whitened.transpose(-1, -2)))
    inverse = turn.transpose(-1, -2) @ torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)        # W^-1
    size = 1.0 + eigenvalue[:, None] * mu.clamp(min=0.0)[:, None]                           # (b, mode, i)
    z = torch.einsum("bif,mfa->bmia", inverse, torch.einsum("pm,pfa->mfa", modes, measured))
    squares = (z ** 2 / size[..., None]).sum((1, 2, 3))
    logarithm = 2.0 * n * root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + size.log().sum((1, 2))
    sums = modes.sum(0)
    variance = (scales[:, 1] * hyper.global_angstrom) ** 2
    shared = inverse.transpose(-1, -2) @ ((sums[:, None] ** 2 / size).sum(1)[..., None] * inverse)
    schur = torch.linalg.cholesky(eye + variance[:, None, None] * 0.5 * (shared + shared.transpose(-1, -2)))
    force = inverse.transpose(-1, -2) @ (sums[:, None, None] * z / size[..., None]).sum(1)  # (b, F, axis)
    taken = variance * torch.linalg.solve_triangular(schur, force, upper=False).square().sum((1, 2))
    logarithm = logarithm + 2.0 * schur.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (squares - taken) - logarithm
