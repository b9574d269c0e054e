"""Half spectra of whole frames of any size: cropping, shifts, shells; and frames shifted differently from place to place."""
import math

import torch


def crop_frame_spectrum(dft, size_yx, out_yx):
    """Low frequencies of the half spectrum of a frame.

    ``dft`` (H, W // 2 + 1) of a frame of ``size_yx``; returns (h, w // 2 + 1) for ``out_yx``, even where it is smaller. Values are
    not rescaled.
    """
    (height, width), (h, w) = size_yx, out_yx
    if (h, w) == (height, width):
        return dft
    columns = dft[:, :w // 2 + 1]
    return torch.cat([columns[:(h + 1) // 2], columns[height - h // 2:]])


def frame_from_spectrum(dft, size_yx, out_yx):
    """Frame (h, w) of a spectrum that was cropped from ``size_yx`` to ``out_yx``; values keep their scale (the mean is preserved)."""
    return torch.fft.irfft2(dft, s=tuple(out_yx)) * (out_yx[0] * out_yx[1] / (size_yx[0] * size_yx[1]))


def indices_yx(out_yx, device=None):
    """Signed integer frequencies of a half spectrum, float64: ``(h,)`` for y, ``(w // 2 + 1,)`` for x."""
    h, w = out_yx
    y = torch.fft.fftfreq(h, d=1.0 / h, device=device, dtype=torch.float64).round()
    return y, torch.arange(w // 2 + 1, device=device, dtype=torch.float64)


def frame_shift_phase(shift_yx_px, size_yx, out_yx, device=None):
    """Factors that move a frame of ``size_yx`` by +shift (its own px): complex64 (h,) for y and (w // 2 + 1,) for x.

    Nyquist of an uncropped even frame counts as positive in y as in x.
    """
    factors = []
    for index, shift, size in zip(indices_yx(out_yx, device), shift_yx_px, size_yx):
        index = torch.where(index == -size / 2, -index, index)
        angle = index * (-2.0 * math.pi * float(shift) / size)
        factors.append(torch.polar(torch.ones_like(angle), angle).to(torch.complex64))
    return tuple(factors)


def frequency_bin(size_yx, out_yx, step_per_px, device=None):
    """Nearest bin of |k|, int32 (h, w // 2 + 1): bin i is at ``i * step_per_px`` cycles per px of the frame."""
    y, x = indices_yx(out_yx, device)
    k = torch.sqrt((y / size_yx[0])[:, None].float() ** 2 + (x / size_yx[1])[None, :].float() ** 2)
    return (k / step_per_px).round_().int()


def moved_by_pixels(frame, shift_yx, fill):
    """``frame`` (H, W) moved by whole pixels; what comes in from outside is ``fill``."""
    height, width = frame.shape
    dy, dx = shift_yx
    out = frame.new_full((height, width), fill)
    if abs(dy) < height and abs(dx) < width:
        out[max(dy, 0):height + min(dy, 0), max(dx, 0):width + min(dx, 0)] = frame[max(-dy, 0):height + min(-dy, 0),
                                                                                  max(-dx, 0):width + min(-dx, 0)]
    return out


class Tiling:
    """Overlapping square tiles whose raised-cosine windows add up to one everywhere.

    ``hop_px``: distance of neighbouring tiles; ``overlap_px`` <= hop: width over which one passes into the next. Tile (i, j)
    begins at ``corner_yx`` (n, 2), which lies outside the frame for those at its edges.
    """

    def __init__(self, shape_yx, hop_px, overlap_px):
        if not 0 < overlap_px <= hop_px or (hop_px + overlap_px) % 2:
            raise ValueError("tiles need an even size and an overlap of at most the hop, got %d and %d" % (overlap_px, hop_px))
        self.shape_yx, self.hop_px, self.overlap_px, self.size_px = tuple(shape_yx), hop_px, overlap_px, hop_px + overlap_px
        self.count_yx = tuple(-(-(n + overlap_px) // hop_px) for n in shape_yx)
        rows, columns = (torch.arange(n) * hop_px - overlap_px for n in self.count_yx)
        self.corner_yx = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)

    def center_yx_px(self):
        """Centres of the tiles, float64 (n, 2), px from the centre of the frame's pixel (0, 0)."""
        return self.corner_yx.double() + (self.size_px - 1) / 2.0

    def window(self, device=None):
        """(size, size): sin^2 at the edges."""
        rise = torch.sin((torch.arange(self.overlap_px, device=device) + 0.5) * (math.pi / (2 * self.overlap_px))) ** 2
        profile = torch.cat([rise, torch.ones(self.hop_px - self.overlap_px, device=device), rise.flip(0)])
        return profile[:, None] * profile[None, :]

    def joined(self, rows_of_tiles, device=None):
        """The frame (H, W) from windowed tiles; ``rows_of_tiles`` yields (tiles per row, size, size), row by row."""
        margin, size = self.overlap_px, self.size_px
        out = torch.zeros(self.count_yx[0] * self.hop_px + self.overlap_px, self.count_yx[1] * self.hop_px + self.overlap_px, device=device)
        for i, tiles in enumerate(rows_of_tiles):
            band = out[i * self.hop_px:i * self.hop_px + size]
            for j, tile in enumerate(tiles):
                band[:, j * self.hop_px:j * self.hop_px + size] += tile
        return out[margin:margin + self.shape_yx[0], margin:margin + self.shape_yx[1]]


def tile_shift_phase(shift_yx_px, size_px):
    """Factors that move square tiles by +shift: complex64 (n, size) for y and (n, size // 2 + 1) for x.

    At Nyquist, where plus and minus are one, the factor is the mean of both: tiles are small, so it counts.
    """
    y, x = indices_yx((size_px, size_px), shift_yx_px.device)
    factors = []
    for index, shift in ((y, shift_yx_px[:, 0:1]), (x, shift_yx_px[:, 1:2])):
        angle = index * (shift.double() * (-2.0 * math.pi / size_px))
        factor = torch.polar(torch.ones_like(angle), angle)
        factor[:, size_px // 2] = factor[:, size_px // 2].real.to(factor.dtype)
        factors.append(factor.to(torch.complex64))
    return tuple(factors)
