"""The polished image: frames moved back along the trajectory, weighted and summed in Fourier space."""
import functools

import torch

from ..maths.fourier import ByFrame, FourierGrid, as_of_several, as_real, crop_half_spectrum, frame_turns, spread_from_shells


def combine_frames(each_part_of, offset_yx_px, weight, grid: FourierGrid):
    """Weighted sum over frames of patches moved by minus their offset from the box centre: complex64 (P, h, w).

    ``each_part_of(f, use)`` calls ``use(slice of the particles, complex64 (p, h, w))`` for all, a few particles at a time so that they are
    still in the cache, and maybe from several threads; they are overwritten. Weights act on real and imaginary parts as on real numbers, which takes half the time of a complex product.
    ``offset_yx_px`` (P, F, 2) in px of the patch; ``weight`` (P or 1, F, shell).
    Components beyond the last shell (the corners of the square) take the last shell's weight, so no power is lost there.
    """
    total = torch.zeros((len(offset_yx_px),) + grid.shape, dtype=torch.complex64, device=offset_yx_px.device)
    turns = frame_turns(-offset_yx_px, grid)
    shared = None
    if len(weight) == 1:
        shared = ByFrame(lambda block: _with_corners(weight[0, block], grid), weight.shape[1], 32 * total[0].numel(), total.device)
    for f in range(offset_yx_px.shape[1]):
        y_turn, x_turn = turns(f)
        plane = None if shared is None else shared(f)

        def add(part, spectrum):
            spectrum *= x_turn[part][:, None, :]
            spectrum *= y_turn[part][:, :, None]
            own = _with_corners(weight[part, f], grid) if plane is None else plane
            as_real(total[part]).addcmul_(as_real(spectrum), own)

        each_part_of(f, add)
    return total


def _with_corners(shells, grid):
    """Weights (p, shell) of each component, once for its real and once for its imaginary part: (p, h * w * 2)."""
    plane = spread_from_shells(shells.to(torch.float32), grid)
    outside = grid.shell_index(shells.device) >= grid.n_shells
    return torch.where(outside, shells[..., -1:, None].to(torch.float32), plane).flatten(1).repeat_interleave(2, dim=1)


def to_images(spectrum, grid: FourierGrid, crop_px=None):
    """Real images (P, n, n) of half spectra, Fourier cropped to ``crop_px``; values keep their scale (mean is preserved)."""
    size = grid.size_px if crop_px is None else crop_px
    cropped = crop_half_spectrum(spectrum, size)
    return as_of_several(functools.partial(torch.fft.irfft2, s=(size, size)), cropped) * (size / grid.size_px) ** 2


def normalise_background(images, radius_px):
    """Mean 0 and standard deviation 1 outside a circle around pixel n // 2, per image; (P, n, n) -> same.

    Also returns the standard deviations (P,), so that flat (empty) images can be told. With no pixel outside, all count.
    """
    n = images.shape[-1]
    axis = torch.arange(n, device=images.device, dtype=torch.float32) - n // 2
    outside = (axis[:, None] ** 2 + axis[None, :] ** 2 > radius_px ** 2).flatten()
    if not bool(outside.any()):
        outside = torch.ones_like(outside)
    pixels, counted = images.flatten(-2), outside.to(images.dtype)     # a mask, since a list of pixels to gather takes longer than the sums
    count = counted.sum()
    mean_outside = lambda values: (values * counted).sum(-1, keepdim=True) / count      # row by row: no matter how many images there are
    centred = pixels - mean_outside(pixels)
    sd = (mean_outside(centred.square())[:, 0] * (count / (count - 1).clamp(min=1))).sqrt()
    return (centred / sd.clamp(min=1e-20)[:, None]).view_as(images), sd
