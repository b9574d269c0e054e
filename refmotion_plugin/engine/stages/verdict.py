"""The verdict of a job, from sums that its alignment left: trajectories and dose weights on data that had no part in them.

Trajectories: log-likelihood of the opposite half-map along motion that each particle's neighbours predict, against the input
motion. Weights: fitted on every other movie, judged on the rest, and the other way round.
"""
import math
from dataclasses import dataclass

import numpy as np

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.verdict import CANNOT_TELL, GAIN, NO_GAIN, NOT_JUDGED, WRONG, Finding, Verdict, b_factor_words, rounded
from refmotion_plugin.contract.weighting import resample

from ..dose.gain import WeightScore, score_weights
from ..optics.resolution import expected_resolution
from ..search.compare import error_over_items, group_sums
from .prepared import FINEST_BAND_SHARE, Prepared
from .weigh import fit_weights, last_signal

CERTAIN = 2.0               # standard errors above which a gain is one
NEGLIGIBLE_B_A2 = 2.0       # of the B-factor: a twentieth of the particles at 4 A
LEAST_GAIN = -0.99          # of the log-likelihood: where nothing or less than nothing is left of it, no B-factor says how much was lost
LEAST_SIGNAL = 0.01         # of the log-likelihood, for a gain without one of the movies
NEGLIGIBLE_GAIN = 0.01      # of the signal-to-noise ratio (amplitude): a fiftieth of the particles


def reach_verdict(evidence, prepared: Prepared, warnings=()):
    """:class:`Verdict` of a job.

    ``evidence``: ``judged`` JudgedMovies; ``totals``, FCC totals by kind of all movies, and ``halves``, a pair of the same of every other
    movie; ``warnings``: what looked wrong earlier, sentences.
    """
    spectrum = seen_spectrum(evidence.totals[0], prepared)
    trajectories, b_factor = judge_trajectories(evidence.judged, spectrum)
    fitted, even = judge_weights(evidence, prepared)
    warnings = tuple(warnings)
    word = _overall(trajectories, fitted, warnings)
    resolution = None if warnings else _resolution(b_factor, fitted, prepared)
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
    """:class:`Spectrum` of the total FCC table: per shell that trajectories are judged by, sum over frames of S D cross; what is below nought is noise."""
    k = table.frequency_per_angstrom
    if prepared.amplitudes is None:
        return Spectrum(k, np.full(len(k), 1.0 / len(k)))
    factor = np.mean([np.interp(k, a.frequency_per_angstrom, a.factor, right=0.0) for a in prepared.amplitudes], axis=0)
    damage = np.stack([exposure_amplitude(table.dose_e_per_A2, k, voltage) for voltage in prepared.voltages_kilovolt])
    last = prepared.aligned_per_angstrom(FINEST_BAND_SHARE * 0.5 / k[-1])         # the table ends where the movie's band does
    value = np.where(k <= last, np.maximum((table.cross * damage).sum((0, 1)) * factor, 0.0), 0.0)
    return Spectrum(k, value / max(value.sum(), 1e-300))


def judge_trajectories(judged, spectrum: Spectrum):
    """:class:`Finding` and (B-factor taken off, its standard error), None for both if nothing was judged."""
    if not judged:
        return Finding(NOT_JUDGED, None, None, "The input motion was kept: there are no trajectories to judge."), (None, None)
    won = np.concatenate([m.held_out - m.start for m in judged])
    at_start = np.concatenate([m.start for m in judged])
    start = float(at_start.sum())
    movie = np.repeat(np.arange(len(judged)), [len(m.row) for m in judged])
    if start <= CERTAIN * error_over_items(at_start, movie):           # movies' sums differ by their numbers of particles, which is no noise
        return Finding(CANNOT_TELL, None, None, "Along the input motion the movies do not show the opposite half-map: trajectories cannot "
                                                "be judged."), (None, None)
    gain, error = float(won.sum()) / start, _error_of_ratio(won, at_start, movie)
    b_factor = spectrum.b_factor_A2(gain)
    b_error = 4.0 * error / max(spectrum.mean_square, 1e-12)
    unknown = float(np.concatenate([m.unknown_A2 for m in judged]).mean())
    word = _word(b_factor, b_error + 8.0 * math.pi ** 2 * unknown / CERTAIN, NEGLIGIBLE_B_A2) if b_factor <= CERTAIN * b_error else GAIN
    amount = "%.1f ± %.1f Å² off the B-factor" % (b_factor, b_error) if word == GAIN else b_factor_words(b_factor, b_error)
    numbers = "%s (%.0f ± %.0f log-likelihood units on %d particles of %d movies)" % (
        amount, rounded(won.sum()), error * start, len(won), len(judged))
    numbers += "" if word == GAIN else "; motion of %.2f Å rms could be unseen" % unknown ** 0.5
    said = {GAIN: "Trajectories help: they take at least %s.", NO_GAIN: "Trajectories bring no gain over the input motion: %s.",
            CANNOT_TELL: "Whether trajectories help cannot be told from so few data: %s."}[word] % numbers
    return Finding(word, gain, error, said), (b_factor, b_error)


def _error_of_ratio(won, start, movie):
    """Standard error of sum won / sum start (particle,): the larger of that over particles and of the jackknife over movies.

    Without each movie in turn, not from the scatter of the movies' sums: those differ by their numbers of particles.
    """
    total = start.sum()
    over_particles = error_over_items(won - won.sum() / total * start, movie) / total
    won, start = group_sums(won, movie), group_sums(start, movie)
    if len(won) < 2:
        return over_particles
    without = (won.sum() - won) / np.maximum(total - start, LEAST_SIGNAL * total)
    return max(over_particles, float(np.std(without)) * math.sqrt(len(won) - 1.0))


# ---- weights ------------------------------------------------------------------------------------------------------------------

def judge_weights(evidence, prepared: Prepared):
    """:class:`Finding` of the dose weights against the standard exposure curve, and against equal weights.

    Weights of one half of the movies are judged on the other, in the optics groups that both have data of: elsewhere they are the exposure curve itself.
    """
    if prepared.spec.dose.weights_file is not None:
        return _not_judged("Dose weights that were given are not judged: they may have been fitted to these very movies.")
    first, second = evidence.halves
    groups = [g for g in range(len(prepared.voltages_kilovolt)) if _has_data(first, g) and _has_data(second, g)]
    if not groups:
        return _not_judged("Dose weights fitted on some movies cannot be judged on others: no optics group is in two movies.")
    scores = [WeightScore(), WeightScore()]
    for tables, others in ((first, second), (second, first)):
        found = fit_weights(others, prepared)
        for table in tables:
            for i, score in enumerate(_against_both(table, found, groups, prepared)):
                scores[i] += score
    return (_weights_finding(scores[0], "the standard exposure curve"), _weights_finding(scores[1], "equal weights"))


def _not_judged(why):
    return Finding(NOT_JUDGED, None, None, why), Finding(NOT_JUDGED, None, None, "")


def _has_data(tables, group):
    return any(table.components[group].any() for table in tables)


def _against_both(table, found, groups, prepared):
    k, dose = table.frequency_per_angstrom, table.dose_e_per_A2
    band = (k >= 1.0 / prepared.spec.dose.fit_low_resolution_angstrom) & (k <= last_signal(table, prepared))
    totals = [WeightScore(), WeightScore()]
    for group in groups:
        standard = exposure_amplitude(dose, k, prepared.voltages_kilovolt[group])
        mine = resample(found, group, dose, k)
        for i, other in enumerate((standard, np.ones_like(standard))):
            totals[i] += score_weights(table, group, mine, other, band)
    return totals


def _weights_finding(score: WeightScore, what):
    gain, error = score.gain
    if not math.isfinite(error) or score.other <= 0:
        return Finding(CANNOT_TELL, None, None, "No signal is seen by which dose weights could be judged.")
    word = _word(gain, error, NEGLIGIBLE_GAIN)
    numbers = "%.1f ± %.1f %% of signal-to-noise ratio" % (rounded(100 * gain, 1), 100 * error)
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


def _resolution(b_factor, fitted, prepared):
    """Expected :class:`Change` of the resolution of the first reference, or None if its FSC does not let it be told."""
    reference = prepared.references[0]
    k = reference.fsc_frequency_per_angstrom.cpu().numpy().astype(float)
    change, error = b_factor if b_factor[0] is not None else (0.0, 0.0)
    share, share_error = (fitted.gain, fitted.error) if fitted.gain is not None else (0.0, 0.0)
    return expected_resolution(reference.resolution_angstrom, k, reference.fsc.cpu().numpy().astype(float), change, error, share, share_error)


def _sentence(word, trajectories, fitted, b_factor, resolution, warnings):
    if word == WRONG:
        return "The inputs look wrong: %s." % "; ".join(warnings)
    if word == GAIN:
        helps = [name for name, f in (("trajectories", trajectories), ("dose weights", fitted)) if f.word == GAIN]
        text = "Gain from %s" % " and ".join(helps)
    else:
        against = [name for name, f in (("the input motion", trajectories), ("the standard exposure curve", fitted)) if f.word != NOT_JUDGED]
        text = {NO_GAIN: "No gain over %s" % " and ".join(against),
                CANNOT_TELL: "Whether there is a gain cannot be told from these data" if against else
                             "Nothing was judged: the input motion was kept, and the dose weights were given or are those of single movies"}[word]
    numbers = [] if b_factor[0] is None else [b_factor_words(*b_factor)]
    if fitted.gain is not None:
        numbers.append("signal-to-noise ratio by weighting %+.1f ± %.1f %%" % (rounded(100 * fitted.gain, 1), 100 * fitted.error))
    text += ": " * bool(numbers) + ", ".join(numbers)
    if resolution is not None and word == GAIN:
        text += "; expected resolution %.2f → %.2f ± %.2f Å" % (resolution.before, resolution.after, resolution.error)
    return text + "."
