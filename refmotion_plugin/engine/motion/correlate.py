"""Correlation maps: the log-likelihood of each particle and frame on a small window of displacements.

CC_pf(x) = sum_k Re[ Y_pf(k) conj(S D_f sinc A_p)(k) / sigma^2(k) exp(2 pi i k . x) ] over the full plane, x from the box centre.
The window is a separable DFT of the band, stored as cubic B-spline coefficients. Source: Zivanov et al. 2019, eq. 4.
"""
from dataclasses import dataclass, replace
from typing import Callable

import torch

from ..maths.fourier import FourierGrid
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

    def matrices(self, grid: FourierGrid, device):
        """DFT from the band to the window: complex64 (w, h) for y and real float32 (2 w', w) for interleaved (re, im) x."""
        x = (torch.arange(self.width, device=device, dtype=torch.float64) - self.width // 2) * self.step_angstrom
        turns = []
        for index in grid.index_yx(device, torch.float64):
            frequency = index * grid.step_per_angstrom
            gain = prefilter_gain(frequency, self.step_angstrom)
            angle = 2.0 * torch.pi * x[:, None] * frequency
            turns.append(torch.polar(gain.expand_as(angle).contiguous(), angle))
        y_matrix, x_turn = turns
        x_matrix = torch.stack([x_turn.real, -x_turn.imag], dim=-1).reshape(self.width, -1).T
        return y_matrix.to(torch.complex64), x_matrix.to(torch.float32).contiguous()


def correlate_frames(spectrum_of: Callable, model: SignalModel, window: Window, frames, out):
    """Fill ``out`` (P, F, w, w) with spline coefficients of the correlation of the given frames.

    ``spectrum_of(f)`` -> complex64 (P, h, w), patches of frame f.
    """
    device = model.prediction.device
    y_matrix, x_matrix = window.matrices(model.grid, device)
    for f in frames:
        product = spectrum_of(f) * model.prediction.conj()
        weight = model.frame_filter(f)
        blur = model.blur_factor(f)
        product = product * (weight if blur is None else weight * blur)
        partial = torch.matmul(y_matrix, product)                                  # (P, w, kx)
        out[:, f] = torch.matmul(torch.view_as_real(partial).flatten(-2), x_matrix)
    return out


def correlation_maps(spectrum_of, model: SignalModel, window: Window, residual_yx_angstrom):
    """Maps of all frames; see :func:`correlate_frames`."""
    n, frames = residual_yx_angstrom.shape[:2]
    out = torch.empty(n, frames, window.width, window.width, device=model.prediction.device)
    correlate_frames(spectrum_of, model, window, range(frames), out)
    return CorrelationMaps(out, window.step_angstrom, window.width // 2, residual_yx_angstrom, model.curvature())


def renew_frames(maps: CorrelationMaps, spectrum_of, model: SignalModel, window: Window, frames):
    """The same maps with some frames computed anew (their blur became known); the old maps are not changed."""
    out = maps.coefficients.clone()
    correlate_frames(spectrum_of, model, window, frames, out)
    return replace(maps, coefficients=out, curvature=model.curvature())
