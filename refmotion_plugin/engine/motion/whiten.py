"""Noise power of a movie's patches per shell, the unit in which data and prediction are compared."""
import torch

from ..maths.fourier import FourierGrid, shell_counts, sum_over_shells, total_power

SMALLEST_NOISE_SHARE = 0.3   # of the total power: guards against a signal estimate that exceeds the data


def mean_power(spectrum, grid: FourierGrid):
    """Mean |F|^2 per component in each shell, over all leading axes: float64 (n_shells,)."""
    spectra = spectrum.reshape(-1, *grid.shape)
    return sum_over_shells(total_power(spectra), grid) / (len(spectra) * shell_counts(grid, spectrum.device))


def noise_power(total_power, signal_power=None):
    """Noise power per shell from the total, minus the modelled signal if that is known.

    ``total_power``, ``signal_power`` float64 (n_shells,). The DC shell takes its neighbour's value: patches are not
    background-subtracted there. Source: method of Zivanov et al. 2019, section 2.4, with the signal taken out.
    """
    noise = total_power.clone()
    if signal_power is not None:
        noise = torch.maximum(noise - signal_power, SMALLEST_NOISE_SHARE * noise)
    noise[0] = noise[1]
    return noise
