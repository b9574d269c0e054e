"""What a verdict is made of, gathered from a job's files, and its place in the log."""
import logging
from dataclasses import dataclass

import numpy as np

from refmotion_plugin.contract.layout import read_object
from refmotion_plugin.contract.store import load_fcc, load_judged
from refmotion_plugin.contract.verdict import load_verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """What the alignment left: ``judged`` JudgedMovies; totals of the FCC tables, one per kind (frames, doses, shells) and the most frequent
    kind first, of all movies and of each ``halves`` of them (every other movie)."""

    judged: list
    totals: list
    halves: tuple


def gather_evidence(layout, keys):
    """:class:`Evidence` of the movies ``keys``, in their order; one table in memory at a time."""
    halves, counts = ({}, {}), {}
    for number, key in enumerate(keys):
        table = load_fcc(layout.fcc(key))
        kind = (table.cross.shape, np.round(table.dose_e_per_A2, 3).tobytes(), np.round(table.frequency_per_angstrom, 8).tobytes())
        half = halves[number % 2]
        half[kind] = half[kind] + table if kind in half else table
        counts[kind] = counts.get(kind, 0) + 1
    order = sorted(counts, key=counts.get, reverse=True)
    totals = [halves[0][k] + halves[1][k] if k in halves[0] and k in halves[1] else halves[0].get(k, halves[1].get(k)) for k in order]
    judged = [load_judged(path) for path in map(layout.judged, keys) if path.exists()]
    return Evidence(judged, totals, tuple([half[k] for k in order if k in half] for half in halves))


def early_warnings(layout, mark):
    """What the first look at the inputs and the calibration found odd, sentences; ``mark`` of the inputs as they are now."""
    markers = [read_object(path) for path in (layout.preflight_done, layout.calibrate_done)]
    return tuple(text for marker in markers if marker.get("fingerprint") == mark for text in marker.get("warnings", ()))


def say_verdict(layout):
    """Put the verdict, if there is one, into the log."""
    if layout.verdict.exists():
        for sentence in load_verdict(layout.verdict).sentences:
            log.info("verdict: %s", sentence)
