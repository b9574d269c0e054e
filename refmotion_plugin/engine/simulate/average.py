"""What motion correction and extraction leave behind: aligned average and particle images."""
from __future__ import annotations

import numpy as np
import scipy.fft

from .damage import critical_dose
from .spec import SimulationSpec


class RigidAverage:
    """Dose-weighted sum of frames moved by their rigid shifts, power normalised (white noise stays white).

    Grant & Grigorieff 2015, eq. 9: sum_f D_f F_f / sqrt(sum_f D_f^2).
    """

    def __init__(self, spec: SimulationSpec, shift_yx_px: np.ndarray) -> None:
        self.shape, self.shift_yx_px = spec.size_yx, shift_yx_px
        self._ky = np.fft.fftfreq(spec.size_yx[0])
        self._kx = np.fft.rfftfreq(spec.size_yx[1])
        k = np.hypot(self._ky[:, None], self._kx[None]) / spec.pixel_angstrom
        rate = 0.5 / critical_dose(k, spec.voltage)
        self._decay = np.exp(-rate * spec.dose_per_frame).astype(np.float32)
        self._amplitude = np.exp(-rate * (spec.pre_exposure + 0.5 * spec.dose_per_frame)).astype(np.float32)
        self._power = np.zeros_like(self._amplitude)
        self._sum = np.zeros(k.shape, np.complex64)
        self._frame = 0

    def add(self, frame: np.ndarray) -> None:
        """Add the next frame (gain corrected, float32)."""
        dy, dx = self.shift_yx_px[self._frame]
        spectrum = scipy.fft.rfft2(frame, workers=1)
        spectrum *= np.exp(-2j * np.pi * self._ky * dy).astype(np.complex64)[:, None]
        spectrum *= np.exp(-2j * np.pi * self._kx * dx).astype(np.complex64)[None, :]
        spectrum *= self._amplitude
        self._sum += spectrum
        self._power += np.square(self._amplitude)
        self._amplitude *= self._decay
        self._frame += 1

    def image(self) -> np.ndarray:
        """The average, float32 (height, width)."""
        return scipy.fft.irfft2(self._sum / np.sqrt(self._power), s=self.shape, workers=1)


def extract(micrograph: np.ndarray, coordinate_yx_px: np.ndarray, box: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes at truncated coordinates, turn protein bright, normalise the background.

    Returns images (n, box, box) float32 with mean 0 and sigma 1 outside the
    background circle, and the sigma (n,) each had before.
    """
    corner = np.floor(coordinate_yx_px).astype(int) - box // 2
    images = np.stack([-micrograph[y:y + box, x:x + box] for y, x in corner]).astype(np.float32)
    outside = images[:, background(box)]
    mean, sigma = outside.mean(axis=1), outside.std(axis=1)
    return (images - mean[:, None, None]) / sigma[:, None, None], sigma


def background(box: int) -> np.ndarray:
    """Pixels (box, box) outside the circle of 3/4 of half the box."""
    y, x = np.indices((box, box)) - box // 2
    return np.hypot(y, x) > 0.375 * box
