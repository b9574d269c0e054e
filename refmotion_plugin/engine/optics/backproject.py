"""A map from particle images in known poses: weighted back-projection in Fourier space, for a quick look at half-map FSCs."""
import torch

from refmotion_plugin.contract.conventions import rotation_matrices

from ..maths.fourier import FourierGrid, low_half_spectrum, shift_phase
from .ctf import contrast, transfer
from .reference import centred_coordinate_px
from .symmetry import on_grid_again, symmetry_steps

FLOOR = 0.02                # of a shell's mean weight: what empty places are divided by
FRIEDEL = -1.0
BYTES_PER_VOXEL = 60        # of the box, while sums are turned into maps: sums of two kinds, their symmetrised copy, one spectrum, one map
PLANES_BYTES = 2 ** 26      # of coordinates while sums are symmetrised


class BackProjection:
    """Sums of one half-set: images times their transfer, and the transfer squared, at the points of a half spectrum.

    ``box_px`` even, ``pixel_angstrom`` of the map; ``operators`` (s, 3, 3) from ``symmetry.symmetry_operators``. Several ``kinds`` of images
    of the same particles in the same poses share all but their values.
    """

    def __init__(self, box_px, pixel_angstrom, operators, kinds=1, device="cpu"):
        self.grid, self.operators, self.half, self.device = FourierGrid(box_px, pixel_angstrom, box_px), operators, box_px // 2, device
        self.shape = (box_px + 1, box_px + 1, self.half + 2)                  # z, y from -half to half; x from 0, one to spare
        self.sums = torch.zeros(self.shape[0] * self.shape[1] * self.shape[2], 2 * kinds + 1, device=device)
        self._sign = torch.tensor([1.0, FRIEDEL] * kinds + [1.0], device=device)
        self._inside = self._shared = self._of = None

    def add(self, kinds, table, group):
        """Images, one (P, n, n) per kind, bright protein, of particles ``table`` of one optics group.

        Boxes are centred on the coordinates, and have the physical extent of the map; finer images are cropped in Fourier space.
        """
        shared, inside = self._transfer(group)
        origin = torch.from_numpy(table.origin_yx_angstrom / self.grid.pixel_angstrom).to(self.device)
        y_turn, x_turn = shift_phase(origin - self.half, self.grid.size_px, self.grid.size_px, self.device)
        turn = (y_turn[:, :, None] * x_turn[:, None, :]).flatten(1)[:, inside]
        weight = contrast(shared, table, self.device)
        turn *= weight if shared.gain is None else weight * shared.gain.conj()
        square = weight ** 2 if shared.gain is None else weight ** 2 * shared.gain.abs() ** 2
        spectra = [(self._spectrum(images)[:, inside] * turn).flatten() for images in kinds]
        samples = (shared.frequency_xy / self.grid.step_per_angstrom).to(torch.float32)
        back = torch.from_numpy(rotation_matrices(table.rotation_zyz_degree)).to(torch.float32).to(self.device).transpose(1, 2)[:, :, :2]
        coordinate = (back @ samples.T).transpose(0, 1).flatten(1)                       # (3, P n)
        self._insert(coordinate, spectra, square.flatten())

    def _transfer(self, group):
        """Transfer of an optics group at the samples within the largest sphere, and which those are."""
        if self._inside is None:
            y, x = self.grid.index_yx(self.device, torch.float64)
            radius = (y[:, None] ** 2 + x ** 2).sqrt().flatten()
            self._inside = torch.nonzero((radius < self.half) & ((x > 0) | (y[:, None] >= 0)).flatten()).flatten()
        if self._of != group:
            self._shared, self._of = transfer(group, self.grid, self.device).select(self._inside), group
        return self._shared, self._inside

    def _spectrum(self, images):
        return low_half_spectrum(torch.as_tensor(images, dtype=torch.float32).to(self.device), self.grid.size_px).flatten(1)

    def _insert(self, coordinate, spectra, square):
        """Spread slices over the eight neighbours of each sample; ``coordinate`` (3, n) x, y, z in samples."""
        turned = coordinate[0] < 0
        coordinate = torch.where(turned, -coordinate, coordinate)
        mate = torch.where(turned, FRIEDEL, 1.0)
        numbers = torch.stack([part for s in spectra for part in (s.real, s.imag * mate)] + [square], dim=1)
        lower = coordinate.floor()
        for place, share in self._neighbours(lower.long(), coordinate - lower):
            self.sums.index_add_(0, place, numbers * share[:, None])

    def _neighbours(self, lower, part):
        """(place in the sums, trilinear share) of the eight neighbours of points, whole and fractional parts (3, n)."""
        for dz in (0, 1):
            for dy in (0, 1):
                for dx in (0, 1):
                    share = (part[0] if dx else 1 - part[0]) * (part[1] if dy else 1 - part[1]) * (part[2] if dz else 1 - part[2])
                    z, y = ((lower[i] + d + self.half).clamp(0, self.shape[0] - 1) for i, d in ((2, dz), (1, dy)))
                    yield (z * self.shape[1] + y) * self.shape[2] + (lower[0] + dx).clamp(max=self.shape[2] - 1), share

    def _symmetrised(self, sums):
        """Sum of the sums (N, c) over the point group, step by step, some planes at a time."""
        plane = self.shape[1] * self.shape[2]
        count = max(1, PLANES_BYTES // (4 * 3 * plane))
        y, x = (torch.arange(begin, end, dtype=torch.float32, device=self.device) for begin, end in ((-self.half, self.half + 1), (0, self.shape[2])))
        for step in symmetry_steps(self.operators):
            total = sums.clone()
            for begin in range(0, self.shape[0], count):
                end = min(begin + count, self.shape[0])
                z = torch.arange(begin, end, dtype=torch.float32, device=self.device) - self.half
                points = torch.stack([p.flatten() for p in torch.meshgrid(z, y, x, indexing="ij")][::-1])
                for operator in step:
                    turn = torch.from_numpy(operator).to(torch.float32).to(self.device)
                    total[begin * plane:end * plane] += self._turned(sums, turn @ points, on_grid_again(operator))
            sums = total
        return sums

    def _turned(self, sums, coordinate, exact):
        """The sums at points (3, n), by interpolation unless they are ``exact`` points of the grid: (n, c)."""
        turned = coordinate[0] < -1e-4
        coordinate = torch.where(turned, -coordinate, coordinate)
        lower = (coordinate + 1e-4).floor()
        part = (coordinate - lower).clamp(0, 1)
        neighbours = self._neighbours(lower.long().clamp(min=-self.half), part)
        found = sums[next(neighbours)[0]] if exact else sum(sums[place] * share[:, None] for place, share in neighbours)
        return torch.where(turned[:, None], found * self._sign, found)

    def volumes(self):
        """The maps of all kinds, float32 (n, n, n) each, protein bright, on the host. The sums are used up."""
        sums = self.sums.view(*self.shape, -1)
        sums[:, :, 0] += torch.flip(sums[:, :, 0], (0, 1)) * self._sign                  # the plane x = 0 holds both mates
        sums = self._symmetrised(self.sums).view(*self.shape, -1)
        del self.sums
        axis = torch.arange(-self.half, self.half + 1, dtype=torch.float32, device=self.device)
        x = torch.arange(self.half + 2, dtype=torch.float32, device=self.device)
        radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + x ** 2).sqrt().round().long().clamp(max=self.half)
        weight, flat = sums[..., -1], radius.flatten()
        mean = torch.zeros(self.half + 1, device=self.device).index_add_(0, flat, weight.flatten())
        mean /= torch.zeros_like(mean).index_add_(0, flat, torch.ones_like(flat, dtype=torch.float32)).clamp(min=1)
        inverse = 1.0 / torch.maximum(weight, FLOOR * mean[radius]).clamp(min=1e-20)
        inverse *= radius < self.half
        return [self._volume(torch.view_as_complex(sums[..., i:i + 2].contiguous()) * inverse) for i in range(0, sums.shape[-1] - 1, 2)]

    def _volume(self, spectrum):
        n = self.grid.size_px
        place = torch.arange(-self.half, self.half, device=self.device) % n
        full = torch.zeros(n, n, self.half + 1, dtype=torch.complex64, device=self.device)
        full[place[:, None], place[None, :]] = spectrum[:n, :n, :self.half + 1]
        volume = torch.fft.fftshift(torch.fft.irfftn(full, s=(n, n, n)))
        correction = (1.0 / torch.sinc(centred_coordinate_px(n) / n) ** 2).to(self.device)
        return (volume * correction[:, None, None] * correction[:, None] * correction).cpu()
