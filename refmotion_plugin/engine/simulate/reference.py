"""Half-maps and mask such as a refinement of the rigidly aligned particles would leave."""
from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.ndimage

from .catalogue import Catalogue
from .damage import frame_amplitude
from .projection import density_map, map_frequency
from .spec import SimulationSpec, random_stream
from .structure import Structure

_LOW_RESOLUTION_NOISE = 7.5  # ln of how much lower noise/signal is at k = 0 than at the resolution
_EDGE_ANGSTROM = 8.0


def shells_per_angstrom(spec: SimulationSpec) -> np.ndarray:
    """Frequencies of the box's shells 0 ... box/2, 1/A."""
    return np.arange(spec.box // 2 + 1) / (spec.box * spec.pixel_angstrom)


def rigid_transfer(spec: SimulationSpec, catalogue: Catalogue, shift_yx_px: np.ndarray) -> np.ndarray:
    """Signal left per shell in the dose-weighted rigid average, mean over particles and directions.

    sum_f w_f D_f <exp(-2 pi i k.e_f)> with w_f = D_f/sqrt(sum D^2) and e_f the
    place in the aligned frame minus the catalogue position.
    """
    k = shells_per_angstrom(spec)
    amplitude = frame_amplitude(k, spec.frames, spec.dose_per_frame, spec.pre_exposure, spec.voltage)
    error = catalogue.displacement_yx_angstrom(spec.pixel_angstrom)
    error = error + (spec.pixel_angstrom * shift_yx_px)[None, :, None, :]
    angle = np.pi * np.arange(8) / 8
    along = error @ np.stack([np.sin(angle), np.cos(angle)])  # (n, frames, substeps, direction)
    blur = np.stack([np.cos(2 * np.pi * ki * along).mean(axis=(0, 2, 3)) for ki in k], axis=1)  # (frames, K)
    return (amplitude**2 * blur).sum(axis=0) / np.sqrt((amplitude**2).sum(axis=0))


def true_map(spec: SimulationSpec, structure: Structure) -> np.ndarray:
    """Undamaged map (z, y, x) whose projections are the contrast of the particle."""
    density = density_map(structure.xyz_angstrom, spec.box, spec.pixel_angstrom, spec.voltage, spec.bfactor_A2)
    return spec.contrast_scale * density


def soft_mask(spec: SimulationSpec, density: np.ndarray) -> np.ndarray:
    """1 on the particle and up to 3 A around, cosine edge of 8 A."""
    smooth = _filtered(density, np.exp(-(map_frequency(spec.box, spec.pixel_angstrom) * 12.0) ** 2))
    inside = smooth > 0.25 * np.percentile(smooth, 99.5)
    inside = scipy.ndimage.binary_fill_holes(inside)
    distance = scipy.ndimage.distance_transform_edt(~inside) * spec.pixel_angstrom - 3.0
    edge = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / _EDGE_ANGSTROM, 0, 1))
    return edge.astype(np.float32)


def half_maps(spec: SimulationSpec, density, mask, transfer, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    """Two maps FSC (signal + noise) on the scale of particles whose background has sigma 1.

    ``transfer`` (shell,): what the average images keep of the true signal, times the images' scale. The noise is coloured
    so that inside the mask FSC = 1/(1 + noise/signal) falls to 0.143 at the reference resolution.
    """
    k = map_frequency(spec.box, spec.pixel_angstrom)
    shell = shells_per_angstrom(spec)
    signal = _filtered(density, np.interp(k, shell, transfer))
    steepness = (shell * spec.reference_resolution_angstrom) ** 2 - 1
    ratio = 6.0 * np.exp(np.minimum(_LOW_RESOLUTION_NOISE * steepness, 6.0))  # FSC below 0.001 is noise anyway
    fsc = 1 / (1 + ratio)
    noise_power = ratio * _shell_mean_power(signal, k, shell) / np.mean(mask**2)
    halves = []
    for half in (1, 2):
        white = random_stream(spec, "half-map", half, suffix).standard_normal(density.shape, dtype=np.float32)
        noise = _filtered(white, np.interp(k, shell, np.sqrt(noise_power / density.size)))
        halves.append(_filtered(signal + noise, np.interp(k, shell, fsc)))
    return halves[0], halves[1]


def _filtered(density: np.ndarray, factor: np.ndarray) -> np.ndarray:
    spectrum = scipy.fft.rfftn(density.astype(np.float32), workers=1) * factor.astype(np.float32)
    return scipy.fft.irfftn(spectrum, s=density.shape, workers=1)


def _shell_mean_power(density, k, shell) -> np.ndarray:
    power = np.abs(scipy.fft.rfftn(density, workers=1)) ** 2
    index = np.round(k / shell[1]).astype(int).ravel()
    total = np.bincount(index, power.ravel(), minlength=len(shell))
    return (total / np.maximum(np.bincount(index, minlength=len(shell)), 1))[: len(shell)]
