"""Frames of a movie: particles drawn dark on bright ice, counted electron by electron."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.fft

from .catalogue import Catalogue, Scene, optics_of_group
from .counting import poisson_counts
from .ctf import transfer
from .damage import frame_amplitude
from .projection import atom_contrast, frequencies_per_angstrom, projection_spectrum, rotation_zyz, wavelength_angstrom
from .spec import SimulationSpec, random_stream
from .structure import Structure

_DELOCALISED_PER_ANGSTROM = 1 / 3.2  # signal beyond this is too weak to be worth a larger patch


class Stamps:
    """The particles of one species in one movie, ready to be drawn at any place and dose."""

    def __init__(self, spec: SimulationSpec, structure: Structure, catalogue: Catalogue, group: int) -> None:
        self.size = _patch_size(spec, structure.radius_angstrom)
        ky, kx = frequencies_per_angstrom(self.size, 1.0)
        self._ky, self._kx = ky.ravel(), kx.ravel()
        k = np.hypot(ky, kx) / spec.pixel_angstrom
        envelope = (spec.contrast_scale / spec.pixel_angstrom**2
                    * atom_contrast(k, spec.voltage, spec.bfactor_A2)).astype(np.float32)
        self._damage = frame_amplitude(k, spec.frames, spec.dose_per_frame, spec.pre_exposure,
                                       spec.voltage).astype(np.float32)
        self._place = catalogue.position_yx_px[:, None, None] + catalogue.path_yx_angstrom / spec.pixel_angstrom
        optics = optics_of_group(spec, group)
        self._spectrum = np.empty((len(self._place),) + k.shape, np.complex64)
        for i, matrix in enumerate(rotation_zyz(catalogue.rotation_zyz_degree)):
            seen = projection_spectrum(structure.xyz_angstrom, matrix, self.size, spec.pixel_angstrom)
            ctf = transfer(optics, catalogue.defocus_uva[i], self.size, spec.pixel_angstrom)
            self._spectrum[i] = seen * envelope * ctf

    def subtract_from(self, canvas: np.ndarray, frame: int) -> None:
        """Take the contrast of every particle in ``frame`` off the canvas (particles are dark)."""
        for particle, spectrum in enumerate(self._spectrum):
            place = self._place[particle, frame]  # (SUBSTEPS, 2)
            whole = np.round(place.mean(axis=0)).astype(int)
            shift = self._blurred_phase(place - whole + self.size // 2)
            shift *= spectrum
            shift *= self._damage[frame]
            patch = scipy.fft.irfft2(shift, s=(self.size, self.size), workers=1, overwrite_x=True)
            _subtract_patch(canvas, patch, whole - self.size // 2)

    def _blurred_phase(self, offset_yx_px: np.ndarray) -> np.ndarray:
        """Mean of exp(-2 pi i k.r) over the path inside the frame: blur and sub-pixel shift in one."""
        along_y = np.exp(-2j * np.pi * np.outer(self._ky, offset_yx_px[:, 0])).astype(np.complex64)
        along_x = np.exp(-2j * np.pi * np.outer(offset_yx_px[:, 1], self._kx)).astype(np.complex64)
        return (along_y / np.float32(len(offset_yx_px))) @ along_x


def _patch_size(spec: SimulationSpec, radius_angstrom: float) -> int:
    """Even patch that holds the particle and its delocalised signal."""
    spread = wavelength_angstrom(spec.voltage) * spec.defocus_angstrom[1] * _DELOCALISED_PER_ANGSTROM
    half = (radius_angstrom + spread) / spec.pixel_angstrom
    return 2 * scipy.fft.next_fast_len(int(np.ceil(half)), real=True)


def _subtract_patch(canvas, patch, corner) -> None:
    low = np.maximum(corner, 0)
    high = np.minimum(corner + patch.shape, canvas.shape)
    if np.all(high > low):
        inner = patch[low[0] - corner[0]:high[0] - corner[0], low[1] - corner[1]:high[1] - corner[1]]
        canvas[low[0]:high[0], low[1]:high[1]] -= inner


def ice_thickness(spec: SimulationSpec, movie: int) -> np.ndarray:
    """Static brightness of the ice, mean 1: a gentle wedge and a bulge, float32 (height, width)."""
    rng = random_stream(spec, "ice", movie)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in spec.size_yx)
    wedge = rng.normal(scale=0.015, size=3)
    bright = 1 + wedge[0] * y[:, None] + wedge[1] * x[None, :] + wedge[2] * (y[:, None] ** 2 + x[None, :] ** 2 - 2 / 3)
    return bright.astype(np.float32)


def draw_gain(spec: SimulationSpec) -> np.ndarray:
    """Gain reference that multiplies the raw counts, in the rows' order of the coordinates, mean about 1."""
    rng = random_stream(spec, "gain")
    height, width = spec.size_yx
    panels = np.kron(rng.normal(scale=0.03, size=(4, 4)), np.ones((-(-height // 4), -(-width // 4))))[:height, :width]
    return np.exp(panels + rng.normal(scale=0.03, size=spec.size_yx)).astype(np.float32)


def hot_pixels_yx(spec: SimulationSpec) -> np.ndarray:
    """Places (n, 2) of pixels that always count too many; the same in all movies."""
    rng = random_stream(spec, "hot pixels")
    return np.stack([rng.integers(0, n, size=spec.hot_pixels) for n in spec.size_yx], axis=1)


def raw_frames(spec: SimulationSpec, scene: Scene, structures, gain: np.ndarray | None) -> Iterator[np.ndarray]:
    """Counts of each frame, uint8 (height, width), rows in the order of the coordinates."""
    stamps = [Stamps(spec, s, c, scene.group) for s, c in zip(structures, scene.catalogues)]
    ice = spec.mean_count_per_px * ice_thickness(spec, scene.index)
    hot_y, hot_x = hot_pixels_yx(spec).T
    rng = random_stream(spec, "counts", scene.index)
    for frame in range(spec.frames):
        expected = np.ones(spec.size_yx, np.float32)
        for species in stamps:
            species.subtract_from(expected, frame)
        expected *= ice
        if gain is not None:
            expected /= gain
        counts = poisson_counts(rng, np.maximum(expected, 0))
        counts[hot_y, hot_x] = np.minimum(counts[hot_y, hot_x] + rng.poisson(25.0, size=len(hot_y)), 127)
        yield counts
