"""A map from particle images in known poses: weighted back-projection in Fourier space, for a quick look at half-map FSCs."""
import re

import numpy as np
import torch

from refmotion_plugin.contract.conventions import rotation_matrices
from refmotion_plugin.contract.errors import InputError

from ..maths.fourier import FourierGrid, shift_phase
from .ctf import contrast, transfer
from .reference import centred_coordinate_px

FLOOR = 0.02                # of a shell's mean weight: what empty places are divided by
FRIEDEL = -1.0


def symmetry_operators(name):
    """Rotation matrices (n, 3, 3) of a point group as RELION orients it: Cn about z, Dn with a two-fold about x, O with a four-fold about z.

    Raises InputError for other names.
    """
    turn = lambda axis, angle: _about(np.asarray(axis, dtype=np.float64), angle)
    found = re.fullmatch(r"([CD])(\d+)|O", name.upper())
    if found is None or found.group(2) == "0":
        raise InputError("point group %r is not known here: give C1, C2 ..., D2, D3 ... or O" % name)
    if found.group(1) is None:
        generators = [turn((0, 0, 1), np.pi / 2), turn((1, 1, 1), 2 * np.pi / 3)]
    else:
        generators = [turn((0, 0, 1), 2 * np.pi / int(found.group(2)))]
        generators += [turn((1, 0, 0), np.pi)] if found.group(1) == "D" else []
    group, fresh = [np.eye(3)], [np.eye(3)]
    while fresh:
        made = [g @ h for g in generators for h in fresh]
        fresh = []
        for m in made:
            if not any(np.allclose(m, other, atol=1e-6) for other in group):
                group.append(m)
                fresh.append(m)
    return np.stack(group)


def _about(axis, angle):
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


class BackProjection:
    """Sums of one half-set: images times their transfer, and the transfer squared, at the points of a half spectrum.

    ``box_px`` even, ``pixel_angstrom`` of the images; ``operators`` (s, 3, 3) from :func:`symmetry_operators`.
    """

    def __init__(self, box_px, pixel_angstrom, operators):
        self.grid, self.operators, self.half = FourierGrid(box_px, pixel_angstrom, box_px), operators, box_px // 2
        shape = (box_px + 1, box_px + 1, self.half + 2)                       # z, y from -half to half; x from 0, one to spare
        self.shape, self.sums = shape, torch.zeros(shape[0] * shape[1] * shape[2], 3)

    def add(self, images, table, group):
        """Images (P, n, n), bright protein, of particles ``table`` of one optics group; boxes are centred on the coordinates."""
        shared = transfer(group, self.grid, "cpu")
        y, x = self.grid.index_yx(dtype=torch.float64)
        radius = (y[:, None] ** 2 + x ** 2).sqrt().flatten()
        inside = torch.nonzero((radius < self.half) & ((x > 0) | (y[:, None] >= 0)).flatten()).flatten()
        shared = shared.select(inside)
        dft = torch.fft.rfft2(torch.as_tensor(images, dtype=torch.float32))
        origin = torch.from_numpy(table.origin_yx_angstrom / self.grid.pixel_angstrom)
        y_turn, x_turn = shift_phase(origin - self.half, self.grid.size_px, self.grid.size_px)
        dft = (dft * y_turn[:, :, None] * x_turn[:, None, :]).flatten(1)[:, inside]
        weight = contrast(shared, table, "cpu")
        value = dft * weight if shared.gain is None else dft * weight * shared.gain.conj()
        square = weight ** 2 if shared.gain is None else weight ** 2 * shared.gain.abs() ** 2
        samples = shared.frequency_xy / self.grid.step_per_angstrom
        back = torch.from_numpy(rotation_matrices(table.rotation_zyz_degree)).transpose(1, 2)[:, :, :2]
        coordinate = (back @ samples.T).transpose(0, 1).flatten(1)                       # (3, P n)
        self._insert(coordinate, value.flatten(), square.flatten())

    def _insert(self, coordinate, value, square):
        """Spread one slice over the eight neighbours of each sample; ``coordinate`` (3, n) x, y, z in samples."""
        turned = coordinate[0] < 0
        coordinate = torch.where(turned, -coordinate, coordinate)
        numbers = torch.stack([value.real, torch.where(turned, -value.imag, value.imag), square], dim=1)
        lower = coordinate.floor()
        part, lower = (coordinate - lower).to(torch.float32), lower.long()
        for place, share in self._neighbours(lower, part):
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
        """Sum of the sums (N, 3) over the point group, each turned by interpolation."""
        axis = torch.arange(-self.half, self.half + 1, dtype=torch.float64)
        z, y, x = torch.meshgrid(axis, axis, torch.arange(self.shape[2], dtype=torch.float64), indexing="ij")
        points, total = torch.stack([x.flatten(), y.flatten(), z.flatten()]), sums.clone()
        for operator in self.operators[1:]:
            coordinate = torch.from_numpy(operator) @ points
            turned = coordinate[0] < 0
            coordinate = torch.where(turned, -coordinate, coordinate)
            lower = (coordinate + 1e-9).floor()
            part = (coordinate - lower).clamp(0, 1).to(torch.float32)
            found = sum(sums[place] * share[:, None] for place, share in self._neighbours(lower.long(), part))
            found[:, 1] *= torch.where(turned, FRIEDEL, 1.0)
            total += found
        return total

    def volume(self):
        """The map, float32 (n, n, n), protein bright."""
        n, half = self.grid.size_px, self.half
        sums = self.sums.view(*self.shape, 3).clone()
        sums[:, :, 0] += torch.flip(sums[:, :, 0], (0, 1)) * torch.tensor([1.0, FRIEDEL, 1.0])      # the plane x = 0 holds both mates
        sums = self._symmetrised(sums.view(-1, 3)).view(*self.shape, 3)
        axis = torch.arange(-half, half + 1, dtype=torch.float32)
        radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + torch.arange(half + 2) ** 2).sqrt().round().long().clamp(max=half)
        weight = sums[..., 2]
        mean = torch.bincount(radius.flatten(), weight.flatten().double()) / torch.bincount(radius.flatten()).clamp(min=1)
        divided = sums[..., :2] / torch.maximum(weight, FLOOR * mean[radius].float()).clamp(min=1e-20)[..., None]
        divided[radius >= half] = 0.0
        spectrum = torch.view_as_complex(divided.contiguous())
        place = torch.arange(-half, half) % n
        full = torch.zeros(n, n, half + 1, dtype=torch.complex64)
        full[place[:, None], place[None, :]] = spectrum[:n, :n, :half + 1]
        volume = torch.fft.fftshift(torch.fft.irfftn(full, s=(n, n, n)))
        correction = 1.0 / torch.sinc(centred_coordinate_px(n) / n) ** 2
        return volume * correction[:, None, None] * correction[:, None] * correction
