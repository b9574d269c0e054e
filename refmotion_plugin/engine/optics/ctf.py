"""The transfer function of the microscope: CTF, aberrations and detector, as RELION's columns define them.

For underfocus (positive defocus) the CTF is positive at low frequency, ``+Q0`` at the origin: images have bright protein.
"""
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ...contract.errors import InputError
from ...contract.startable import read_tables
from .aberrations import electron_wavelength_angstrom, even_phase, magnified_frequency, odd_phase


@dataclass(frozen=True, eq=False)
class Transfer:
    """What all particles of an optics group share at n frequencies.

    ``frequency_xy`` (n, 2) float64, 1/A, undistorted (magnification applied); ``basis_turns`` (3, n) float64: kx^2, kx ky, ky^2
    times lambda / 2; ``common_turns`` (n,) float64: phase of spherical aberration, amplitude contrast and even Zernikes in
    turns (radians / 2 pi); ``k2`` (n,) float32; ``gain`` (n,) float32 or complex64: odd aberrations and detector, or None.
    """

    frequency_xy: torch.Tensor
    basis_turns: torch.Tensor
    common_turns: torch.Tensor
    k2: torch.Tensor
    gain: torch.Tensor

    def select(self, index):
        """The same at some of the frequencies only."""
        gain = None if self.gain is None else self.gain[index]
        return Transfer(self.frequency_xy[index], self.basis_turns[:, index], self.common_turns[index], self.k2[index], gain)


def transfer(group, grid, device):
    """:class:`Transfer` of an optics group at all frequencies of a grid, flattened (h * w)."""
    seen = grid.frequency_yx_per_angstrom(dtype=torch.float64).numpy().reshape(-1, 2)[:, ::-1]
    true = magnified_frequency(group, seen)
    x, y = true[:, 0], true[:, 1]
    k2 = x * x + y * y
    wavelength = electron_wavelength_angstrom(group.voltage_kilovolt)
    q0 = group.amplitude_contrast
    if not -1.0 < q0 < 1.0:
        raise InputError("optics group %d has amplitude contrast %g: a fraction between 0 and 1 was expected, correct "
                         "rlnAmplitudeContrast of the particle STAR file" % (group.number, q0))
    cs = group.spherical_aberration_millimetre * 1e7
    common = np.arctan(q0 / np.sqrt(1.0 - q0 * q0)) - 0.5 * np.pi * cs * wavelength ** 3 * k2 * k2 - even_phase(group, true)
    basis = 0.5 * wavelength * np.stack([x * x, x * y, y * y])
    return Transfer(_tensor(true, device), _tensor(basis, device), _tensor(common / (2.0 * np.pi), device),
                    _tensor(k2.astype(np.float32), device), _gain(group, seen, true, device))


def _gain(group, seen_xy, true_xy, device):
    """Factor shared by the particles of the group: exp(i odd phase) times the detector's MTF; None if it is one."""
    phase = odd_phase(group, true_xy)
    mtf = None if group.mtf_file is None else mtf_at(group, np.hypot(seen_xy[:, 0], seen_xy[:, 1]))
    if not phase.any():
        return None if mtf is None else _tensor(mtf.astype(np.float32), device)
    gain = np.exp(1j * phase) * (1.0 if mtf is None else mtf)
    return _tensor(gain.astype(np.complex64), device)


def _tensor(array, device):
    return torch.as_tensor(np.ascontiguousarray(array), device=device)


def mtf_at(group, frequency_per_angstrom):
    """Detector transfer at frequencies in 1/A (numpy): linear in the table, the end values held beyond it.

    The table's rlnResolutionInversePixel is in 1/px of the original micrograph. Raises InputError without that pixel size.
    """
    pixel = group.micrograph_original_pixel_angstrom
    if not pixel:
        raise InputError("optics group %d names the MTF %s but has no rlnMicrographOriginalPixelSize, whose pixels the MTF "
                         "counts in: add it to the optics table of the particle STAR file" % (group.number, group.mtf_file))
    resolution, value = _read_mtf(str(group.mtf_file))
    return np.interp(frequency_per_angstrom * pixel, resolution, value)


@lru_cache(maxsize=32)
def _read_mtf(path):
    if not Path(path).is_file():
        raise InputError("MTF file %s of the optics table does not exist: run from the folder its path refers to, or remove "
                         "rlnMtfFileName" % path)
    for table in read_tables(path).values():
        if "rlnResolutionInversePixel" in table and "rlnMtfValue" in table and len(table) > 1:
            resolution, value = table.numbers("rlnResolutionInversePixel"), table.numbers("rlnMtfValue")
            order = np.argsort(resolution, kind="stable")
            return resolution[order], value[order]
    raise InputError("MTF file %s has no table of rlnResolutionInversePixel and rlnMtfValue with two rows or more: give a "
                     "detector MTF in RELION's STAR format" % path)


def contrast(shared, table, device):
    """Real part of the transfer, float32 (particle, n): scale * exp(-B k^2 / 4) * CTF.

    ``CTF = sin(2 pi turns)``, ``turns = lambda/2 (defocus quadratic form of k) + common + phase shift``; the sum is made in
    float64 and reduced to [-1/2, 1/2] before it becomes float32, since it reaches hundreds of turns.
    """
    form, extra, envelope = _particle_columns(table, device)
    turns = form @ shared.basis_turns  # (particle, n)
    turns += shared.common_turns + extra
    turns -= turns.round()
    ctf = torch.sin(turns.to(torch.float32) * (2.0 * torch.pi))
    scale, bfactor = envelope
    if scale is not None:
        ctf *= scale
    if bfactor is not None:
        ctf *= torch.exp(-0.25 * bfactor * shared.k2)
    return ctf


def _particle_columns(table, device):
    """Per-particle columns: (p, 3) defocus form, (p, 1) phase shift in turns, and (scale, B) as (p, 1) or None if idle."""
    u, v = np.asarray(table.defocus_u_angstrom, np.float64), np.asarray(table.defocus_v_angstrom, np.float64)
    angle = np.deg2rad(np.asarray(table.defocus_angle_degree, np.float64))
    cos, sin = np.cos(angle), np.sin(angle)
    form = np.stack([u * cos * cos + v * sin * sin, 2.0 * (u - v) * sin * cos, u * sin * sin + v * cos * cos], axis=-1)
    extra = np.asarray(table.phase_shift_degree, np.float64)[:, None] / 360.0
    scale, bfactor = np.asarray(table.ctf_scale, np.float32), np.asarray(table.ctf_bfactor_A2, np.float32)
    return _tensor(form, device), _tensor(extra, device), (
        None if (scale == 1).all() else _tensor(scale[:, None], device),
        None if (bfactor == 0).all() else _tensor(bfactor[:, None], device))


def ctf(table, group, grid, device):
    """Full transfer of particles of one optics group, (particle, h, w): float32, or complex64 with odd aberrations.

    CTF (defocus U/V/angle, phase shift, Cs, amplitude contrast, even Zernikes, B and scale factor) times exp(i odd phase) of
    beam tilt and odd Zernikes, times the MTF; all but the MTF at frequencies undistorted by the magnification matrix.

    Parameters: ``table`` ParticleTable (its optics_group column is not looked at), ``group`` OpticsGroup, ``grid`` FourierGrid.
    Raises InputError for impossible optics or a bad MTF file. Source: Zivanov et al. 2018 and 2020; RELION 3.1 conventions.
    """
    shared = transfer(group, grid, device)
    out = contrast(shared, table, device)
    if shared.gain is not None:
        out = out * shared.gain
    return out.reshape((len(table),) + grid.shape)
