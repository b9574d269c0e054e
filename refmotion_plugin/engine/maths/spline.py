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
        self.window = torch.arange(n, device=device) * self.width ** 2 - self.width - 1         # where the neighbours of base (0, 0) begin
        self.taps = (tap[:, None] * self.width + tap).flatten()
        self.powers = torch.tensor([VALUE, SLOPE], dtype=dtype).transpose(0, 1).div(6.0).to(device, non_blocking=True)    # (power, which, tap)

    def evaluate(self, position_yx):
        """Value (..., n) and gradient (..., n, 2) per sample distance at ``position_yx`` (..., n, 2), in samples from the first sample.

        Positions outside [2, w - 3] are drawn back smoothly by less than a sample, so that nothing outside the window is ever read: the
        surface goes on without a jump of value or gradient, levels off and stays bounded. Otherwise a fit could win without limit
        where there are no data. Points come last inside, so that arithmetic runs along them.
        """
        position = position_yx.movedim(-1, 0).contiguous()
        inside = position.clamp(2.0, self.width - 3.0)
        turn = torch.tanh(position - inside)
        held = inside + turn
        base = held.floor().clamp_(1.0, self.width - 3.0)
        in_y, in_x = self._weights(held - base).unbind(2)                       # (value and slope, tap, ..., n)
        corner = torch.add(base[1], base[0], alpha=self.width).long() + self.window
        index = corner + _beside(self.taps, corner)
        near = self.flat.index_select(0, index.flatten()).to(held.dtype).view((TAPS, TAPS) + corner.shape)
        value, slope = (near * in_x[:, None]).sum(2)                            # along x: (tap in y, ..., n)
        value, slope_y = (value * in_y).sum(1)
        return value, torch.stack([slope_y, (slope * in_y[0]).sum(0)], dim=-1) * (1.0 - turn * turn).movedim(0, -1)

    def _weights(self, fraction):
        """Weights (value and slope, tap, yx, ..., n) of the four neighbours along y and x for fractions (yx, ..., n)."""
        constant, linear, square, cubic = _beside(self.powers, fraction)
        return torch.addcmul(constant, fraction, torch.addcmul(linear, fraction, square + fraction * cubic))


def _beside(factors, points):
    """Factors as the first axes of a product with points."""
    return factors.reshape(tuple(factors.shape) + (1,) * points.dim())


def evaluate(coefficients, position_yx):
    """As :meth:`Surfaces.evaluate` where surfaces are looked at once."""
    return Surfaces(coefficients, position_yx.dtype).evaluate(position_yx)
