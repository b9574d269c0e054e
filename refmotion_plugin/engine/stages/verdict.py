"""The verdict of a job, from sums that its alignment left: trajectories and dose weights on data that had no part in them.

Trajectories: log-likelihood of the opposite half-map along motion that each particle's neighbours predict, against the input
motion. Weights: fitted on every other movie, judged on the rest, and the other way round.
"""
import math
from dataclasses import dataclass

import numpy as np

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.verdict import CANNOT_TELL, GAIN, NO_GAIN, NOT_JUDGED, WRONG, Finding, Verdict
from refmotion_plugin.contract.weighting import resample

from ..dose.gain import WeightScore, score_weights
from ..optics.resolution import expected_resolution
from ..search.compare import cautious_error
from .prepared import Prepared
from .weigh import fit_weights, last_signal

CERTAIN = 2.0               # standard errors above which a gain is one
NEGLIGIBLE_B_A2 = 2.0       # of the B-factor: a twentieth of the particles at 4 A
LEAST_GAIN = -0.99          # of the log-likelihood: where nothing or less than nothing is left of it, no B-factor says how much was lost
NEGLIGIBLE_GAIN = 0.01      # of the signal-to-noise ratio (amplitude): a fiftieth of the particles


def reach_verdict(evidence, weights, prepared: Prepared, warnings=()):
    """:class:`Verdict` of a job.

    ``evidence``: ``judged`` JudgedMovies; ``totals``, FCC totals by kind of all movies, and ``halves``, a pair of the same of every other
    movie. ``weights``: those in use; ``warnings``: what looked wrong earlier, sentences.
    """
    spectrum = seen_spectrum(evidence.totals[0], prepared)
    trajectories, b_factor = judge_trajectories(evidence.judged, spectrum)
    fitted, even = judge_weights(evidence, weights, prepared)
    warnings = tuple(warnings)
    word = _overall(trajectories, fitted, warnings)
    resolution = None if warnings else _resolution(b_factor, fitted, weights, evidence.totals[0], prepared)
    particles = sum(len(m.row) for m in evidence.judged)
    return Verdict(word, _sentence(word, trajectories, fitted, b_factor, resolution, warnings), trajectories, fitted, even, *b_factor,
                   resolution, warnings, particles, len(evidence.judged))


# ---- trajectories -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Spectrum:
    """Which shells the log-likelihood of a job comes from: ``share`` (shell,) of it at ``frequency_per_angstrom`` (shell,)."""

    frequency_per_angstrom: np.ndarray
    share: np.ndarray

    @property
    def mean_square(self):
        """Mean of k^2 under the shares, 1/A^2."""
        return float((self.share * self.frequency_per_angstrom ** 2).sum())

    def b_factor_A2(self, gain):
        """The B-factor whose removal multiplies the log-likelihood by 1 + gain: sum share exp(-B k^2 / 4) = 1 / (1 + gain)."""
        decay, gain = self.frequency_per_angstrom ** 2 / 4.0, max(gain, LEAST_GAIN)
        low, high = -1e4, 1e4
        for _ in range(60):
            middle = 0.5 * (low + high)
            exponent = np.clip(-middle * decay, -700.0, 700.0)
            low, high = (middle, high) if (self.share * np.exp(exponent)).sum() > 1.0 / (1.0 + gain) else (low, middle)
        return 0.5 * (low + high)


def seen_spectrum(table, prepared: Prepared):
    """:class:`Spectrum` of the total FCC table: per shell, sum over frames of S D cross; what is below nought is noise."""
    k = table.frequency_per_angstrom
    if prepared.amplitudes is None:
        return Spectrum(k, np.full(len(k), 1.0 / len(k)))
    factor = np.mean([np.interp(k, a.frequency_per_angstrom, a.factor, right=0.0) for a in prepared.amplitudes], axis=0)
    damage = np.stack([exposure_amplitude(table.dose_e_per_A2, k, voltage) for voltage in prepared.voltages_kilovolt])
    value = np.maximum((table.cross * damage).sum((0, 1)) * factor, 0.0)
    return Spectrum(k, value / max(value.sum(), 1e-300))


def judge_trajectories(judged, spectrum: Spectrum):
    """:class:`Finding` and (B-factor taken off, its standard error), None for both if nothing was judged."""
    if not judged:
        return Finding(NOT_JUDGED, None, None, "The input motion was kept: there are no trajectories to judge."), (None, None)
    won = np.concatenate([m.held_out - m.start for m in judged])
    start = float(sum(m.start.sum() for m in judged))
    movie = np.repeat(np.arange(len(judged)), [len(m.row) for m in judged])
    if start <= CERTAIN * cautious_error(np.concatenate([m.start for m in judged]), movie):
        return Finding(CANNOT_TELL, None, None, "Along the input motion the movies do not show the opposite half-map: trajectories cannot "
                                                "be judged."), (None, None)
    gain, error = float(won.sum()) / start, cautious_error(won, movie) / start
    b_factor = spectrum.b_factor_A2(gain)
    b_error = 4.0 * error / max(spectrum.mean_square, 1e-12)
    unknown = float(np.concatenate([m.unknown_A2 for m in judged]).mean())
    word = _word(b_factor, b_error + 8.0 * math.pi ** 2 * unknown / CERTAIN, NEGLIGIBLE_B_A2) if b_factor <= CERTAIN * b_error else GAIN
    numbers = "%.1f ± %.1f Å² off the B-factor (%.0f ± %.0f log-likelihood units on %d particles of %d movies)" % (
        b_factor, b_error, won.sum(), error * start, len(won), len(judged))
    numbers += "" if word == GAIN else "; motion of %.2f Å rms could be unseen" % unknown ** 0.5
    said = {GAIN: "Trajectories help: they take at least %s.", NO_GAIN: "Trajectories bring no gain over the input motion: %s.",
            CANNOT_TELL: "Whether trajectories help cannot be told from so few data: %s."}[word] % numbers
    return Finding(word, gain, error, said), (b_factor, b_error)


# ---- weights ------------------------------------------------------------------------------------------------------------------

def judge_weights(evidence, weights, prepared: Prepared):
    """:class:`Finding` of the dose weights against the standard exposure curve, and against equal weights."""
    pairs = _held_out_pairs(evidence, weights, prepared)
    if not pairs:
        nothing = Finding(NOT_JUDGED, None, None, "Dose weights fitted on one movie alone cannot be judged on others.")
        return nothing, Finding(NOT_JUDGED, None, None, "")
    scores = [WeightScore(), WeightScore()]
    for tables, found in pairs:
        for table in tables:
            for i, score in enumerate(_against_both(table, found, prepared)):
                scores[i] += score
    return (_weights_finding(scores[0], "the standard exposure curve"), _weights_finding(scores[1], "equal weights"))


def _held_out_pairs(evidence, weights, prepared):
    """[(tables to judge on, weights that have not seen them)]."""
    if prepared.spec.dose.weights_file is not None:
        return [(evidence.totals, weights)]
    first, second = evidence.halves
    if not first or not second:
        return []
    return [(first, fit_weights(second, prepared)), (second, fit_weights(first, prepared))]


def _against_both(table, found, prepared):
    k, dose = table.frequency_per_angstrom, table.dose_e_per_A2
    band = (k >= 1.0 / prepared.spec.dose.fit_low_resolution_angstrom) & (k <= last_signal(table, prepared))
    totals = [WeightScore(), WeightScore()]
    for group, voltage in enumerate(prepared.voltages_kilovolt):
        standard = exposure_amplitude(dose, k, voltage)
        mine = resample(found, group if len(found.weight) > 1 else 0, dose, k)
        for i, other in enumerate((standard, np.ones_like(standard))):
            totals[i] += score_weights(table, group, mine, other, band)
    return totals


def _weights_finding(score: WeightScore, what):
    gain, error = score.gain
    if not math.isfinite(error) or score.other <= 0:
        return Finding(CANNOT_TELL, None, None, "No signal is seen by which dose weights could be judged.")
    word = _word(gain, error, NEGLIGIBLE_GAIN)
    numbers = "%.1f ± %.1f %% of signal-to-noise ratio" % (100 * gain, 100 * error)
    said = {GAIN: "Dose weights fitted to the data win %s over %s.", NO_GAIN: "Dose weights fitted to the data bring no gain: %s over %s.",
            CANNOT_TELL: "Whether dose weights fitted to the data help cannot be told: %s over %s."}[word] % (numbers, what)
    return Finding(word, gain, error, said)


# ---- together -----------------------------------------------------------------------------------------------------------------

def _word(value, error, negligible):
    if value > CERTAIN * error:
        return GAIN
    return NO_GAIN if value + CERTAIN * error < negligible else CANNOT_TELL


def _overall(trajectories, weights, warnings):
    if warnings:
        return WRONG
    words = [f.word for f in (trajectories, weights) if f.word != NOT_JUDGED]
    if GAIN in words:
        return GAIN
    return NO_GAIN if words and all(w == NO_GAIN for w in words) else CANNOT_TELL


def _resolution(b_factor, fitted, weights, table, prepared):
    """Expected :class:`Change` of the resolution of the first reference, or None if its FSC does not let it be told."""
    reference = prepared.references[0]
    k = reference.fsc_frequency_per_angstrom.cpu().numpy().astype(float)
    change, error = b_factor if b_factor[0] is not None else (0.0, 0.0)
    share, share_error = (fitted.gain, fitted.error) if fitted.gain is not None else (0.0, 0.0)
    return expected_resolution(k, reference.fsc.cpu().numpy().astype(float), change, error, share, share_error)


def _sentence(word, trajectories, fitted, b_factor, resolution, warnings):
    if word == WRONG:
        return "The inputs look wrong: %s." % "; ".join(warnings)
    if word == GAIN:
        helps = [name for name, f in (("trajectories", trajectories), ("dose weights", fitted)) if f.word == GAIN]
        text = "Gain from %s" % " and ".join(helps)
    else:
        against = [name for name, f in (("the input motion", trajectories), ("the standard exposure curve", fitted)) if f.word != NOT_JUDGED]
        text = {NO_GAIN: "No gain over %s" % " and ".join(against),
                CANNOT_TELL: "Whether there is a gain cannot be told from these data"}[word]
    if b_factor[0] is not None:
        text += ": B-factor lower by %.1f ± %.1f Å²" % b_factor
    if fitted.gain is not None:
        text += ", signal-to-noise ratio by weighting %+.1f ± %.1f %%" % (100 * fitted.gain, 100 * fitted.error)
    if resolution is not None and word == GAIN:
        text += "; expected resolution %.2f → %.2f ± %.2f Å" % (resolution.before, resolution.after, resolution.error)
    return text + "."
