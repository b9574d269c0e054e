"""Cubic B-spline surfaces sampled on small square windows: value, gradient and curvature at arbitrary points."""
import torch

TAPS = 4
SOFT_SAMPLES = 1.0     # outermost samples of a window, where positions from beyond end up


def prefilter_gain(frequency, step):
    """Factor that turns samples of a band-limited function into cubic B-spline coefficients.

    ``frequency`` cycles per unit, ``step`` sampling distance; returns ``1 / (2/3 + 1/3 cos(2 pi frequency step))``. Applied
    while the samples are computed from their spectrum, so no recursion over a (short) window is needed.
    Source: Unser, Aldroubi & Eden 1993, eq. 2.12.
    """
    return 1.0 / (2.0 / 3.0 + torch.cos(2.0 * torch.pi * frequency * step) / 3.0)


def tap_weights(fraction):
    """Weights of the four neighbours and their derivatives: each (..., 4) for ``fraction`` in [0, 1)."""
    t = fraction
    u = 1.0 - t
    value = torch.stack([u ** 3 / 6, (3 * t ** 3 - 6 * t ** 2 + 4) / 6, (3 * u ** 3 - 6 * u ** 2 + 4) / 6, t ** 3 / 6], dim=-1)
    slope = torch.stack([-u ** 2 / 2, (3 * t ** 2 - 4 * t) / 2, (4 * u - 3 * u ** 2) / 2, t ** 2 / 2], dim=-1)
    return value, slope


def evaluate(coefficients, position_yx):
    """Value and gradient of spline surfaces.

    Parameters: ``coefficients`` (n, w, w); ``position_yx`` (..., n, 2) in samples from the window's first sample.
    Returns value (..., n) and gradient (..., n, 2) per sample distance. Positions outside [2, w - 3] are drawn back smoothly, so
    that nothing outside the window is ever read: the surface goes on without a jump of value or gradient, levels off and stays
    bounded. Otherwise a fit could win without limit where there are no data.
    """
    n, width = coefficients.shape[0], coefficients.shape[-1]
    held, passed = _drawn_back(position_yx, 1.0 + SOFT_SAMPLES, width - 2.0 - SOFT_SAMPLES)
    base = held.floor().clamp(1.0, width - 3.0)
    weight, slope = tap_weights(held - base)              # (..., n, yx, tap)
    first = base.long() - 1                               # (..., n, yx)
    tap = torch.arange(TAPS, device=coefficients.device)
    corner = first[..., 0] * width + first[..., 1] + torch.arange(n, device=coefficients.device) * (width * width)
    index = corner[..., None] + (tap[:, None] * width + tap).flatten()
    near = coefficients.reshape(-1).index_select(0, index.flatten()).view(corner.shape + (TAPS, TAPS)).to(position_yx.dtype)
    in_x, in_y = (torch.stack([weight[..., axis, :], slope[..., axis, :]], dim=-1) for axis in (1, 0))       # (..., n, tap, value or slope)
    both = in_y.transpose(-1, -2) @ (near @ in_x)                             # (..., n, 2, 2)
    return both[..., 0, 0], torch.stack([both[..., 1, 0], both[..., 0, 1]], dim=-1) * passed


def _drawn_back(position, low, high):
    """Positions with what exceeds [low, high] shortened to less than SOFT_SAMPLES, and the derivative of that, in [0, 1]."""
    inside = position.clamp(low, high)
    turn = torch.tanh((position - inside) / SOFT_SAMPLES)
    return inside + SOFT_SAMPLES * turn, 1.0 - turn * turn
