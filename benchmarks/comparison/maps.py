"""Fourier shell correlation of maps, and filters by it."""
from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import scipy.fft


def read_map(path: Path) -> tuple[np.ndarray, float]:
    """Map (z, y, x) float32 and its pixel size in A."""
    with mrcfile.open(path, permissive=True) as file:
        return file.data.astype(np.float32), float(file.voxel_size.x)


def write_map(path: Path, volume: np.ndarray, pixel_angstrom: float) -> None:
    """Write a map as MRC mode 2."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(volume.astype(np.float32))
        file.voxel_size = pixel_angstrom


def shell_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """FSC of two cubic maps, shells 0 ... n/2."""
    a, b = (scipy.fft.rfftn(v.astype(np.float32)) for v in (first, second))
    shell = _shells(first.shape[0]).ravel()
    count = first.shape[0] // 2 + 1
    cross, power_a, power_b = (np.bincount(shell, v.ravel(), minlength=count)[:count]
                               for v in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2))
    return cross / np.sqrt(np.maximum(power_a * power_b, 1e-30))


def _shells(size: int) -> np.ndarray:
    full, half = np.fft.fftfreq(size, 1 / size), np.arange(size // 2 + 1)
    return np.rint(np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + half**2)).astype(int)


def crossing_angstrom(fsc: np.ndarray, length_angstrom: float, threshold: float = 0.143) -> float:
    """Resolution in A where an FSC first falls below the threshold, between shells; Nyquist's if it never does."""
    below = np.flatnonzero(fsc[1:] < threshold)
    if not len(below):
        return length_angstrom / (len(fsc) - 1)
    end = below[0] + 1
    share = (fsc[end - 1] - threshold) / (fsc[end - 1] - fsc[end])
    return length_angstrom / (end - 1 + share)


def smoothed_crossing_angstrom(fsc: np.ndarray, length_angstrom: float, shells: int = 5) -> float:
    """Crossing of 0.143 by the running mean over an odd number of shells: one noisy shell does not decide."""
    padded = np.pad(np.asarray(fsc, dtype=float), shells // 2, mode="edge")
    return crossing_angstrom(np.convolve(padded, np.full(shells, 1 / shells), mode="valid"), length_angstrom)


def mean_over_band(fsc: np.ndarray, length_angstrom: float, band_angstrom: tuple[float, float] = (5.0, 3.0)) -> float:
    """Mean FSC of the shells between two resolutions in A."""
    k = np.arange(len(fsc)) / length_angstrom
    return float(fsc[(k >= 1 / band_angstrom[0]) & (k <= 1 / band_angstrom[1])].mean())


def filter_by_shell(volume: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Map times a factor per shell; 0 beyond the last shell."""
    shell = _shells(volume.shape[0])
    return scipy.fft.irfftn(scipy.fft.rfftn(volume) * np.append(factor, 0.0)[np.minimum(shell, len(factor))].astype(np.float32),
                            s=volume.shape)
