"""The shift that all particles of a frame share: errors of the input's rigid motion.

The rigid motion of the input is a measurement, course = true course + white error of standard deviation sigma_g per frame. The true course of
a movie is smooth: its accelerations have the standard deviation sigma_c (1 + beta exp(-N / tau)) per e/A^2, its place and
velocity are free. So given the course, the shift to be added to it has a mean (the course smoothed, minus the course) and a covariance that
is smaller than sigma_g^2; and the course itself says how probable both strengths are. RELION's prior acts on the whole motion and
so smooths the input too (Zivanov, Nakane & Scheres 2019); here it does so as far as the data want it.
"""
from dataclasses import dataclass

import torch

UNKNOWN_SIGMA = 1e6         # A per e/A^2: a course of which nothing is known
FACTORABLE = 1e-10          # of the variance, added to the diagonal


@dataclass(frozen=True)
class CommonShift:
    """Shift per frame and axis of b hyperparameter sets: ``mean`` (b, F, 2) A, ``factor`` (b, F, F) lower Cholesky factor of its covariance.

    ``log_probability`` (b,): of the course's accelerations, both axes together, up to a constant; 0 where there is no course.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    log_probability: torch.Tensor


def common_shift(hypers, dose_e_per_A2, course_yx_angstrom=None):
    """The :class:`CommonShift` of hyperparameter sets.

    ``dose_e_per_A2`` (F,) at mid-frame; ``course_yx_angstrom`` (F, 2) rigid motion of the input, none: unknown, then the shift is white.
    """
    n, like = len(dose_e_per_A2), dict(dtype=torch.float64, device=dose_e_per_A2.device)
    sigma = torch.tensor([h.global_angstrom for h in hypers], **like)[:, None, None]
    eye = torch.eye(n, **like)
    if course_yx_angstrom is None or n < 3:
        return CommonShift(torch.zeros(len(hypers), n, 2, **like), sigma * eye, torch.zeros(len(hypers), **like))
    second = torch.diff(eye, n=2, dim=0)
    allowed = torch.stack([acceleration_sd(h, h.common_sigma or UNKNOWN_SIGMA, dose_e_per_A2) for h in hypers])
    root = torch.linalg.cholesky(torch.diag_embed(allowed ** 2) + sigma ** 2 * (second @ second.T))
    response = torch.linalg.solve_triangular(root, second.expand(len(hypers), -1, -1), upper=False)                   # (b, F - 2, F)
    bend = torch.linalg.solve_triangular(root, (second @ course_yx_angstrom).expand(len(hypers), -1, -1), upper=False)
    transposed = response.transpose(-1, -2)
    left = (1.0 + FACTORABLE) * eye - sigma ** 2 * (transposed @ response)
    logarithm = -0.5 * bend.square().sum((1, 2)) - 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return CommonShift(-sigma ** 2 * (transposed @ bend), sigma * torch.linalg.cholesky(0.5 * (left + left.transpose(-1, -2))), logarithm)


def acceleration_sd(hyper, sigma, dose_e_per_A2):
    """Standard deviations (F - 2,) A of accelerations of strength ``sigma``, A per e/A^2, at the doses of their middle frames."""
    step = torch.diff(dose_e_per_A2)
    early = 1.0 + hyper.early_factor * torch.exp(-dose_e_per_A2[1:-1] / hyper.early_dose_e_per_A2)
    return sigma * 0.5 * (step[1:] + step[:-1]) * early
