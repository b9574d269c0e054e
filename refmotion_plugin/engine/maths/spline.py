"""Cubic B-spline surfaces sampled on small square windows: value and gradient at arbitrary points."""
import torch

TAPS = 4
# weights of the four neighbours as polynomials of the fraction t in [0, 1): rows are powers of t, columns the neighbours, times 6
VALUE = ((1.0, 4.0, 1.0, 0.0), (-3.0, 0.0, 3.0, 0.0), (3.0, -6.0, 3.0, 0.0), (-1.0, 3.0, -3.0, 1.0))
SLOPE = tuple(tuple(power * w for w in VALUE[power]) for power in (1, 2, 3)) + ((0.0,) * TAPS,)        # their derivatives


def prefilter_gain(frequency, step):
    """Factor that turns samples of a band-limited function into cubic B-spline coefficients.

    ``frequency`` cycles per unit, ``step`` sampling distance; returns ``1 / (2/3 + 1/3 cos(2 pi frequency step))``. Applied
    while the samples are computed from their spectrum, so no recursion over a (short) window is needed.
    Source: Unser, Aldroubi & Eden 1993, eq. 2.12.
    """
    return 1.0 / (2.0 / 3.0 + torch.cos(2.0 * torch.pi * frequency * step) / 3.0)


class Surfaces:
    """Spline surfaces of ``coefficients`` (n, w, w), prepared to be evaluated in ``dtype``."""

    def __init__(self, coefficients, dtype=torch.float64):
        n, self.width = coefficients.shape[0], coefficients.shape[-1]
        device, tap = coefficients.device, torch.arange(TAPS, device=coefficients.device)
        self.flat = coefficients.reshape(-1)
        window = torch.arange(n, device=device)[:, None] * self.width ** 2
        self.taps = window + (tap[:, None] * self.width + tap).flatten() - self.width - 1                # (n, 16) around base (0, 0)
        weights = torch.tensor([[slope, value, value, slope] for value, slope in zip(VALUE, SLOPE)], dtype=dtype) / 6.0
        self.powers = weights.reshape(-1, 2, 2, TAPS).to(device, non_blocking=True)                      # (power, yx, which, tap)

    def evaluate(self, position_yx):
        """Value (..., n) and gradient (..., n, 2) per sample distance at ``position_yx`` (..., n, 2), in samples from the first sample.

        Positions outside [2, w - 3] are drawn back smoothly by less than a sample, so that nothing outside the window is ever read: the
        surface goes on without a jump of value or gradient, levels off and stays bounded. Otherwise a fit could win without limit
        where there are no data.
        """
        inside = position_yx.clamp(2.0, self.width - 3.0)
        turn = torch.tanh(position_yx - inside)
        held = inside + turn
        base = held.floor().clamp(1.0, self.width - 3.0)
        in_y, in_x = self._weights(held - base).unbind(-3)                       # (..., n, slope and value, tap), in x value and slope
        corner = torch.add(base[..., 1], base[..., 0], alpha=self.width).long()
        index = corner[..., None] + self.taps
        near = self.flat.index_select(0, index.flatten()).to(held.dtype).view(corner.shape + (TAPS, TAPS))
        found = in_y @ (near @ in_x.transpose(-1, -2))                           # ((in y, in both), (value, in x))
        return found[..., 1, 0], found.diagonal(dim1=-2, dim2=-1) * (1.0 - turn * turn)

    def _weights(self, fraction):
        """Weights (..., yx, 2, tap) of the four neighbours along y: slope and value, along x: value and slope."""
        t, (constant, linear, square, cubic) = fraction[..., None, None], self.powers
        return torch.addcmul(constant, t, torch.addcmul(linear, t, torch.addcmul(square, t, cubic)))


def evaluate(coefficients, position_yx):
    """As :meth:`Surfaces.evaluate` where surfaces are looked at once."""
    return Surfaces(coefficients, position_yx.dtype).evaluate(position_yx)
