"""The standard curve of radiation damage: what is known before the data speak."""
import numpy as np

SMALLEST_VOLTAGE_FACTOR = 0.5


def exposure_amplitude(dose_e_per_A2, frequency_per_angstrom, voltage_kilovolt=300.0):
    """Signal amplitude left after a dose, (frame, shell): exp(-N / (2 Nc(k))), Nc = 0.245 k^-1.665 + 2.81 at 300 kV.

    ``dose_e_per_A2`` (frame,), at mid-frame for whole frames; ``frequency_per_angstrom`` (shell,). Nc is 0.8 times that at
    200 kV, linear between and beyond. Source: Grant & Grigorieff 2015, eq. 3 and its section on voltage.
    """
    k = np.maximum(np.asarray(frequency_per_angstrom, dtype=np.float64), 1e-4)
    factor = max(SMALLEST_VOLTAGE_FACTOR, 1.0 - 0.2 * (300.0 - voltage_kilovolt) / 100.0)
    critical = factor * (0.245 * k ** -1.665 + 2.81)
    return np.exp(-np.asarray(dose_e_per_A2, dtype=np.float64)[:, None] / (2.0 * critical))
