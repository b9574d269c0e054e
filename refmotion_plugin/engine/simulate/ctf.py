"""Contrast transfer: defocus, astigmatism, spherical aberration, phase plate, beam tilt."""
from __future__ import annotations

import dataclasses

import numpy as np

from .projection import frequencies_per_angstrom, wavelength_angstrom


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optics:
    """What all particles of an optics group share."""

    voltage: float
    cs_mm: float
    amplitude_contrast: float
    phase_shift_degree: float = 0.0
    beam_tilt_mrad_yx: tuple[float, float] = (0.0, 0.0)


def transfer(optics: Optics, defocus_uva: np.ndarray, size: int, pixel_angstrom: float) -> np.ndarray:
    """CTF (size, size//2+1): sin(pi lambda dz k^2 - pi/2 Cs lambda^3 k^4 + phase + asin(Q0)).

    Positive at low frequency for underfocus: times the projection it gives
    bright protein. ``defocus_uva``: major, minor (A), angle of the major axis
    from x towards y (degrees). Real, or complex when the beam is tilted:
    RELION's beam tilt turns each frequency by the phase -2 pi Cs lambda^2 k^2 (k . tilt).
    """
    ky, kx = frequencies_per_angstrom(size, pixel_angstrom)
    k2 = ky**2 + kx**2
    wavelength, cs = wavelength_angstrom(optics.voltage), 1e7 * optics.cs_mm
    major, minor, angle = defocus_uva
    azimuth = np.arctan2(ky, kx) - np.deg2rad(angle)
    defocus = 0.5 * (major + minor) + 0.5 * (major - minor) * np.cos(2 * azimuth)
    chi = np.pi * wavelength * k2 * (defocus - 0.5 * cs * wavelength**2 * k2)
    ctf = np.sin(chi + np.deg2rad(optics.phase_shift_degree) + np.arcsin(optics.amplitude_contrast))
    if not any(optics.beam_tilt_mrad_yx):
        return ctf.astype(np.float32)
    tilt_y, tilt_x = 1e-3 * np.asarray(optics.beam_tilt_mrad_yx)
    phase = 2 * np.pi * cs * wavelength**2 * k2 * (ky * tilt_y + kx * tilt_x)
    return (ctf * np.exp(-1j * phase)).astype(np.complex64)
