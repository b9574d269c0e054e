"""The amplitude S(k) of each reference: what the movies show of it, from a few movies aligned in a first pass.

The reference was made from imperfectly aligned frames, so movies want more of it at high than at low frequency, and nothing
where its half-maps do not agree. S(k) is the regression of aligned patches on the *opposite* half's prediction.
"""
import logging

import numpy as np
import torch

from refmotion_plugin.contract.errors import InputError, MovieError

from .align import MovieView, estimate_deviation, judge, keep_view, movie_noise, view_movie
from .fine_detail import doubts, fine_detail
from .half_sets import compare_half_maps
from .memory import within_memory
from .prepared import Amplitude, Prepared

TARGET_PARTICLES = 200
MOST_MOVIES = 30
MOST_FAULTS = 20            # movies tried in place of unusable ones
SKIPPED_DOSE = 5.0          # e/A^2 at the start, when motion inside frames blurs the signal
LOWEST_FREQUENCY = 1 / 150.0    # 1/A: below lie ice gradients
SCALE_BAND = (1 / 60.0, 1 / 15.0)   # 1/A: seen whatever the motion
SMOOTHING_SHELLS = 2.0
SIGNIFICANT = 2.0           # smoothed S below this many standard errors ends the band
SEEN = 10.0                 # standard errors of the whole band: tracks that follow noise reach 7

log = logging.getLogger(__name__)


def choose_movies(movies, particles_of):
    """Movies spread evenly over the list until there are enough particles; always the same for the same list."""
    filled = [m for m in movies if len(particles_of(m))]
    if not filled:
        raise InputError("no movie has particles: check that rlnMicrographName agrees between particles and movies")
    typical = max(1.0, float(np.median([len(particles_of(m)) for m in filled])))
    count = int(np.clip(np.ceil(TARGET_PARTICLES / typical), 2, MOST_MOVIES))
    chosen = np.unique(np.linspace(0, len(filled) - 1, min(count, len(filled))).round().astype(int))
    return [filled[i] for i in chosen]


def in_turn(movies, particles_of, references=1):
    """The chosen movies, then the others with particles, so that an unusable one can be replaced. Also how many were chosen.

    With several ``references``, movies are added for those of which too few particles are in the chosen ones.
    """
    chosen = choose_movies(movies, particles_of)
    for reference in range(references if references > 1 else 0):
        chosen += _with_more_of(reference, movies, particles_of, chosen)
    names = {m.micrograph for m in chosen}
    others = [m for m in movies if m.micrograph not in names and len(particles_of(m))]
    return chosen + others[:MOST_FAULTS], len(chosen)


def _with_more_of(reference, movies, particles_of, chosen):
    """Further movies, spread evenly, with particles of one reference, as far as the chosen ones have too few."""
    count = lambda movie: int((particles_of(movie).reference == reference).sum())
    names, missing = {m.micrograph for m in chosen}, TARGET_PARTICLES - sum(map(count, chosen))
    others = [m for m in movies if m.micrograph not in names and count(m)]
    if missing <= 0 or not others:
        return []
    wanted = int(np.clip(np.ceil(missing / np.median([count(m) for m in others])), 1, min(MOST_MOVIES, len(others))))
    return [others[i] for i in np.unique(np.linspace(0, len(others) - 1, wanted).round().astype(int))]


def calibrate(movies, particles_of, prepared: Prepared):
    """Amplitudes of all references; returns the job with them, and with warnings if the half-sets are not those of the half-maps.

    Movies that cannot be read are replaced, with a log line. Raises InputError when none of the movies tried can be used or a reference correlates with none of its particles.
    """
    sums, rigid, halves, faults, used = None, None, None, [], 0
    turn, wanted = in_turn(movies, particles_of, len(prepared.references))
    for movie in turn[:wanted][::-1] + turn[wanted:]:      # backwards: the one that was looked at last is still decoded, as the first will be
        if used == wanted:
            break
        try:
            table, still, compared = _first_pass(movie, particles_of(movie), prepared)
        except MovieError as error:
            faults.append(str(error))
            log.warning("%s is left out of the calibration: %s", movie.micrograph, error)
            continue
        sums, rigid, halves, used = _add(sums, table), _add(rigid, still), compared if halves is None else halves + compared, used + 1
    if sums is None:
        raise InputError("none of the movies tried for calibration could be used; the first says: %s" % faults[0])
    return prepared.with_amplitudes([_amplitude(sums, index, prepared) for index in range(len(prepared.references))],
                                    _warnings(rigid, halves, prepared))


def _warnings(rigid, halves, prepared):
    """What looks wrong with the inputs, sentences, which are logged too."""
    log.info("half-sets: own against opposite half-map z = %.1f, single particles scatter %.2f times as much as by chance", halves.z,
             halves.scatter)
    sentences = halves.warnings
    for index, reference in enumerate(prepared.references):
        found = fine_detail(rigid, index, reference)
        if found is not None:
            log.info("reference %d: %.2f ± %.2f of the detail to %.1f Å is seen along the input motion", index + 1, *found[:2], 1.0 / found[2])
        sentences += doubts(found)
    for sentence in sentences:
        log.warning(sentence)
    return sentences


@within_memory
def _first_pass(movie, particles, prepared: Prepared):
    view = view_movie(movie, particles, prepared)
    group = torch.from_numpy(particles.reference.astype(np.int64))
    n = len(prepared.references)
    noise = movie_noise(view)
    rigid = judge(view, np.zeros(view.initial_yx_angstrom.shape), noise, group, n)
    start = [_scaled_fsc(rigid, index, reference, view) for index, reference in enumerate(prepared.references)]
    fit, model = estimate_deviation(view, start, prepared, passes=1)
    table = judge(view, fit.deviation[0], model.noise, group, n)
    late = _late_frames(view.dose_e_per_A2)
    damage = view.damage.cpu().numpy()[late]

    def sums(part):
        return {"frequency": part.frequency_per_angstrom, "cross": (part.cross[:, late] * damage).sum(1),
                "power": (part.power_reference[:, late] * damage ** 2).sum(1)}

    compared = compare_half_maps(view, noise)
    keep_view(view, prepared)       # the movie that is looked at last is the first to be aligned
    return sums(table), sums(rigid), compared


def _add(sums, table):
    """Both together, on the axis that reaches farther where they differ: movies of smaller pixels show what others cannot."""
    if sums is None:
        return table
    near, far = (sums, table) if table["frequency"][-1] > sums["frequency"][-1] else (table, sums)
    k = far["frequency"]
    if len(near["frequency"]) != len(k) or not np.allclose(near["frequency"][:2], k[:2]):
        near = {name: np.stack([np.interp(k, near["frequency"], row, right=0.0) for row in near[name]]) for name in far if name != "frequency"}
    return {name: k if name == "frequency" else far[name] + near[name] for name in far}


def _late_frames(dose):
    late = np.flatnonzero(dose - dose[0] >= SKIPPED_DOSE)
    return late if len(late) >= max(1, len(dose) // 3) else np.arange(len(dose))


def _scaled_fsc(table, index, reference, view: MovieView):
    """First guess: one scale from low frequencies, shrunk by the half-maps' FSC."""
    k = table.frequency_per_angstrom
    band = (k >= SCALE_BAND[0]) & (k <= SCALE_BAND[1])
    damage = view.damage.cpu().numpy()
    shrink = reference.fsc_at(torch.from_numpy(k)).cpu().numpy()
    power = (table.power_reference[index] * damage ** 2)[:, band].sum()
    scale = (table.cross[index] * damage)[:, band].sum() / power if power > 0 else 0.0
    return Amplitude(k, np.where(k >= LOWEST_FREQUENCY, max(scale, 0.0) * shrink, 0.0))


def _amplitude(sums, index, prepared: Prepared):
    k = sums["frequency"]
    inside = k >= LOWEST_FREQUENCY
    cross, power = np.where(inside, sums["cross"][index], 0.0), np.where(inside, sums["power"][index], 0.0)
    if not power.any():
        raise InputError("none of the movies that were tried for calibration and have particles of %s could be used: see the movies' reasons in the log"
                         % prepared.spec.references[index].particles)
    taps = np.exp(-0.5 * (np.arange(-6, 7) / SMOOTHING_SHELLS) ** 2)
    smooth = lambda values: np.convolve(np.pad(values, len(taps) // 2), taps, mode="valid")      # of few shells "same" would make more
    error = 1.0 / np.sqrt(np.maximum(smooth(power), 1e-30) * taps.sum() / (taps ** 2).sum())
    factor = np.where(power > 0, smooth(cross) / np.maximum(smooth(power), 1e-30), 0.0)
    weak = np.flatnonzero(inside & (k > SCALE_BAND[0]) & (factor < SIGNIFICANT * error))
    if len(weak):
        inside &= k < k[weak[0]]
    if inside.sum() < 3 or cross[inside].sum() < SEEN * np.sqrt(power[inside].sum()):
        name = prepared.spec.references[index].particles
        raise InputError("the movies do not correlate with the reference of %s: check poses, handedness, gain and pixel size" % name)
    return Amplitude(k, np.where(inside, np.maximum(factor, 0.0), 0.0))
