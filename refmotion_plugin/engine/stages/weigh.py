"""Dose weights of a job: one fit to the sums of all movies, or weights that came from elsewhere."""
import functools
import operator
from collections import defaultdict

import numpy as np

from refmotion_plugin.contract import exchange
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.records import FccTable

from ..dose.weights import fit_dose_weights
from .prepared import Prepared


def sum_tables(tables):
    """Totals of FCC tables, one per kind (frames, doses, shells), in their order; the most frequent kind first.

    Tables may be sums of several movies already, in that order. Raises InputError if there is none.
    """
    kinds = defaultdict(list)
    for table in tables:
        kinds[(table.cross.shape, tuple(np.round(table.dose_e_per_A2, 3)), round(float(table.frequency_per_angstrom[1]), 8))].append(table)
    if not kinds:
        raise InputError("no movie was aligned, so there is nothing to fit dose weights to: see the reasons of the failed movies")
    return [functools.reduce(operator.add, kind) for kind in sorted(kinds.values(), key=len, reverse=True)]


def fit_weights(tables, prepared: Prepared, voltage_kilovolt=None, highest_frequency_per_angstrom=None):
    """Empirical dose weights from the FCC tables of all movies, per optics group.

    ``voltage_kilovolt``: none takes each optics group's; ``highest_frequency_per_angstrom``: none goes on to Nyquist of the
    finest movie pixel that 1 / (2 A) allows. Returns :class:`DoseWeights`.
    """
    total, *others = sum_tables(tables)
    voltage = prepared.voltages_kilovolt if voltage_kilovolt is None else voltage_kilovolt
    dose_spec = prepared.spec.dose
    highest = highest_frequency_per_angstrom or 1.0
    return fit_dose_weights(total, voltage, dose_spec.fit_low_resolution_angstrom, last_signal(total, prepared), highest,
                            dose_spec.normalisation, others)


def last_signal(total: FccTable, prepared: Prepared):
    limit = max(1.0 / r.limit_angstrom for r in prepared.references)
    return min(limit, float(total.frequency_per_angstrom[-1]))


def load_weights(path, dose_e_per_A2=None, normalisation="sum", pixel_angstrom=None):
    """Dose weights that came from elsewhere, in any format of ``contract.exchange``.

    RELION's bfactors.star and CryoSPARC's .npy know frames only: ``dose_e_per_A2`` (frame,) gives them a dose; a .npy has bins
    only: ``pixel_angstrom`` gives them a frequency. InputError if the file cannot be read or its number of frames is another.
    """
    return exchange.read_weights(path, dose_e_per_A2, pixel_angstrom, normalisation)
