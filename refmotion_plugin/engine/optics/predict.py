"""Predictions: the central slice of a half-map in a particle's pose, seen through the microscope."""
import numpy as np
import torch

from ...contract.conventions import MOVIE_CONTRAST, rotation_matrices
from ...contract.errors import InputError
from ..maths.lanes import each_part, even_parts, lanes
from .ctf import contrast, transfer
from .slices import sample_halves, slice_coordinates

_CHUNK_SAMPLES = {"cpu": 1 << 17, "cuda": 1 << 20}   # particles x frequencies at a time, in all threads, about 150 B each: cache, or memory


def predict(reference, table, optics, halves, grid, device="cpu"):
    """Fourier transforms of particles as the movie shows them: ``MOVIE_CONTRAST * transfer * slice``.

    Amplitude: an unnormalised ``rfft2`` of an image whose real-space values are sums of the map's voxels along the beam (what
    ``relion_project`` gives). With pixels of the movie (p) and the reference (r) that is (r / p)^2 times the slice of the
    map's unnormalised DFT, whatever the boxes are. Particle scale factors are included, the FSC is not.
    The particle's centre is at pixel ``grid.size_px // 2``. Zero beyond ``reference.limit_angstrom``.

    Parameters
    ----------
    reference : Reference on ``device``.
    table : ParticleTable of P particles.
    optics : dict, optics group number -> OpticsGroup.
    halves : (P,) array or tensor of 1 or 2, the half-map each particle is predicted from.
    grid : FourierGrid of the patches; its ``pixel_angstrom`` is the movie's.

    Returns complex64 (P, h, w), DC in the corner.
    Raises InputError for an optics group that is not in ``optics`` and for poses or CTF columns that are not finite.
    """
    out = _empty(table, grid, device)
    halves = halves.cpu() if isinstance(halves, torch.Tensor) else halves
    second = torch.as_tensor(np.asarray(halves) == 2, device=device)

    def put(rows, index, value):
        _put(out, rows, index, torch.where(second[rows, None], value[..., 1], value[..., 0]))

    _each_chunk(put, reference, table, optics, grid, device)
    return out


def predict_both(reference, table, optics, grid, device="cpu"):
    """Predictions from each particle's own half-map (``table.half``) and from the opposite one: two tensors as :func:`predict`.

    Costs little more than one: transfer and coordinates are shared, and one gather fetches both halves.
    """
    own, opposite = _empty(table, grid, device), _empty(table, grid, device)
    second = torch.as_tensor(np.asarray(table.half) == 2, device=device)

    def put(rows, index, value):
        swap = second[rows, None]
        _put(own, rows, index, torch.where(swap, value[..., 1], value[..., 0]))
        _put(opposite, rows, index, torch.where(swap, value[..., 0], value[..., 1]))

    _each_chunk(put, reference, table, optics, grid, device)
    return own, opposite


def _empty(table, grid, device):
    return torch.zeros((len(table),) + grid.shape, dtype=torch.complex64, device=device)


def _put(out, rows, index, value):
    out.flatten(1).index_put_((rows[:, None], index), value)


def _each_chunk(use, reference, table, optics, grid, device):
    """``use(rows (c,), flat frequency index (n,), complex64 (c, n, 2) of both halves)`` for a few particles at a time, from several threads on a CPU."""
    _check(table, optics)
    rotation = rotation_matrices(table.rotation_zyz_degree)
    for number in np.unique(table.optics_group):
        shared, index = _band(reference, optics[int(number)], grid, device)
        factor = _shared_factor(reference, shared, grid, index)
        members = np.flatnonzero(table.optics_group == number)
        size = max(1, _CHUNK_SAMPLES.get(torch.device(device).type, 1 << 20) // lanes(device) // max(1, len(index)))

        def chunk(part):
            rows = members[part]
            use(torch.as_tensor(rows, device=device), index, _halves(reference, shared, rotation[rows], table[rows], factor))

        each_part(chunk, even_parts(len(members), size, device), device)


def _check(table, optics):
    missing = sorted(set(np.unique(table.optics_group).tolist()) - set(optics))
    if missing:
        raise InputError("particles of optics group %s were found but the optics table has only %s: add the group to the "
                         "optics table of the particle STAR file" % (", ".join(map(str, missing)), sorted(optics)))
    for name in ("rotation_zyz_degree", "defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_degree",
                 "phase_shift_degree", "ctf_bfactor_A2", "ctf_scale"):
        values = np.asarray(getattr(table, name), dtype=np.float64)
        bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if bad.any():
            raise InputError("%d particles have a %s that is not a number (first: row %d of set %d): correct the particle "
                             "STAR file" % (bad.sum(), name, table.row[bad][0], table.reference[bad][0]))


def _band(reference, group, grid, device):
    """What the group shares at the frequencies inside the reference's band, and their index in the flattened grid."""
    shared = transfer(group, grid, device)
    radius = shared.frequency_xy.norm(dim=-1)
    index = torch.nonzero(radius < reference.max_frequency_per_angstrom).flatten()
    return shared.select(index), index


def _shared_factor(reference, shared, grid, index):
    """Amplitude convention, contrast, the move of the origin to pixel ``size // 2`` and the group's aberrations, (n,)."""
    y, x = grid.index_yx(index.device, torch.float64)
    width = grid.shape[1]
    angle = 2.0 * torch.pi * (grid.size_px // 2) / grid.size_px * (y[index // width] + x[index % width])
    scale = MOVIE_CONTRAST * (reference.pixel_angstrom / grid.pixel_angstrom) ** 2
    factor = (scale * torch.cos(angle)).to(torch.float32)   # the size is even: the phase is +1 or -1
    return factor if shared.gain is None else factor * shared.gain


def _halves(reference, shared, rotation, table, factor):
    """Predictions of both halves for one chunk, complex64 (c, n, 2)."""
    coordinate, sign = slice_coordinates(reference, rotation, shared.frequency_xy)
    value = sample_halves(reference, coordinate)
    real = contrast(shared, table, coordinate.device)
    if not factor.is_complex():
        real = real * factor
    imaginary = real * sign
    value *= torch.stack([real, imaginary, real, imaginary], dim=-1).view(value.shape)
    value = torch.view_as_complex(value)
    return value * factor[:, None] if factor.is_complex() else value
