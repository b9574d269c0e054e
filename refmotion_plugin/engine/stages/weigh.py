"""Dose weights of a job: one fit to the sums of all movies, or weights that came from elsewhere."""
from dataclasses import replace

import numpy as np

from refmotion_plugin.contract import exchange
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.records import FccTable

from ..dose.weights import fit_dose_weights
from .prepared import Prepared

SAME_DOSE = 0.05            # movies whose doses differ by less are of one kind: weights of a dose that is so much wrong lose hardly any SNR


def sum_tables(tables):
    """Totals of FCC tables, one per kind (frames, shells, doses to within SAME_DOSE), with the mean doses; the kind with most data first.

    Tables may be sums of several movies already. Raises InputError if there is none.
    """
    kinds = Kinds()
    for table in tables:
        kinds.add(table)
    if not kinds.totals():
        raise InputError("no movie was aligned, so there is nothing to fit dose weights to: see the reasons of the failed movies")
    return kinds.totals()


class Kinds:
    """FCC tables of movies, added up by their kind as they come."""

    def __init__(self):
        self._sums = []         # [first dose of the kind, sum, sum of (data times what the doses differ from the first)]

    def add(self, table):
        """Take one more; returns the number of its kind, in the order in which they came."""
        number = next((i for i, (dose, total, _) in enumerate(self._sums) if _alike(dose, total, table)), len(self._sums))
        if number == len(self._sums):
            self._sums.append([table.dose_e_per_A2, table, 0.0 * table.dose_e_per_A2])
        else:
            mine = self._sums[number]
            mine[1] = mine[1] + table
            mine[2] = mine[2] + _data(table) * (table.dose_e_per_A2 - mine[0])
        return number

    def totals(self):
        """One table per kind with its mean doses, that with most data first."""
        return sorted((replace(total, dose_e_per_A2=first + shift / max(_data(total), 1e-30)) for first, total, shift in self._sums),      # exact where they agree
                      key=_data, reverse=True)


def _alike(first_dose, one, other):
    return (one.cross.shape == other.cross.shape and abs(one.frequency_per_angstrom[1] - other.frequency_per_angstrom[1]) < 1e-8
            and np.allclose(first_dose, other.dose_e_per_A2, rtol=SAME_DOSE, atol=1e-3))


def _data(table):
    return float(table.components.sum())


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
