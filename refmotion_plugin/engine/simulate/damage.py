"""Radiation damage after Grant & Grigorieff 2015 (eLife 4:e06980)."""
from __future__ import annotations

import numpy as np


def critical_dose(k_per_angstrom: np.ndarray, voltage: float) -> np.ndarray:
    """N_c(k) = 0.245 k^-1.665 + 2.81 e/A^2 at 300 kV, 0.8 of it at 200 kV and below."""
    k = np.maximum(np.asarray(k_per_angstrom, dtype=np.float64), 1e-4)
    return (0.245 * k**-1.665 + 2.81) * (0.8 if voltage < 250 else 1.0)


def frame_amplitude(k_per_angstrom, frames: int, dose_per_frame: float, pre_exposure: float, voltage: float):
    """Amplitude left (frames, ...): exp(-N/(2 N_c)) averaged over the dose of each frame."""
    rate = 0.5 / critical_dose(k_per_angstrom, voltage)
    inside = -np.expm1(-rate * dose_per_frame) / (rate * dose_per_frame)
    start = pre_exposure + dose_per_frame * np.arange(frames)
    return np.exp(-rate * start.reshape((-1,) + (1,) * np.ndim(rate))) * inside


def middle_dose(frames: int, dose_per_frame: float, pre_exposure: float) -> np.ndarray:
    """Dose at the middle of each frame, e/A^2."""
    return pre_exposure + dose_per_frame * (np.arange(frames) + 0.5)
