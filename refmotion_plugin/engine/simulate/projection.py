"""Exact Fourier transforms of point atoms: splat on a fine grid, FFT, deconvolve."""
from __future__ import annotations

import numpy as np
import scipy.fft

_WIDTH = 4  # kernel width, px of the fine grid
_BETA = 2.20 * _WIDTH
_QUADRATURE = np.polynomial.legendre.leggauss(40)

# Electron scattering factor of carbon, sum of Gaussians in s = k/2 (Peng et al. 1996, Acta Cryst. A52, 257)
_CARBON_A = (0.0893, 0.2563, 0.7570, 1.0487, 0.3575)
_CARBON_B = (0.2465, 1.7100, 6.4094, 18.6113, 50.2523)
_HYDROGEN_ADDED = 1.1  # one light hydrogen per heavy atom, minus N and O being weaker than C
_VOLUME_PER_ATOM_A3 = 17.2
_ICE_SCATTERING_PER_A3 = 0.094  # one water (3.04 A) in 32.2 A^3


def frequencies_per_angstrom(size: int, pixel_angstrom: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (ky (size, 1), kx (1, size//2+1)) of a half spectrum, 1/A."""
    ky = np.fft.fftfreq(size, pixel_angstrom)[:, None]
    kx = np.fft.rfftfreq(size, pixel_angstrom)[None, :]
    return ky, kx


def atom_contrast(k_per_angstrom: np.ndarray, voltage: float, bfactor_A2: float) -> np.ndarray:
    """Contrast transform 2 gamma lambda (f(k) - ice displaced) exp(-B k^2/4) of one atom, A^2.

    Weak-phase object: the phase of an atom of scattering factor f is
    gamma lambda f(k); a pure phase contrast transfer doubles it in intensity.
    """
    k2 = np.square(k_per_angstrom)
    factor = sum(a * np.exp(-b * k2 / 4) for a, b in zip(_CARBON_A, _CARBON_B)) * _HYDROGEN_ADDED
    ice = _VOLUME_PER_ATOM_A3 * _ICE_SCATTERING_PER_A3 * np.exp(-np.pi * k2 * _VOLUME_PER_ATOM_A3 ** (2 / 3))
    gamma = 1 + voltage / 510.99895
    return 2 * gamma * wavelength_angstrom(voltage) * (factor - ice) * np.exp(-bfactor_A2 * k2 / 4)


def wavelength_angstrom(voltage: float) -> float:
    """Relativistic electron wavelength for a voltage in kV."""
    volt = 1000.0 * voltage
    return 12.2642596 / np.sqrt(volt * (1 + 0.978475598e-6 * volt))


def rotation_zyz(degree: np.ndarray) -> np.ndarray:
    """Matrices A (n, 3, 3) of (rot, tilt, psi): the map point r is seen at A r (x, y, z)."""
    rot, tilt, psi = np.deg2rad(np.atleast_2d(degree)).T
    return _about_z(psi) @ _about_y(tilt) @ _about_z(rot)


def euler_zyz(matrix: np.ndarray) -> np.ndarray:
    """Angles (n, 3) in degrees (rot, tilt, psi) of matrices (n, 3, 3), tilt in [0, 180]."""
    tilt = np.arccos(np.clip(matrix[:, 2, 2], -1, 1))
    rot = np.arctan2(matrix[:, 2, 1], matrix[:, 2, 0])
    psi = np.arctan2(matrix[:, 1, 2], -matrix[:, 0, 2])
    return np.rad2deg(np.stack([rot, tilt, psi], axis=1))


def _about_z(angle):
    c, s, o = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack([c, s, o, -s, c, o, o, o, o + 1], axis=-1).reshape(-1, 3, 3)


def _about_y(angle):
    c, s, o = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack([c, o, -s, o, o + 1, o, s, o, c], axis=-1).reshape(-1, 3, 3)


def point_spectrum(points_px: np.ndarray, size: int) -> np.ndarray:
    """Transform sum_n exp(-2 pi i k.r_n) of points on a half spectrum of ``size`` px.

    Parameters: points_px (n, d), slowest axis first, in px about index 0 (periodic).
    Returns: complex64 (size, ..., size//2+1); error below 0.5 % of the rms up to Nyquist.
    """
    dimension = points_px.shape[1]
    fine = 2 * size
    grid = _splat(points_px * 2.0, fine, dimension)
    spectrum = scipy.fft.rfftn(grid, workers=1)
    keep = np.fft.fftfreq(size, 1 / size).astype(int)
    half = np.arange(size // 2 + 1)
    out = spectrum[np.ix_(*([keep] * (dimension - 1)), half)]
    for axis, index in enumerate([keep] * (dimension - 1) + [half]):
        shape = [1] * dimension
        shape[axis] = -1
        out /= _kernel_transform(index / fine).reshape(shape).astype(np.float32)
    return out


def _splat(points: np.ndarray, fine: int, dimension: int) -> np.ndarray:
    base = np.floor(points).astype(np.int64) - _WIDTH // 2 + 1  # (n, d)
    offset = np.arange(_WIDTH)
    distance = (points[:, :, None] - (base[:, :, None] + offset)).astype(np.float32)  # (n, d, width)
    weight = _kernel(distance)
    index = (base[:, :, None] + offset) % fine
    flat, value = index[:, 0], weight[:, 0]
    for axis in range(1, dimension):
        flat = (flat[:, :, None] * fine + index[:, axis][:, None, :]).reshape(len(points), -1)
        value = (value[:, :, None] * weight[:, axis][:, None, :]).reshape(len(points), -1)
    grid = np.bincount(flat.ravel(), weights=value.ravel(), minlength=fine**dimension)
    return grid.astype(np.float32).reshape((fine,) * dimension)


def _kernel(distance_px: np.ndarray) -> np.ndarray:
    """Exponential of a semicircle, nearly band-limited (Barnett et al. 2019, SIAM J. Sci. Comput. 41, C479)."""
    return np.exp(_BETA * (np.sqrt(np.clip(1 - (2 / _WIDTH * distance_px) ** 2, 0, None)) - 1))


def _kernel_transform(frequency: np.ndarray) -> np.ndarray:
    node, weight = _QUADRATURE
    place = 0.5 * _WIDTH * node
    return np.cos(2 * np.pi * np.outer(frequency, place)) @ (0.5 * _WIDTH * weight * _kernel(place))


def projection_spectrum(xyz_angstrom: np.ndarray, matrix: np.ndarray, size: int, pixel_angstrom: float) -> np.ndarray:
    """Point transform of the atoms seen along z after A: complex64 (size, size//2+1), centred on index 0."""
    xy = xyz_angstrom @ matrix[:2].T
    return point_spectrum(xy[:, ::-1] / pixel_angstrom, size)


def density_map(xyz_angstrom, size, pixel_angstrom, voltage, bfactor_A2) -> np.ndarray:
    """Map (z, y, x) whose sums along a direction are the contrast of the projection; centre at size//2."""
    spectrum = point_spectrum(xyz_angstrom[:, ::-1] / pixel_angstrom, size)
    k = map_frequency(size, pixel_angstrom)
    spectrum *= (atom_contrast(k, voltage, bfactor_A2) / pixel_angstrom**2).astype(np.float32)
    density = scipy.fft.irfftn(spectrum, s=(size,) * 3, workers=1)
    return np.roll(density, (size // 2,) * 3, axis=(0, 1, 2))


def map_frequency(size: int, pixel_angstrom: float) -> np.ndarray:
    """|k| in 1/A of a three-dimensional half spectrum (size, size, size//2+1), float32."""
    full = np.fft.fftfreq(size, pixel_angstrom).astype(np.float32) ** 2
    half = np.fft.rfftfreq(size, pixel_angstrom).astype(np.float32) ** 2
    return np.sqrt(full[:, None, None] + full[None, :, None] + half)
