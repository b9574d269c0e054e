"""What a particle's motion would be without its own data: the prediction of all others. Judged by that particle's data, it cannot
flatter itself by following their noise.

At the optimum x of E = prior - sum_q CC_q the gradient vanishes, so without particle p it is the force g_p of p's own correlation.
One Newton step, x - (M - H_p)^-1 g_p with the metric M of the fit and p's share H_p of it, is the optimum without p as far as the
*other* particles' curvature is what is expected; p's own correlation enters by its exact gradient alone.
"""
import torch

from .fit import Fit


def without_own_data(fit: Fit):
    """Each particle's motion without its own data but for its constant offset, which only they tell.

    Returns deviations (b, P, F, 2), A, and what the others leave unknown of them: mean square over frames and per axis (b, P), A^2.
    The offset is the best one for this motion as far as the correlation is quadratic: ``sum_f h_f (d_own - d) = 0``.
    """
    predicted, by_others = prediction_of_others(fit)
    eye = torch.eye(by_others.shape[-1], dtype=by_others.dtype, device=by_others.device)
    weight = fit.curvature / fit.curvature.sum(-1, keepdim=True)                      # (b, F)
    free = eye - weight[:, None, :]
    unknown = torch.einsum("bf,bfg,bpgh,bfh->bp", weight, free, by_others, free)
    return with_offset_of(predicted, fit), unknown.clamp(min=0.0)


def prediction_of_others(fit: Fit):
    """What all others say of a particle: mean (b, P, F, 2), A, and covariance per axis (b, P, F, F), A^2."""
    covariance = fit.metric.covariance_blocks(fit.prior)
    weighted = covariance * fit.curvature[:, None, None, :]
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    by_others = torch.linalg.solve(eye - weighted, covariance)
    return fit.deviation - by_others @ fit.force, by_others


def input_motion(fit: Fit):
    """The input motion with each particle's best constant offset, found by the same rule: deviations (b, P, F, 2), A."""
    return with_offset_of(torch.zeros_like(fit.deviation), fit)


def with_offset_of(deviation, fit: Fit):
    """Deviations with the constant of each particle chosen so that their weighted mean over frames is that of the fit."""
    weight = (fit.curvature / fit.curvature.sum(-1, keepdim=True))[:, None, :, None]
    return deviation + ((fit.deviation - deviation) * weight).sum(-2, keepdim=True)
