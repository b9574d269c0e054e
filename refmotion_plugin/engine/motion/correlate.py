"""Correlation maps: the log-likelihood of each particle and frame on a small window of displacements.

CC_pf(x) = sum_k Re[ Y_pf(k) conj(S D_f sinc A_p)(k) / sigma^2(k) exp(2 pi i k . x) ] over the full plane, x from the box centre.
The window is a separable DFT of the band, stored as cubic B-spline coefficients. Source: Zivanov et al. 2019, eq. 4.
"""
import functools
from dataclasses import dataclass, replace
from typing import Callable

import torch

from ..maths.blocks import frame_blocks, multiplied
from ..maths.fourier import FourierGrid, cache_parts
from ..maths.lanes import each_part
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
        half = grid.kept_px // 2                    # the highest negative frequency has no partner; it lies outside every band
        gain_y, angle_y = gain_y[:half], angle_y[self.width // 2:, :half]
        gain_y[0] /= 2.0                            # zero is its own partner
        cosine, sine = gain_x * angle_x.cos(), gain_x * angle_x.sin()
        pairs = lambda re, im: torch.stack([re, im], dim=-1).flatten(-2).T.to(torch.float32)
        return _WindowTransform(-torch.arange(half, device=device) % grid.kept_px,
                                (gain_y * angle_y.cos()).to(torch.float32), (gain_y * angle_y.sin()).to(torch.float32),
                                pairs(cosine, -sine), pairs(-sine, -cosine))


@dataclass(frozen=True)
class _WindowTransform:
    """Real part of a DFT to a symmetric window, as products of real matrices; rows +-ky of the band share theirs, and so do rows +-y.

    ``mirrored`` (h / 2,): rows of -ky for ky >= 0; ``cosines``, ``sines`` (m + 1, h / 2) of the window's rows y >= 0; ``of_cosines``,
    ``of_sines`` (2 w, width) act on interleaved (re, im) columns of what they gave.
    """

    mirrored: torch.Tensor
    cosines: torch.Tensor
    sines: torch.Tensor
    of_cosines: torch.Tensor
    of_sines: torch.Tensor

    def __call__(self, product, out):
        """Real (P, h, 2 w), interleaved (re, im) -> ``out`` (P, width, width), which is returned."""
        middle = len(self.cosines) - 1
        ahead, behind = product[:, :len(self.mirrored)], product.index_select(1, self.mirrored)
        even = self._columns(self.cosines @ (ahead + behind), self.of_cosines)
        odd = self._columns(self.sines @ torch.sub(ahead, behind, out=behind), self.of_sines)
        torch.add(even, odd, out=out[:, middle:])
        out[:, :middle] = torch.sub(even, odd, out=odd)[:, 1:].flip(1)
        return out

    @staticmethod
    def _columns(rows, matrix):
        return (rows.flatten(0, 1) @ matrix).unflatten(0, rows.shape[:2])


def correlate_frames(spectrum_of: Callable, model: SignalModel, window: Window, frames, out):
    """Fill ``out`` (P, F, w, w) with spline coefficients of the correlation of the given frames.

    ``spectrum_of(f)[rows]`` -> complex64 (p, h, w), patches of frame f; see :func:`..maths.blocks.frame_blocks` for several at once.
    """
    transform = window.transform(model.grid, model.prediction.device)
    conjugate = model.prediction.conj().resolve_conj()
    parts = cache_parts(len(conjugate), conjugate[0].numel() * 8, conjugate.device)
    for block, spectrum in frame_blocks(spectrum_of, frames):
        twice = model.frame_filters(block).repeat_interleave(2, dim=2)[:, None]
        each_part(functools.partial(_correlate, block, spectrum, conjugate, twice, model, transform, out), parts, conjugate.device)
    return out


def _correlate(block, spectrum, conjugate, twice, model, transform, out, part):
    """Fill ``out`` for some particles and the frames of ``block``; ``twice`` (b, 1, h, 2 w): the frames' filters for real and imaginary parts."""
    product, blur = multiplied(spectrum, spectrum[part], conjugate[part]), model.blur_factors(block, part)
    if blur is not None:
        product *= blur
    weighted = torch.view_as_real(product).flatten(3).mul_(twice).flatten(0, 1)
    if len(block) == 1:
        transform(weighted, out[part, block[0]])
        return
    found = transform(weighted, out.new_empty((len(weighted),) + out.shape[2:])).unflatten(0, product.shape[:2])
    for f, one in zip(block, found):
        out[part, f] = one


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
