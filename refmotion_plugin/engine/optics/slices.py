"""Central slices of both half-maps: trilinear interpolation of their half spectra at any poses and frequencies."""
import numpy as np
import torch


def slice_coordinates(reference, rotation, frequency_xy):
    """Where the slices of some poses meet the samples of ``reference.spectrum``.

    A point r of the map goes to A r, so the slice at image frequency k is the map's transform at ``A^T (kx, ky, 0)``.

    Parameters: ``rotation`` (p, 3, 3) matrices A on (x, y, z), numpy or tensor; ``frequency_xy`` (n, 2) float64, 1/A.
    Returns float32 (p, 3, n), x, y, z in samples from the origin with x >= 0, and float32 (p, n): -1 where Friedel's mate
    was taken, so that the imaginary part changes sign, else 1.
    """
    inverse = torch.as_tensor(np.asarray(rotation), dtype=torch.float64, device=frequency_xy.device).transpose(1, 2)
    samples = (frequency_xy / reference.step_per_angstrom).to(torch.float32).T.contiguous()      # a product with columns of two numbers takes far longer
    coordinate = inverse[:, :, :2].to(torch.float32) @ samples
    sign = torch.where(coordinate[:, 0] < 0, -1.0, 1.0)
    coordinate *= sign[:, None]
    return coordinate, sign


def sample_halves(reference, coordinate):
    """Both half-maps' transforms at coordinates in samples: float32 (p, n, 2, 2) = half-map, (real, imaginary).

    ``coordinate`` float32 (p, 3, n) from :func:`slice_coordinates`, inside the band. One weighted gather of the eight
    neighbours (``embedding_bag``): five times faster than ``grid_sample`` on a CPU, and free of its normalised coordinates.
    """
    _, _, height, width = reference.spectrum.shape
    index = width - 1
    table = torch.view_as_real(reference.spectrum.permute(1, 2, 3, 0)).view(-1, 4)   # never a copy: it has gigabytes
    lower = coordinate.floor()
    part = coordinate - lower
    kind = _index_type(len(table))
    x, y, z = lower.to(kind).unbind(1)
    corner = ((z + index) * height + (y + index)) * width + x
    offsets = [a * height * width + b * width + c for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    rows = corner[..., None] + torch.tensor(offsets, dtype=kind, device=corner.device)
    bags = torch.nn.functional.embedding_bag(rows.view(-1, 8), table, per_sample_weights=_trilinear(part), mode="sum")
    return bags.view(coordinate.shape[0], coordinate.shape[2], 2, 2)


def _index_type(rows):
    """Of row numbers: half as many bytes, unless the spectra of a very large box have too many rows."""
    return torch.int32 if rows < 2 ** 31 else torch.int64


def _trilinear(part):
    """Weights (p * n, 8) of the neighbours, x fastest, from fractional coordinates (p, 3, n)."""
    x, y, z = torch.stack([1.0 - part, part], dim=1).unbind(2)               # each (p, 2, n)
    plane = (z[:, :, None] * y[:, None]).flatten(1, 2)
    return (plane[:, :, None] * x[:, None]).flatten(1, 2).transpose(1, 2).reshape(-1, 8)
