"""A pair of half-maps as an interpolable half spectrum, with their FSC."""
import logging
from dataclasses import dataclass, replace

import torch

from .fsc import fsc_limit, half_map_fsc, resolution_at
from .resolution import THRESHOLD

PADDING = 2   # the spectrum is that of the map in a box this many times wider: linear interpolation needs the finer grid
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reference:
    """Two masked half-maps in Fourier space.

    ``spectrum`` (2, Z, Y, X) complex64: unnormalised DFT of each half-map (origin at the map's centre, gridding-corrected) on
    the grid of step ``step_per_angstrom``. z and y run from -m to m (m = X - 1), x from 0 to m; only the band inside
    ``limit_angstrom`` is kept. Memory order is (Z, Y, X, half), so that one gather fetches both halves.
    ``fsc`` (shell,) float32, smoothed, zero from its first crossing on, at ``fsc_frequency_per_angstrom`` (shell,).
    ``resolution_angstrom``: FSC = 0.143; ``limit_angstrom``: where the FSC vanishes.
    """

    pixel_angstrom: float
    box_px: int
    spectrum: torch.Tensor
    fsc: torch.Tensor
    fsc_frequency_per_angstrom: torch.Tensor
    particle_radius_angstrom: float
    resolution_angstrom: float
    limit_angstrom: float

    def __post_init__(self):
        object.__setattr__(self, "spectrum", self.spectrum.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2))

    @property
    def step_per_angstrom(self):
        """Distance of neighbouring samples of ``spectrum``, 1/A."""
        return 1.0 / (PADDING * self.box_px * self.pixel_angstrom)

    @property
    def max_frequency_per_angstrom(self):
        """Slices are zero from here on, 1/A."""
        return min(1.0 / self.limit_angstrom, (self.spectrum.shape[-1] - 1.5) * self.step_per_angstrom)

    def fsc_at(self, frequency_per_angstrom):
        """FSC at any frequencies in 1/A (a tensor, any shape): linear between shells, zero beyond the last."""
        position = frequency_per_angstrom / float(self.fsc_frequency_per_angstrom[1])
        lower = position.floor().long().clamp(0, len(self.fsc) - 2)
        part = (position - lower).clamp(0.0, 1.0)
        fsc = self.fsc.to(frequency_per_angstrom.device)
        value = fsc[lower] * (1.0 - part) + fsc[lower + 1] * part
        return torch.where(position <= len(self.fsc) - 1, value, torch.zeros_like(value)).to(frequency_per_angstrom.dtype)

    def to(self, device):
        """The same reference on another device."""
        return replace(self, spectrum=self.spectrum.to(device), fsc=self.fsc.to(device),
                       fsc_frequency_per_angstrom=self.fsc_frequency_per_angstrom.to(device))


def build_reference(halves, mask, pixel_angstrom, device="cpu", overwrite=False):
    """:class:`Reference` from two half-maps.

    Parameters
    ----------
    halves : pair of float32 (z, y, x) arrays, cubes of the same size, on the particles' scale.
    mask : float32 (z, y, x) in [0, 1], or None: a sphere of 0.45 box with a cosine edge.
    pixel_angstrom : voxel size.
    overwrite : mask the half-maps in place: they are not needed any more, and large.
    """
    box = halves[0].shape[-1]
    radius_px = 0.45 * box if mask is None else _mask_radius_px(mask)
    weight = soft_sphere(box, radius_px, 0.05 * box) if mask is None else torch.as_tensor(mask)
    masked = [torch.as_tensor(h).mul_(weight) if overwrite else torch.as_tensor(h) * weight for h in halves]
    raw, counts = half_map_fsc(*masked)
    fsc, last = fsc_limit(raw, counts, float(weight.mean()))
    step = 1.0 / (box * pixel_angstrom)
    if last < 4:
        log.warning("the half-maps do not agree beyond shell %d of their FSC: predictions will carry almost nothing", last)
        last = min(4, box // 2)
    index = min(PADDING * last + 2, PADDING * box // 2)
    spectrum = torch.empty((2 * index + 1, 2 * index + 1, index + 1, 2), dtype=torch.complex64)
    for half, volume in enumerate(masked):
        fill_band_spectrum(spectrum[..., half], volume, index)
    return Reference(pixel_angstrom=pixel_angstrom, box_px=box, spectrum=spectrum.to(device).permute(3, 0, 1, 2),
                     fsc=fsc.to(torch.float32).to(device),
                     fsc_frequency_per_angstrom=(torch.arange(len(fsc), dtype=torch.float64) * step).to(torch.float32).to(device),
                     particle_radius_angstrom=radius_px * pixel_angstrom,
                     resolution_angstrom=1.0 / (resolution_at(raw, THRESHOLD) * step), limit_angstrom=1.0 / (last * step))


def centred_coordinate_px(box):
    """Voxel positions from the box centre ``box // 2``, float32 (box,)."""
    return torch.arange(box, dtype=torch.float32) - box // 2


def soft_sphere(box, radius_px, edge_px):
    """Sphere of one with a cosine edge outside ``radius_px``, float32 (box, box, box)."""
    x2 = centred_coordinate_px(box) ** 2
    radius = (x2[:, None, None] + x2[:, None] + x2).sqrt_()
    return 0.5 + 0.5 * torch.cos(torch.pi * ((radius - radius_px) / edge_px).clamp(0.0, 1.0))


def _mask_radius_px(mask):
    """Distance of the farthest voxel with a mask of one half or more from the box centre."""
    mask = torch.as_tensor(mask)
    inside = mask >= 0.5 * float(mask.max())
    x2 = centred_coordinate_px(mask.shape[-1]) ** 2
    radius2 = 0.0
    for z in torch.nonzero(inside.flatten(1).any(1)).flatten().tolist():
        radius2 = max(radius2, float((x2[z] + x2[:, None] + x2)[inside[z]].max()))
    return max(1.0, radius2 ** 0.5)


def fill_band_spectrum(band, volume, index):
    """Low part of the DFT of a real cube in a box ``PADDING`` times wider, origin at its centre voxel ``box // 2``, into ``band``.

    Each axis is divided by sinc^2 (x / (PADDING box)), the real-space image of linear interpolation between samples, and
    transformed alone, so that the padded volume never exists as a whole.

    Parameters: ``volume`` float32 (box, box, box); ``index`` highest frequency kept, <= PADDING * box // 2.
    ``band`` complex64 (2 index + 1, 2 index + 1, index + 1), z and y from -index to index, x from 0.
    """
    box = volume.shape[-1]
    padded, centre = PADDING * box, box // 2
    correction = 1.0 / torch.sinc(centred_coordinate_px(box).to(torch.float64) / padded) ** 2
    correction = correction.to(torch.float32)
    positions = (torch.arange(box) - centre) % padded

    def spread(part, axis):
        shape = list(part.shape)
        shape[axis] = padded
        out = torch.zeros(shape, dtype=part.dtype)
        return out.index_copy_(axis, positions, part)

    signed = torch.arange(-index, index + 1) % padded
    out = torch.empty((box, 2 * index + 1, index + 1), dtype=torch.complex64)
    for z in range(box):
        plane = volume[z] * (correction[z] * correction[:, None] * correction)
        rows = torch.fft.rfft(spread(plane, 1), dim=1)[:, :index + 1]
        out[z] = torch.fft.fft(spread(rows, 0), dim=0)[signed]
    for y in range(2 * index + 1):
        band[:, y] = torch.fft.fft(spread(out[:, y], 0), dim=0)[signed]
