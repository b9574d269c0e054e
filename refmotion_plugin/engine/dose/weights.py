"""Empirical dose weights: a regularised, error-weighted fit of how the signal changes from frame to frame.

Model of the regression amplitude t_f(k) = cross / power_reference:
    t_f(k) = S(k) G_f(k)^a C_f exp(-(B_f + b N_f) k^2 / 4)
S free per shell, G the standard exposure curve, C_f and B_f per frame with a prior: B_f departs from 0 (and both from their
neighbours) only as far as the data say so; a and b let damage as a whole be faster or of another kind. Weights are the relative
amplitudes, all but S, never rising again after their peak. With t's own standard errors, few particles give back the exposure curve instead of noise.
"""
import logging

import numpy as np

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.records import DoseWeights, FccTable
from refmotion_plugin.contract.weighting import b_factors, normalise, resample

from .frame_fit import FrameFit, fit_frames

__all__ = ["amplitude_and_error", "fit_dose_weights", "normalise", "resample", "without_second_rise"]

LATEST_PEAK_DOSE = 10.0     # e/A^2: signal does not grow by itself after that
MOST_FRAMES = 240           # in one fit, of all kinds of movies together: its time grows with their cube

log = logging.getLogger(__name__)


def amplitude_and_error(cross, power_movie, power_reference, components):
    """Regression amplitude t = cross / power_reference and its standard error, for tables (frame, shell).

    Noise power per component is power_movie / (2 components), so var(t) = that / power_reference. Cells without data get an
    infinite error.
    """
    good = (power_reference > 0) & (components > 0)
    t = np.divide(cross, power_reference, out=np.zeros_like(cross), where=good)
    variance = np.divide(power_movie, 2.0 * components * power_reference, out=np.full_like(cross, np.inf), where=good)
    return t, np.sqrt(variance)


def without_second_rise(amplitude, dose_e_per_A2, importance):
    """Relative amplitudes (frame, shell) that only fall after their peak.

    No shell peaks later than the ``importance``-weighted (shell,) mean of all does, and that is within the first few e/A^2.
    """
    allowed = np.flatnonzero(dose_e_per_A2 - dose_e_per_A2[0] <= LATEST_PEAK_DOSE)
    share = amplitude / np.maximum(amplitude.max(0), 1e-30)
    latest = allowed[np.argmax((share[allowed] * importance).sum(1))]
    peak = np.argmax(amplitude[:latest + 1], axis=0)
    falling = amplitude.copy()
    for f in range(1, len(amplitude)):
        falling[f] = np.where(f > peak, np.minimum(falling[f], falling[f - 1]), falling[f])
    return falling


def fit_dose_weights(table: FccTable, voltage_kilovolt, low_resolution_angstrom=20.0, high_frequency_per_angstrom=None,
                     highest_frequency_per_angstrom=None, normalisation="sum", others=()):
    """Dose weights per optics group from summed FCC tables.

    ``voltage_kilovolt`` of all groups or of each. ``others``: tables of movies with other frames, doses or shells; they share the curves through dose and frequency. The result
    has the frames and shells of ``table``. Each group is fitted to the tables with most of its data, up to MOST_FRAMES frames.

    The fit uses shells from ``low_resolution_angstrom`` to ``high_frequency_per_angstrom`` (none: the table's last); the result's
    frequency axis goes on in the table's steps to ``highest_frequency_per_angstrom``, where the model is extrapolated.
    """
    k = table.frequency_per_angstrom
    last = k[-1] if high_frequency_per_angstrom is None else high_frequency_per_angstrom
    band = (k >= 1.0 / low_resolution_angstrom) & (k <= last)
    if band.sum() < 3:
        band = (k > 0) & (k <= max(last, k[min(4, len(k) - 1)]))
    step = k[1] - k[0]
    axis = np.arange(int(round(max(k[-1], highest_frequency_per_angstrom or 0.0) / step)) + 1) * step
    fits, weights = [], []
    for group, voltage in enumerate(np.broadcast_to(voltage_kilovolt, len(table.cross)).tolist()):
        exposure = exposure_amplitude(table.dose_e_per_A2, axis, voltage)
        fit = _fit_group((table,) + tuple(others), group, k[band], voltage)
        known = np.minimum(axis, k[band][-1])       # beyond the fitted band only the exposure curve goes on
        relative = exposure ** fit.damage * fit.scale[:, None] * np.exp(-fit.b_factor_A2[:, None] * known ** 2 / 4.0)
        importance = np.zeros(len(axis))
        importance[:len(k)][band] = axis[:len(k)][band]       # shells count by their number of components
        weights.append(normalise(without_second_rise(relative, table.dose_e_per_A2, importance), normalisation))
        fits.append(fit)
    total_b, total_scale = zip(*[b_factors(w, axis, band) for w in weights])
    relative_error = [f.scale_error / f.scale for f in fits]
    return DoseWeights(
        weight=np.stack(weights), frequency_per_angstrom=axis, dose_e_per_A2=table.dose_e_per_A2,
        b_factor_A2=np.stack(total_b), scale=np.stack(total_scale),
        b_factor_error_A2=np.stack([f.b_error_A2 for f in fits]), scale_error=np.stack(relative_error) * np.stack(total_scale),
        normalisation=normalisation, source="fit to the Fourier cylinder correlation")


def _fit_group(tables, group, frequency_per_angstrom, voltage_kilovolt):
    """The joint fit of one optics group; the :class:`FrameFit` holds the frames of the first table."""
    tables = _few_enough(tables, group)
    parts = [_at_frequencies(table, group, frequency_per_angstrom) for table in tables]
    kind = np.repeat(np.arange(len(tables)), [len(t) for t, _ in parts])
    dose = np.concatenate([table.dose_e_per_A2 for table in tables])
    order = np.argsort(dose, kind="stable")
    t, error = (np.concatenate(values)[order] for values in zip(*parts))
    fit = fit_frames(t, error, exposure_amplitude(dose[order], frequency_per_angstrom, voltage_kilovolt), dose[order],
                     frequency_per_angstrom, kind[order])
    mine = kind[order] == 0
    return FrameFit(fit.scale[mine], fit.b_factor_A2[mine], fit.scale_error[mine], fit.b_error_A2[mine], fit.amplitude,
                    fit.damage)


def _few_enough(tables, group):
    """The first table, whose frames are asked for, that with most data of a group, and the next ones up to MOST_FRAMES frames; what is left out is said."""
    data = [float(table.components[group].sum()) for table in tables]
    order = sorted(range(len(tables)), key=lambda i: -data[i])
    kept = list(dict.fromkeys((0, order[0])))
    more = [i for i in order if data[i] > 0 and i not in kept]
    frames = np.cumsum([len(tables[i].dose_e_per_A2) for i in kept + more])[len(kept):]
    left_out = more[int((frames <= MOST_FRAMES).sum()):]
    if left_out:
        there = int(np.count_nonzero(data))
        log.info("dose weights of optics group %d are fitted to %d of %d kinds of movies (frames, doses, pixels), which hold %.0f %% of its data: "
                 "more would take too long", group + 1, there - len(left_out), there, 100.0 - 100.0 * sum(data[i] for i in left_out) / sum(data))
    return [tables[i] for i in sorted(set(kept + more) - set(left_out))]


def _at_frequencies(table, group, frequency_per_angstrom):
    """Amplitudes and errors of a table at given frequencies; beyond its last shell there are no data (infinite error)."""
    t, error = amplitude_and_error(*[part[group] for part in (table.cross, table.power_movie, table.power_reference, table.components)])
    k = table.frequency_per_angstrom
    inverse = np.where(np.isfinite(error), 1.0 / np.maximum(error, 1e-30), 0.0)
    share = np.sqrt((frequency_per_angstrom[1] - frequency_per_angstrom[0]) / (k[1] - k[0])) if len(frequency_per_angstrom) > 1 else 1.0
    t = np.stack([np.interp(frequency_per_angstrom, k, row) for row in t])
    inverse = np.stack([np.interp(frequency_per_angstrom, k, row, right=0.0) for row in inverse]) * share
    return t, np.divide(1.0, inverse, out=np.full_like(inverse, np.inf), where=inverse > 0)
