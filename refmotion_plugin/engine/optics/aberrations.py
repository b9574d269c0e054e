"""Zernike polynomials in RELION's order and normalisation, and the phases of one optics group.

Frequencies are (x, y) in 1/A as numpy float64: one small array per optics group, shared by all its particles.
"""
import numpy as np

from ...contract.errors import InputError

_PLANCK_J_S, _LIGHT_M_PER_S = 6.62607015e-34, 299792458.0
_ELECTRON_KG, _CHARGE_C = 9.1093837015e-31, 1.602176634e-19
_COMA = (3, 4)   # places of Z(-1,3) and Z(1,3) in rlnOddZernike


def electron_wavelength_angstrom(voltage_kilovolt):
    """Relativistic wavelength in A: ``h c / sqrt(eV (eV + 2 m c^2))``."""
    energy = voltage_kilovolt * 1e3 * _CHARGE_C
    rest = _ELECTRON_KG * _LIGHT_M_PER_S ** 2
    return _PLANCK_J_S * _LIGHT_M_PER_S / np.sqrt(energy * (energy + 2.0 * rest)) * 1e10


def odd_zernike_order(index):
    """(m, n) of the ``index``-th entry of rlnOddZernike: (-1,1), (1,1), (-3,3), (-1,3), (1,3), (3,3), (-5,5) ..."""
    k = int((np.sqrt(1 + 4 * index) - 1) // 2)
    n = 2 * k + 1
    return 2 * (index - k * k - k) - n, n


def even_zernike_order(index):
    """(m, n) of the ``index``-th entry of rlnEvenZernike: (0,0), (-2,2), (0,2), (2,2), (-4,4) ..."""
    k = int(np.sqrt(index))
    return 2 * (index - k * k - k), 2 * k


def zernike(m, n, frequency_xy):
    """Z_n^m at (..., 2) frequencies in 1/A, the radius being |k| in 1/A itself: R(k) cos(m phi), or sin(|m| phi) for m < 0.

    ``R = sum_l (-1)^l (n-l)! / (l! ((n+|m|)/2-l)! ((n-|m|)/2-l)!) k^(n-2l)``. Source: Zivanov et al. 2020, IUCrJ 7:253.
    """
    x, y = frequency_xy[..., 0], frequency_xy[..., 1]
    k, phi, size = np.hypot(x, y), np.arctan2(y, x), abs(m)
    radial = np.zeros_like(k)
    for l in range((n - size) // 2 + 1):
        term = _factorial(n - l) / (_factorial(l) * _factorial((n + size) // 2 - l) * _factorial((n - size) // 2 - l))
        radial = radial + (-1) ** l * term * k ** (n - 2 * l)
    return radial * (np.cos(size * phi) if m >= 0 else np.sin(size * phi))


def _factorial(n):
    return float(np.prod(np.arange(1, n + 1, dtype=np.float64)))


def _zernike_sum(coefficients, order, frequency_xy):
    total = np.zeros(frequency_xy.shape[:-1])
    for index, coefficient in enumerate(coefficients):
        if coefficient:
            total = total + coefficient * zernike(*order(index), frequency_xy)
    return total


def odd_phase(group, frequency_xy):
    """Phase in radians by which the odd aberrations (beam tilt, odd Zernikes) turn the image: image *= exp(i phase).

    Beam tilt b (rad): ``-2 pi Cs lambda^2 |k|^2 (b . k)``; odd Zernikes enter with a plus. A beam tilt replaces the coma of
    the Zernikes (their terms (-1,3) and (1,3)), which say the same. ``frequency_xy`` (..., 2) in 1/A.
    Source: Zivanov et al. 2018, eLife 7:e42166; signs and precedence as ``relion_reconstruct`` 3.1 undoes them.
    """
    tilt = np.asarray(group.beam_tilt_xy_milliradian, dtype=np.float64) * 1e-3
    zernikes = [0.0 if tilt.any() and i in _COMA else c for i, c in enumerate(group.odd_zernike)]
    cs = group.spherical_aberration_millimetre * 1e7
    strength = -2.0 * np.pi * cs * electron_wavelength_angstrom(group.voltage_kilovolt) ** 2
    k2 = np.sum(frequency_xy ** 2, axis=-1)
    return strength * k2 * (frequency_xy @ tilt) + _zernike_sum(zernikes, odd_zernike_order, frequency_xy)


def even_phase(group, frequency_xy):
    """Phase in radians added to the argument of the CTF by the even Zernikes."""
    return _zernike_sum(group.even_zernike, even_zernike_order, frequency_xy)


def magnified_frequency(group, frequency_xy):
    """Frequencies of the undistorted image, (..., 2) in 1/A: M k, with M the group's magnification matrix on (x, y)."""
    matrix = np.asarray(group.magnification_matrix, dtype=np.float64).reshape(2, 2)
    if abs(np.linalg.det(matrix)) < 1e-3:
        raise InputError("optics group %d has the magnification matrix %s, which cannot be inverted: correct rlnMagMat00..11 "
                         "of the particle STAR file" % (group.number, matrix.tolist()))
    return frequency_xy @ matrix.T
