"""Correlation maps: the log-likelihood of each particle and frame on a small window of displacements.

CC_pf(x) = sum_k Re[ Y_pf(k) conj(S D_f sinc A_p)(k) / sigma^2(k) exp(2 pi i k . x) ] over the full plane, x from the box centre.
The window is a separable DFT of the band, stored as cubic B-spline coefficients. Source: Zivanov et al. 2019, eq. 4.
"""
from dataclasses import dataclass, replace
from typing import Callable

import torch

from ..maths.fourier import FourierGrid, cache_parts
from ..maths.spline import prefilter_gain
from .model import SignalModel

OVERSAMPLING = 2.65   # samples per Nyquist distance of the band; cubic splines are exact to 1e-3 there
SPLINE_MARGIN = 2     # samples a spline needs beyond the window's radius


@dataclass(frozen=True)
class CorrelationMaps:
    """``coefficients`` float32 (P, F, w, w) B-spline; sample distance ``step_angstrom``; ``center`` index of displacement 0.

    ``residual_yx_angstrom`` (P, F, 2): where zero deviation from the starting trajectory lies, since patches are cut at whole
    pixels. ``curvature`` (P, F) expected curvature per axis, 1/A^2.
    """

    coefficients: torch.Tensor
    step_angstrom: float
    center: int
    residual_yx_angstrom: torch.Tensor
    curvature: torch.Tensor


@dataclass(frozen=True)
class Window:
    """Displacements at which maps are sampled: ``width`` samples ``step_angstrom`` apart, the middle one is zero."""

    step_angstrom: float
    width: int

    @staticmethod
    def covering(radius_angstrom, band_per_angstrom):
        """Window of at least ``radius_angstrom`` to each side for a band that ends at ``band_per_angstrom``."""
        step = 1.0 / (2.0 * band_per_angstrom * OVERSAMPLING)
        return Window(step, 2 * (int(radius_angstrom / step + 0.999) + SPLINE_MARGIN) + 1)

    def transform(self, grid: FourierGrid, device):
        """The separable DFT from the band to this window, prepared for many frames."""
        x = (torch.arange(self.width, device=device, dtype=torch.float64) - self.width // 2) * self.step_angstrom
        turns = []
        for index in grid.index_yx(device, torch.float64):
            frequency = index * grid.step_per_angstrom
            gain = prefilter_gain(frequency, self.step_angstrom)
            turns.append((gain, 2.0 * torch.pi * x[:, None] * frequency))
        (gain_y, angle_y), (gain_x, angle_x) = turns
        half, middle = grid.kept_px // 2, self.width // 2
        cosine, sine = gain_x * angle_x.cos(), gain_x * angle_x.sin()
        pair = lambda re, im: torch.stack([re, im], dim=-1).flatten(-2).T.to(torch.float32).contiguous()
        return _WindowTransform((gain_y * angle_y.cos())[middle:, :half].to(torch.float32),
                                (gain_y * angle_y.sin())[middle:, 1:half].to(torch.float32), pair(cosine, -sine), pair(-sine, -cosine))


@dataclass(frozen=True)
class _WindowTransform:
    """Real part of a DFT to a symmetric window; frequencies +-ky and rows +-y share their products, all of them real.

    ``even`` (m + 1, h / 2), ``odd`` (m + 1, h / 2 - 1): cosines and sines of rows y >= 0; ``x_even``, ``x_odd`` (2 w, width) act on
    interleaved (re, im) columns. The row of the highest negative frequency lies outside every band and is left out.
    """

    even: torch.Tensor
    odd: torch.Tensor
    x_even: torch.Tensor
    x_odd: torch.Tensor

    def __call__(self, product):
        """Complex (P, h, w) -> real (P, width, width)."""
        half = product.shape[-2] // 2
        upper, lower = product[:, 1:half], product[:, half + 1:].flip(1)
        even = torch.cat([product[:, :1], upper + lower], dim=1)
        a = torch.matmul(torch.matmul(self.even, torch.view_as_real(even).flatten(-2)), self.x_even)
        b = torch.matmul(torch.matmul(self.odd, torch.view_as_real(upper - lower).flatten(-2)), self.x_odd)
        return torch.cat([(a - b)[:, 1:].flip(1), a + b], dim=1)


def correlate_frames(spectrum_of: Callable, model: SignalModel, window: Window, frames, out):
    """Fill ``out`` (P, F, w, w) with spline coefficients of the correlation of the given frames.

    ``spectrum_of(f)[rows]`` -> complex64 (p, h, w), patches of frame f.
    """
    transform = window.transform(model.grid, model.prediction.device)
    conjugate = model.prediction.conj().resolve_conj()
    parts = cache_parts(len(conjugate), conjugate[0].numel() * 8, conjugate.device)
    for f in frames:
        weight, spectrum = model.frame_filter(f), spectrum_of(f)
        for part in parts:
            product, blur = spectrum[part] * conjugate[part], model.blur_factor(f, part)
            product *= weight if blur is None else blur.mul_(weight)
            out[part, f] = transform(product)
    return out


def correlation_maps(spectrum_of, model: SignalModel, window: Window, residual_yx_angstrom):
    """Maps of all frames; see :func:`correlate_frames`."""
    n, frames = residual_yx_angstrom.shape[:2]
    out = torch.empty(n, frames, window.width, window.width, device=model.prediction.device)
    correlate_frames(spectrum_of, model, window, range(frames), out)
    return CorrelationMaps(out, window.step_angstrom, window.width // 2, residual_yx_angstrom, model.curvature())


def renew_frames(maps: CorrelationMaps, spectrum_of, model: SignalModel, window: Window, frames):
    """The maps with some frames computed anew (their blur became known). The old ones must not be used any more: memory is shared."""
    correlate_frames(spectrum_of, model, window, frames, maps.coefficients)
    return replace(maps, curvature=model.curvature())
