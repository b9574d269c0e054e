"""Relative weights of frames: their normalisation, the B-factors that describe them, and their values at other doses and frequencies."""
import numpy as np

from .damage import exposure_amplitude
from .errors import InputError
from .records import DoseWeights

SMALLEST = 1e-30            # instead of 0 under a logarithm or a fraction
LOWEST_BAND_PER_ANGSTROM, FINEST_BAND_PER_ANGSTROM = 0.05, 0.25
MOTION_ENDS_AT_DOSE = 8.0   # e/A^2: frames after that differ by damage alone
UNSURE_SPREAD = 10.0        # (e/A^2)^2: late frames whose doses spread so much about their mean, squares summed, are believed half of a rate
B_FACTOR_AXIS_PER_ANGSTROM = np.linspace(0.0, 1.0, 513)      # for weights known as B-factors only, which have no last frequency


def normalise(amplitude, kind):
    """(frame, shell) relative amplitudes scaled per shell: ``sum`` 1, ``power`` sum of squares 1, or ``peak`` 1."""
    norms = {"sum": lambda a: a.sum(0), "power": lambda a: np.sqrt((a ** 2).sum(0)), "peak": lambda a: a.max(0)}
    if kind not in norms:
        raise ValueError("normalisation is %r: sum, power or peak was expected" % (kind,))
    return amplitude / np.maximum(norms[kind](amplitude), SMALLEST)


def relative_amplitude(b_factor_A2, scale, frequency_per_angstrom):
    """(frame, shell) amplitudes scale exp(-B k^2 / 4) of B-factors and scales (frame,), up to a factor common to all frames.

    The least B-factor is taken off all: high ones in all frames would leave nothing at high frequency.
    """
    return scale[:, None] * np.exp(-(b_factor_A2 - b_factor_A2.min())[:, None] * frequency_per_angstrom ** 2 / 4.0)


def b_factors(weight, frequency_per_angstrom, band):
    """B-factors (A^2) and scales, each (frame,), that describe weights (frame, shell) within ``band`` (a mask of shells).

    weight ~ scale exp(-B k^2 / 4), fitted to the logarithm: relative weights of that form are given back exactly, up to what
    is common to all frames.
    """
    inside = np.flatnonzero(band)
    design = np.stack([np.ones(len(inside)), -frequency_per_angstrom[inside] ** 2 / 4.0], axis=1)
    solution = np.linalg.lstsq(design, np.log(np.maximum(weight[:, inside], SMALLEST)).T, rcond=None)[0]
    return solution[1], np.exp(solution[0])


def band_to(highest_per_angstrom, frequency_per_angstrom):
    """Mask of the shells from 20 A to a frequency; all shells but the first if that leaves fewer than three."""
    band = (frequency_per_angstrom >= LOWEST_BAND_PER_ANGSTROM) & (frequency_per_angstrom <= highest_per_angstrom)
    return band if band.sum() >= 3 else frequency_per_angstrom > 0


def snr_lost_to_errors(weights: DoseWeights, groups=None):
    """Share of the signal-to-noise ratio between 20 and 4 A that the standard errors of the weights cost: mean over shells, worst of the ``groups`` (positions; none: all).

    Weights w (1 + e) keep 1 - var(e) of it, the variance over frames weighted by w^2: what errors have in common is no loss, so of independent ones
    with variances v sum p (1 - p) v is expected, p = w^2 / sum w^2. The errors of scale and B-factor are taken for independent, which is on the safe side.
    """
    k = weights.frequency_per_angstrom
    band = (k >= LOWEST_BAND_PER_ANGSTROM) & (k <= FINEST_BAND_PER_ANGSTROM)
    if not band.any():
        return float("inf")
    error = weights.scale_error / np.maximum(weights.scale, SMALLEST)
    variance = error[..., None] ** 2 + weights.b_factor_error_A2[..., None] ** 2 * (k[band] ** 2 / 4.0) ** 2
    share = weights.weight[..., band] ** 2
    share = share / np.maximum(share.sum(1, keepdims=True), SMALLEST)
    lost = (share * (1.0 - share) * variance).sum(1).mean(1)
    return float(lost.max() if groups is None else lost[groups].max())


def damage_rate(weights: DoseWeights, group=0, voltage_kilovolt=300.0):
    """How fast late frames fade with dose between 17 and 7 A, relative to the standard exposure curve; NaN with too few of them.

    About 1 for protein. Far from it the doses or the frequencies of a file are probably not what they were taken for: half the
    frequency makes a factor of 2, twice the frequency one of 0.4.
    """
    k, dose = weights.frequency_per_angstrom, weights.dose_e_per_A2
    late, band = dose - dose[0] >= MOTION_ENDS_AT_DOSE, (k >= 0.06) & (k <= 0.15)
    if late.sum() < 3 or not band.any():
        return float("nan")
    centred = dose[late] - dose[late].mean()
    found, expected = [np.log(np.maximum(w[late][:, band], SMALLEST)) for w in (
        weights.weight[group], exposure_amplitude(dose, k, voltage_kilovolt))]
    found, expected = centred @ found, centred @ expected
    return float(found @ expected / (expected @ expected))


def check_groups(n_weights, n_groups, whose, what="dose weights"):
    """InputError unless ``n_weights`` optics groups of weights serve the ``n_groups`` of "particles" or "movies": one for all, or as many."""
    if n_weights not in (1, n_groups):
        raise InputError("%s have %d optics groups, the %s %d: give weights of one group or of the same groups" % (what, n_weights, whose, n_groups))


def resample(weights: DoseWeights, group, dose_e_per_A2, frequency_per_angstrom):
    """Weights (frame, shell) of one group for other frames and frequencies, with the normalisation they were stored with.

    The logarithm of the relative amplitude is interpolated linearly in dose and frequency. Frames beyond the stored doses
    go on falling with damage, at the rate of the late ones; frames before them gain what damage takes until the first of them; frequencies beyond
    the last stored one keep its value. Motion inside a frame grows with the frame's dose, so what early frames lack beside damage (a logarithm quadratic
    in that motion) grows with its square. Weights without a second rise stay without.
    """
    if np.array_equal(weights.dose_e_per_A2, dose_e_per_A2):
        along_dose = weights.weight[group]
    else:
        stored = np.log(np.maximum(weights.weight[group], 1e-12))
        along_dose = np.exp(_at_doses(weights.dose_e_per_A2, stored, weights.frequency_per_angstrom, np.asarray(dose_e_per_A2, dtype=np.float64)))
    table = np.stack([np.interp(frequency_per_angstrom, weights.frequency_per_angstrom, row) for row in along_dose])
    if np.array_equal(falling(weights.weight[group]), weights.weight[group]):       # between shells that peak at different frames
        table = falling(table)
    return normalise(table, weights.normalisation)


def falling(table):
    """The table (frame, shell) without rises after each shell's peak."""
    peak, out = table.argmax(0), table.copy()
    for f in range(1, len(table)):
        out[f] = np.where(f > peak, np.minimum(out[f], out[f - 1]), out[f])
    return out


def _at_doses(stored_dose, table, frequency_per_angstrom, dose):
    """The logarithm ``table`` (frame, shell) of weights at other doses."""
    found = _interpolate_dose(stored_dose, table, dose)
    if len(stored_dose) < 2:
        return found
    late = stored_dose - stored_dose[0] >= MOTION_ENDS_AT_DOSE
    late[-1] = True
    damage = _damage(stored_dose[late], table[late], frequency_per_angstrom)
    departure = table - damage(stored_dose)
    before = np.maximum(damage(np.minimum(dose, stored_dose[0])) - damage(stored_dose[:1]), 0.0)
    after = np.minimum(damage(np.maximum(dose, stored_dose[-1])) - damage(stored_dose[-1:]), 0.0)
    return found + before + after + _early_blur(stored_dose, departure - departure[late].mean(0), dose)


def _damage(late_dose, table, frequency_per_angstrom):
    """The logarithm that damage leaves, a function of doses (frame,) -> (frame, shell), up to a constant per shell.

    It is the exposure curve, faster or slower per shell at an even rate as the late frames' ``table`` (frame, shell) shows; the curve itself where
    they are too few to tell.
    """
    curve = lambda doses: np.log(np.maximum(exposure_amplitude(doses, frequency_per_angstrom), SMALLEST))
    centred = late_dose - late_dose.mean()
    rate = centred @ (table - curve(late_dose)) / (centred @ centred + UNSURE_SPREAD)
    return lambda doses: curve(doses) + rate * doses[:, None]


def _early_blur(stored_dose, departure, dose):
    """What is added to the logarithm of interpolated weights (frame, shell) since motion inside the frames is more or less than stored.

    ``departure`` (frame, shell): the stored ones beside damage, 0 late.
    """
    if len(dose) < 2:
        return 0.0
    step = np.interp(dose, stored_dose, np.gradient(stored_dose))
    more = (np.gradient(dose) / step) ** 2 - 1.0
    lost = np.minimum(_interpolate_dose(stored_dose, departure, dose), 0.0)
    early = np.clip(2.0 * (1.0 - (dose - stored_dose[0]) / MOTION_ENDS_AT_DOSE), 0.0, 1.0)      # whole to half that dose, then fading
    return lost * (more * early)[:, None]


def _interpolate_dose(stored_dose, table, dose):
    """The ``table`` (frame, shell) at other doses; beyond the stored ones the value at the end."""
    if len(stored_dose) == 1:
        return np.repeat(table, len(dose), axis=0)
    left = np.clip(np.searchsorted(stored_dose, dose) - 1, 0, len(stored_dose) - 2)
    share = ((dose - stored_dose[left]) / (stored_dose[left + 1] - stored_dose[left]))[:, None]
    return table[left] + (table[left + 1] - table[left]) * np.clip(share, 0.0, 1.0)
