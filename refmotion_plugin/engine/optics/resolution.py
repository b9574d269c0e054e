"""What a change of the signal-to-noise ratio does to the resolution of a map: how its Fourier shell correlation would move."""
import numpy as np

from refmotion_plugin.contract.verdict import Change

THRESHOLD = 0.143
TRUSTED = (0.05, 0.8)       # of the FSC: the part from which it is continued beyond its end
UNSURE = 0.1                # of the resolution: with a larger error, nothing is expected


def expected_resolution(resolution_angstrom, frequency_per_angstrom, fsc, b_factor_A2, b_error_A2, gain, gain_error):
    """Resolution before and after, :class:`Change` in A, or None if the FSC never falls below 0.143 or cannot be continued.

    Parameters: ``resolution_angstrom`` of the present half-maps and their ``fsc`` (shell,); the signal's amplitude grows by ``exp(B k^2 / 4) (1 + gain)``.

    ``FSC / (1 - FSC)`` is the ratio of signal to noise power [Rosenthal & Henderson 2003]; its logarithm is continued as a straight line
    in k^2 through the trusted part of the curve. That line says by what factor the resolution changes. Errors of both changes count as independent.
    """
    k2 = np.asarray(frequency_per_angstrom) ** 2
    below = np.flatnonzero(fsc[1:] < THRESHOLD)
    trusted = (fsc > TRUSTED[0]) & (fsc < TRUSTED[1])
    if not len(below) or trusted.sum() < 4:
        return None
    slope, level = np.polyfit(k2[trusted], np.log(fsc[trusted] / (1.0 - fsc[trusted])), 1)
    if slope >= 0:
        return None
    wanted = np.log(THRESHOLD / (1.0 - THRESHOLD))

    def resolution(b_factor, share):
        falls = slope + 0.5 * b_factor
        lift = level + 2.0 * np.log(max(1.0 + share, 1e-3))
        return (falls / (wanted - lift)) ** 0.5 if falls < 0 and wanted < lift else np.nan

    factor = resolution_angstrom / resolution(0.0, 0.0)
    after, *moved = [factor * resolution(*change) for change in ((b_factor_A2, gain), (b_factor_A2 + b_error_A2, gain), (b_factor_A2, gain + gain_error))]
    error = float(np.hypot(moved[0] - after, moved[1] - after))
    return Change(float(resolution_angstrom), float(after), error) if error <= UNSURE * after else None
