"""The shift that all particles of a frame share: errors of the input's rigid motion.

The rigid motion of the input is a measurement, course = true course + white error of standard deviation sigma_g per frame. The true course of
a movie is smooth: its accelerations have the standard deviation sigma_c (1 + beta exp(-N / tau)) per e/A^2, its place and
velocity are free. So given the course, the shift to be added to it has a mean (the course smoothed, minus the course) and a covariance that
is smaller than sigma_g^2; and the course itself says how probable both strengths are. RELION's prior acts on the whole motion and
so smooths the input too (Zivanov, Nakane & Scheres 2019); here it does so as far as the data want it.
"""
from dataclasses import dataclass

import torch

FACTORABLE = 1e-10          # of the variance, added to the diagonal


@dataclass(frozen=True)
class CommonShift:
    """Shift per frame and axis of b hyperparameter sets: ``mean`` (b, F, 2) A, ``factor`` (b, F, F) lower Cholesky factor of its covariance.

    ``log_probability`` (b,): of the course's accelerations, both axes together, up to a constant; 0 where there is no course.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    log_probability: torch.Tensor


def common_shift(sets, timeline):
    """The :class:`CommonShift` of hyperparameter sets, given as ``Columns``. Where the course is unknown the shift is white."""
    n, variance = len(timeline.dose_e_per_A2), sets.shift[..., None]
    if timeline.course_yx_angstrom is None or n < 3:
        return CommonShift(variance.new_zeros(len(variance), n, 2), variance.sqrt() * timeline.eye, variance.new_zeros(len(variance)))
    allowed = timeline.strengths(sets)[:, n - 1:] ** 2 * sets.common
    # both are positive and only their lower triangles are read: no look whether they could be factored, which makes the host wait
    root = torch.linalg.cholesky_ex(torch.diag_embed(allowed) + variance * timeline.bends_product)[0]
    solved = torch.linalg.solve_triangular(root, timeline.bends, upper=False)                             # (b, F - 2, F + 2)
    taken = variance * (solved[..., :n].transpose(-1, -2) @ solved)                                       # (b, F, F + 2)
    left = variance.sqrt() * torch.linalg.cholesky_ex((1.0 + FACTORABLE) * timeline.eye - taken[..., :n])[0]
    logarithm = -0.5 * solved[..., n:].square().sum((1, 2)) - 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return CommonShift(-taken[..., n:], left, logarithm)
