"""Dose weights and hyperparameters in the files of this and of other programs. The ending of a name says which format it is.

Dose weights: ``.npz`` (ours, everything), ``.json`` (ours, to read and to edit), ``.star`` (bfactors.star of RELION: B-factor and
scale per frame), ``.npy`` (refm_empirical_dw.npy of CryoSPARC: a table of numbers). Hyperparameters: ``.json`` (ours) and ``.txt``
(opt_params*.txt of RELION). Nothing is ever unpickled.
"""
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from . import store
from .conventions import dose_at_mid_frame
from .damage import exposure_amplitude
from .errors import InputError
from .layout import atomic_write
from .reading import check_regular, read_array
from .records import DoseWeights
from .spec import RELION_TO_TEXTBOOK_SIGMA, relion_prior
from .star_results import read_bfactors_star, read_relion_sigmas, write_bfactors_star
from .weighting import B_FACTOR_AXIS_PER_ANGSTROM, b_factors, band_to, damage_rate, normalise, relative_amplitude, resample
from .weights_json import read_json_weights, write_json_weights

WEIGHT_FORMATS = {".npz": "weights.npz", ".json": "weights.json", ".star": "bfactors.star", ".npy": "refm_empirical_dw.npy"}
HYPERPARAMETER_FORMATS = {".json": "hyperparameters.json", ".txt": "opt_params_all_groups.txt"}
CRYOSPARC_NYQUISTS = 2      # the table's last bin is at this many times Nyquist
ODD_DAMAGE_RATE = 1.7       # a frequency axis wrong by 2 makes a factor of 2 or more
LARGEST_B_FACTOR_A2 = 1e5
CRYOSPARC_FCC = "refm_fcc.npy"


@dataclass(frozen=True)
class Exposure:
    """How movies were exposed: what gives the frames of a bare table their dose."""

    dose_per_frame_e_per_A2: float
    pre_exposure_e_per_A2: float = 0.0

    def doses(self, n_frames):
        """Dose at mid-frame, (frame,), e/A^2."""
        return dose_at_mid_frame(n_frames, self.dose_per_frame_e_per_A2, self.pre_exposure_e_per_A2)


# ---- dose weights ---------------------------------------------------------------------------------------------------------

def read_weights(path, doses=None, pixel_angstrom=None, normalisation="sum"):
    """Dose weights of a file in any of the formats.

    Parameters
    ----------
    path : file whose ending says its format.
    doses : (frame,) e/A^2 at mid-frame, or an :class:`Exposure`; only for ``.star`` and ``.npy``, which hold none.
    pixel_angstrom : pixel size that CryoSPARC worked at, A; only for ``.npy``, which has no frequencies.
    normalisation : sum, power or peak; for files that do not say it themselves.

    Returns :class:`DoseWeights`. Raises InputError with one sentence if the file is damaged or something is missing.
    """
    path, ending = Path(path), Path(path).suffix
    if ending == ".npz":
        return store.load_weights(path)
    if ending == ".json":
        return read_json_weights(path)
    if ending == ".star":
        return _read_relion_weights(path, doses, normalisation)
    if ending == ".npy":
        return _read_cryosparc_weights(path, doses, pixel_angstrom, normalisation)
    raise InputError("dose weights %s: %s was expected" % (path, _named(WEIGHT_FORMATS)))


def write_weights(path, weights, group=0, pixel_angstrom=None, bins=None, voltage_kilovolt=None):
    """Write dose weights in the format that the ending of ``path`` names.

    ``group``: the optics group's position; only ``.npz`` and ``.json`` hold all of them. The others are for ``.npy``:
    ``pixel_angstrom`` (A, needed), ``bins`` (none: twice as fine as the weights are) and ``voltage_kilovolt``: beyond the last
    frequency of the weights the exposure curve of that voltage goes on; none: the last weights do.
    """
    path, ending = Path(path), Path(path).suffix
    if ending not in WEIGHT_FORMATS:
        raise InputError("dose weights cannot be written as %s: %s was expected" % (path, _named(WEIGHT_FORMATS)))
    if not 0 <= group < len(weights.weight):
        raise InputError("optics group %d was asked for, but the dose weights have %d: give 1 to %d" % (
            (group + 1,) + 2 * (len(weights.weight),)))
    if ending == ".npz":
        store.save_weights(path, weights)
    elif ending == ".json":
        write_json_weights(path, weights)
    elif ending == ".star":
        write_bfactors_star(path, weights.b_factor_A2[group], weights.scale[group])
    else:
        _write_cryosparc_weights(path, weights, group, pixel_angstrom, bins, voltage_kilovolt)


def for_frames(weights, doses):
    """The same weights for other frames: ``doses`` (frame,) e/A^2 at mid-frame, increasing. B-factors are fitted anew."""
    doses = np.asarray(doses, dtype=np.float64)
    k = weights.frequency_per_angstrom
    table = np.stack([resample(weights, g, doses, k) for g in range(len(weights.weight))])
    b_factor, scale = zip(*[b_factors(w, k, band_to(0.5 * k[-1], k)) for w in table])
    errors = {name: np.stack([np.interp(doses, weights.dose_e_per_A2, row) for row in getattr(weights, name)])
              for name in ("b_factor_error_A2", "scale_error")}
    return replace(weights, weight=table, dose_e_per_A2=doses, b_factor_A2=np.stack(b_factor), scale=np.stack(scale), **errors)


def for_exposure(weights, exposure=None, n_frames=None):
    """The same weights for ``n_frames`` frames of an :class:`Exposure`; none of either: as the weights have it.

    Without an exposure the frames of weights with evenly spaced doses keep their dose, and only their number changes.
    """
    doses = weights.dose_e_per_A2
    n_frames = len(doses) if n_frames is None else n_frames
    if n_frames < 1:
        raise InputError("dose weights for %d frames were asked for: give 1 or more" % n_frames)
    if exposure is not None:
        wanted = exposure.doses(n_frames)
    elif n_frames <= len(doses):
        wanted = doses[:n_frames]
    else:
        step = np.diff(doses)[-1] if len(doses) > 1 else 2.0 * doses[0]
        wanted = np.append(doses, doses[-1] + step * np.arange(1, n_frames - len(doses) + 1))
    same = len(wanted) == len(doses) and np.allclose(wanted, doses, atol=1e-4)
    return weights if same else for_frames(weights, wanted)


def damage_sentence(weights, group=0, voltage_kilovolt=None):
    """How fast the weights fade compared with what is usual, as a sentence, and whether that is odd: (text, odd).

    Empty if there are too few late frames to say.
    """
    rate = damage_rate(weights, group, voltage_kilovolt or 300.0)
    if not np.isfinite(rate):
        return "", False
    text = "late frames fade %.2f times as fast as in the standard exposure curve" % rate
    odd = not 1.0 / ODD_DAMAGE_RATE < rate < ODD_DAMAGE_RATE
    return text + (": that is unusual, check the dose per frame and, for CryoSPARC's file, the pixel size" if odd else ""), odd


def b_factor_misfit(weights, group=0, highest_per_angstrom=None):
    """How much a bfactors.star loses: the largest change of a weight from 20 A on, as a share of the mean weight.

    ``highest_per_angstrom``: end of the band; none: 1/3 A, or where the weights end.
    """
    k = weights.frequency_per_angstrom
    band = band_to(min(highest_per_angstrom or 1.0 / 3.0, k[-1]), k)
    described = relative_amplitude(weights.b_factor_A2[group], weights.scale[group], k[band])
    difference = normalise(described, "sum") - normalise(weights.weight[group][:, band], "sum")
    return float(np.abs(difference).max() * len(difference))


def _named(formats):
    names = ["*%s (as %s)" % item for item in formats.items()]
    return ", ".join(names[:-1]) + " or " + names[-1]


def _frame_doses(doses, n_frames, path):
    if doses is None:
        raise InputError("dose weights %s hold no doses: give the dose per frame (e/A^2) of the movies they were measured on" % path)
    if isinstance(doses, Exposure):
        return doses.doses(n_frames)
    if len(doses) != n_frames:
        raise InputError("dose weights %s have %d frames but the movies have %d: give weights of movies with the same frames, or "
                         "convert them first with their own dose per frame" % (path, n_frames, len(doses)))
    return np.asarray(doses, dtype=np.float64)


def _one_group(table, k, doses, description, normalisation, source):
    b_factor, scale = description
    zero = np.zeros((1, len(doses)))
    return DoseWeights(weight=normalise(table, normalisation)[None], frequency_per_angstrom=k, dose_e_per_A2=doses,
                       b_factor_A2=b_factor[None], scale=scale[None], b_factor_error_A2=zero, scale_error=zero,
                       normalisation=normalisation, source=source)


# ---- RELION ---------------------------------------------------------------------------------------------------------------

def _read_relion_weights(path, doses, normalisation):
    b_factor, scale = read_bfactors_star(path)
    k = B_FACTOR_AXIS_PER_ANGSTROM
    if not len(b_factor) or not np.isfinite(scale).all() or np.abs(b_factor).max() > LARGEST_B_FACTOR_A2 or not (scale > 0).all():
        raise InputError("%s holds no frames, or B-factors or scales that cannot be: give the bfactors.star of a polishing job" % path)
    return _one_group(relative_amplitude(b_factor, scale, k), k, _frame_doses(doses, len(b_factor), path), (b_factor, scale), normalisation,
                      "bfactors.star of RELION")


# ---- CryoSPARC ------------------------------------------------------------------------------------------------------------

def cryosparc_frequencies(n_bins, pixel_angstrom, nyquists=CRYOSPARC_NYQUISTS):
    """Frequency (bin,) of each bin, 1/A: evenly from 0 to ``nyquists`` times Nyquist, the last bin included."""
    return np.arange(n_bins) / (n_bins - 1) * nyquists * 0.5 / pixel_angstrom


def _read_cryosparc_weights(path, doses, pixel_angstrom, normalisation):
    table = _read_array(path)
    if table.ndim != 2 or min(table.shape) < 1 or table.shape[1] < 2:
        raise InputError("dose weights %s are an array of shape %s where (frames, bins) was expected: give CryoSPARC's "
                         "refm_empirical_dw.npy" % (path, "x".join(map(str, table.shape)) or "()"))
    bad = np.argwhere(~(np.isfinite(table) & (table >= 0)))
    if len(bad):
        raise InputError("dose weights %s: frame %d, bin %d is %s where a number from 0 up was expected: give an intact file"
                         % ((path,) + tuple(bad[0] + 1) + (table[tuple(bad[0])],)))
    empty = np.flatnonzero(table.sum(0) <= 0)
    if len(empty):
        raise InputError("dose weights %s: all frames have weight 0 in bin %d: give an intact file" % (path, empty[0] + 1))
    if pixel_angstrom is None:
        raise InputError("dose weights %s hold no frequencies: give the pixel size (A) that CryoSPARC worked at, that of the "
                         "particles of its job" % path)
    k = cryosparc_frequencies(table.shape[1], pixel_angstrom, _nyquists_spanned(path, table.shape[1]))
    return _one_group(table, k, _frame_doses(doses, len(table), path), b_factors(table, k, band_to(0.5 / pixel_angstrom, k)),
                      normalisation, "refm_empirical_dw.npy of CryoSPARC")


def _nyquists_spanned(path, n_bins):
    """How many times Nyquist the last bin is at: the ratio to the bins of the job's FCC, which ends at Nyquist, if it lies beside."""
    fcc = path.with_name(CRYOSPARC_FCC)
    bins = _read_array(fcc).shape[-1:] if fcc.exists() else ()
    return max(1, int(round(n_bins / bins[0]))) if bins and bins[0] else CRYOSPARC_NYQUISTS


def _read_array(path):
    """Numbers of a .npy file as float64. Raises InputError if it holds anything else."""
    try:
        check_regular(path)
        with open(str(path), "rb") as file:
            array = read_array(file, path.stat().st_size)
    except OSError as error:
        raise InputError("%s cannot be read (%s): check the path" % (path, error.strerror or error)) from None
    except Exception:       # NumPy answers damaged headers with many kinds of errors
        array = None
    if array is None or array.dtype.kind not in "fiu":
        raise InputError("%s is not a NumPy file (.npy) of numbers, or is cut off: give the file as CryoSPARC wrote it" % path)
    return array.astype(np.float64)


def _write_cryosparc_weights(path, weights, group, pixel_angstrom, bins, voltage_kilovolt):
    if pixel_angstrom is None:
        raise InputError("%s needs the pixel size (A) that CryoSPARC works at: its bins go to twice that pixel's Nyquist" % path)
    own = weights.frequency_per_angstrom
    n_bins = bins if bins is not None else 2 * int(np.ceil(1.0 / pixel_angstrom / (own[1] - own[0]) - 1e-6)) + 1
    if n_bins < 2:
        raise InputError("%s needs at least 2 bins, not %d" % (path, n_bins))
    k = cryosparc_frequencies(n_bins, pixel_angstrom)
    table = resample(weights, group, weights.dose_e_per_A2, k)
    if voltage_kilovolt is not None:
        inside = np.minimum(k, own[-1])
        table = table * (exposure_amplitude(weights.dose_e_per_A2, k, voltage_kilovolt)
                         / exposure_amplitude(weights.dose_e_per_A2, inside, voltage_kilovolt))
    with atomic_write(path) as file:
        np.lib.format.write_array(file, normalise(table, "peak").astype(np.float32), allow_pickle=False)


# ---- hyperparameters ------------------------------------------------------------------------------------------------------

def read_hyperparameters(path):
    """:class:`Hyperparameters` of our JSON file, or of RELION's opt_params*.txt (see ``spec.relion_prior``)."""
    ending = Path(path).suffix
    if ending == ".json":
        return store.load_hyperparameters(Path(path))
    if ending == ".txt":
        return relion_prior(*read_relion_sigmas(path))
    raise InputError("hyperparameters %s: %s was expected" % (path, _named(HYPERPARAMETER_FORMATS)))


def write_hyperparameters(path, record):
    """Write our JSON, or RELION's three sigmas (lossy: see :func:`lost_in_relion`)."""
    ending = Path(path).suffix
    if ending == ".json":
        store.save_hyperparameters(path, record)
    elif ending == ".txt":
        with atomic_write(path, "w") as file:
            file.write("%.6g %.6g %.6g\n" % (record.velocity_sigma / RELION_TO_TEXTBOOK_SIGMA, record.correlation_distance_angstrom,
                                             record.acceleration_sigma / RELION_TO_TEXTBOOK_SIGMA))
    else:
        raise InputError("hyperparameters cannot be written as %s: %s was expected" % (path, _named(HYPERPARAMETER_FORMATS)))


def lost_in_relion(record):
    """Names of the values that RELION's prior does not have and that its three sigmas therefore leave out."""
    kept = relion_prior(record.velocity_sigma, record.correlation_distance_angstrom, record.acceleration_sigma)
    same = ("velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma", "early_dose_e_per_A2", "offset_angstrom")
    return [f.name for f in fields(record) if f.name not in same and getattr(record, f.name) != getattr(kept, f.name)]
