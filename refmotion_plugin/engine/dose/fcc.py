"""Fourier cylinder correlation: how well each frame's patches, moved back along the trajectories, agree with the opposite half-map.

FCC_f(k) = sum_p Re[Y exp(+2 pi i k . d) conj(A_opp)] / sqrt(sum |Y|^2 sum |A_opp|^2). Source: Zivanov et al. 2019, section 2.5.
"""
import numpy as np
import torch

from refmotion_plugin.contract.records import FccTable

from ..maths.fourier import FourierGrid, as_real, cache_parts, shell_counts, shift_phase, sum_over_shells, sum_pairs, total_power


def fcc_sums(spectrum_of, prediction_opposite, offset_yx_px, group, n_groups, grid: FourierGrid, dose_e_per_A2, watch=None):
    """Sums of one movie.

    Parameters: ``spectrum_of(f)[rows]`` complex64 (p, h, w), patches of frame f; ``prediction_opposite`` complex64 (P, h, w); ``offset_yx_px`` (P, F, 2)
    where the particle is seen from the box centre, px of the patch; ``group`` (P,) int64 optics group index below
    ``n_groups``; ``dose_e_per_A2`` (F,); ``watch(f, spectrum)`` is called for each frame.
    Returns an :class:`FccTable` with float64 sums over particles in their order.
    """
    frames = offset_yx_px.shape[1]
    device = prediction_opposite.device
    cross = torch.zeros(n_groups, frames, grid.n_shells, dtype=torch.float64, device=device)
    power_movie = torch.zeros_like(cross)
    conjugate = prediction_opposite.conj().resolve_conj()
    members = [torch.nonzero(group == g).flatten() for g in range(n_groups)]
    for f in range(frames):
        spectrum = spectrum_of(f)
        y_turn, x_turn = shift_phase(-offset_yx_px[:, f], grid.size_px, grid.kept_px, device)
        x_turn = as_real(x_turn.conj().resolve_conj())       # Re(a b) = Re a Re b - Im a Im b
        if watch is not None:
            watch(f, spectrum)
        for g, rows in enumerate(members):
            if len(rows):
                cross_plane, power_plane = torch.zeros(2, 2 * grid.shape[0] * grid.shape[1], device=device)      # real and imaginary parts
                for part in cache_parts(len(rows), conjugate[0].numel() * 8, device):
                    own = part if len(rows) == len(conjugate) else rows[part]      # views where all particles are of one group
                    patches = spectrum[own]
                    product = patches * conjugate[own]
                    product *= y_turn[own][:, :, None]
                    turned = as_real(product).unflatten(1, (grid.shape[0], -1)).mul_(x_turn[own][:, None, :])     # of which only the real part counts
                    cross_plane += turned.sum(0).flatten()
                    parts = as_real(patches)
                    power_plane += (parts * parts).sum(0)
                planes = sum_pairs(torch.stack([cross_plane, power_plane])).unflatten(-1, grid.shape)
                cross[g, f], power_movie[g, f] = sum_over_shells(planes, grid)
    power_reference = torch.stack([sum_over_shells(total_power(prediction_opposite[rows]), grid).cpu() for rows in members])
    count = torch.tensor([len(rows) for rows in members], dtype=torch.float64)
    independent = shell_counts(grid).cpu() / 2.0       # Friedel pairs
    spread = lambda table: table[:, None].expand(n_groups, frames, grid.n_shells).numpy().copy()
    return FccTable(
        frequency_per_angstrom=grid.shell_frequency_per_angstrom(dtype=torch.float64).numpy(),
        dose_e_per_A2=np.asarray(dose_e_per_A2, dtype=np.float64), cross=cross.cpu().numpy(), power_movie=power_movie.cpu().numpy(),
        power_reference=spread(power_reference), components=spread(count[:, None] * independent))
