"""Fourier cylinder correlation: how well each frame's patches, moved back along the trajectories, agree with the opposite half-map.

FCC_f(k) = sum_p Re[Y exp(+2 pi i k . d) conj(A_opp)] / sqrt(sum |Y|^2 sum |A_opp|^2). Source: Zivanov et al. 2019, section 2.5.
"""
import functools

import numpy as np
import torch

from refmotion_plugin.contract.records import FccTable

from ..maths.blocks import frame_blocks, multiplied, stacked
from ..maths.fourier import FourierGrid, cache_parts, frame_turns, shell_counts, sum_over_shells, sum_pairs, total_power
from ..maths.lanes import each_part


def fcc_sums(spectrum_of, prediction_opposite, offset_yx_px, group, n_groups, grid: FourierGrid, dose_e_per_A2, watch=None):
    """Sums of one movie.

    Parameters: ``spectrum_of(f)[rows]`` complex64 (p, h, w), patches of frame f (:func:`..maths.blocks.frame_blocks`); ``prediction_opposite`` complex64 (P, h, w); ``offset_yx_px`` (P, F, 2)
    where the particle is seen from the box centre, px of the patch; ``group`` (P,) int64 optics group index below
    ``n_groups``, on the host; ``dose_e_per_A2`` (F,); ``watch(frames, spectra)`` is called for
    each block of frames.
    Returns an :class:`FccTable` with float64 sums over particles in their order.
    """
    frames, device = offset_yx_px.shape[1], prediction_opposite.device
    cross, power_movie, power_reference = torch.zeros(3, n_groups, frames, grid.n_shells, dtype=torch.float64, device=device)
    conjugate = prediction_opposite.conj().resolve_conj()
    members = {g: torch.nonzero(group == g).flatten() for g in group.unique().tolist()}
    on_device = {g: None if len(rows) == len(group) else rows.to(device) for g, rows in members.items()}
    turns = frame_turns(offset_yx_px * offset_yx_px.new_tensor([-1.0, 1.0]), grid)      # the columns' turns conjugated: see _planes
    for block, spectra in frame_blocks(spectrum_of, range(frames)):
        if watch is not None:
            watch(block, spectra)
        y_turn, x_turn = (stacked(turn) for turn in zip(*(turns(f) for f in block)))
        for g, rows in on_device.items():
            planes = _planes(spectra, conjugate, y_turn, torch.view_as_real(x_turn).flatten(2), rows)
            cross[g, block[0]:block[-1] + 1], power_movie[g, block[0]:block[-1] + 1] = sum_over_shells(planes, grid)
    for g, rows in on_device.items():
        power_reference[g] = sum_over_shells(total_power(prediction_opposite if rows is None else prediction_opposite[rows]), grid)
    count = torch.tensor([len(members.get(g, ())) for g in range(n_groups)], dtype=torch.float64)
    components = count[:, None] * shell_counts(grid) / 2.0       # Friedel pairs
    return FccTable(
        frequency_per_angstrom=grid.shell_frequency_per_angstrom(dtype=torch.float64).numpy(),
        dose_e_per_A2=np.asarray(dose_e_per_A2, dtype=np.float64), cross=cross.cpu().numpy(), power_movie=power_movie.cpu().numpy(),
        power_reference=power_reference.cpu().numpy(), components=components[:, None].expand(n_groups, frames, grid.n_shells).numpy().copy())


def _planes(spectra, conjugate, y_turn, x_turn, rows):
    """Sums over particles of Re[Y turn conj(A)] and of |Y|^2 at each component of b frames, float32 (2, b, h, w).

    ``y_turn`` complex64 (b, P, h) and ``x_turn``, conjugated, as real numbers (b, P, 2 w): Re(a b) = Re a Re b - Im a Im b, a product of
    real numbers; ``rows`` of the particles, None: all.
    """
    parts = cache_parts(len(conjugate) if rows is None else len(rows), conjugate[0].numel() * 8, conjugate.device)
    found = each_part(functools.partial(_sums, spectra, conjugate, y_turn, x_turn, rows), parts, conjugate.device)
    return sum_pairs(functools.reduce(torch.Tensor.add_, found)).unflatten(-1, conjugate.shape[1:])


def _sums(spectra, conjugate, y_turn, x_turn, rows, part):
    """Both sums over some of the particles, real and imaginary parts apart: float32 (2, b, h * 2 w)."""
    own = part if rows is None else rows[part]
    patches = spectra[own]
    parts = torch.view_as_real(patches).flatten(2)
    power = (parts * parts).sum(1)
    product = multiplied(spectra, patches, conjugate[own])      # the patches may be gone
    product *= y_turn[:, own, :, None]
    turned = torch.view_as_real(product).flatten(3).mul_(x_turn[:, own, None])
    return torch.stack([turned.sum(1).flatten(1), power])
