"""What a verdict is made of, gathered from a job's files, and its place in the log."""
import logging
from dataclasses import dataclass

import numpy as np

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import read_object
from refmotion_plugin.contract.store import load_fcc, load_judged
from refmotion_plugin.contract.verdict import load_verdict

from ..stages.weigh import Kinds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """What the alignment left: ``judged`` JudgedMovies; totals of the FCC tables, one per kind (frames, doses, shells) and that with most
    data first, of all movies and of each of their ``halves``: every other movie of the same kind and optics groups."""

    judged: list
    totals: list
    halves: tuple


def gather_evidence(layout, keys):
    """:class:`Evidence` of the movies ``keys``, in their order; one table in memory at a time.

    Raises InputError when a file is damaged; its movie then counts as not aligned.
    """
    every, halves, turns = Kinds(), (Kinds(), Kinds()), {}
    for key in keys:
        table = _loaded(load_fcc, layout.fcc(key), layout, key)
        alike = every.add(table), tuple(np.flatnonzero(table.components.any((1, 2))))
        turn = turns.setdefault(alike, len(turns) % 2)                      # movies may take turns in what they are: each half needs some of each
        halves[turn].add(table)
        turns[alike] = 1 - turn
    judged = [_loaded(load_judged, layout.judged(key), layout, key) for key in keys if layout.judged(key).exists()]
    return Evidence(judged, every.totals(), tuple(half.totals() for half in halves))


def _loaded(load, path, layout, key):
    """What ``load(path)`` gives. Without its marker the movie is aligned anew: its other files tell nothing of this one's damage."""
    try:
        return load(path)
    except InputError as error:
        layout.done(key, "align").unlink(missing_ok=True)
        raise InputError("%s: that aligns this movie anew" % error) from None


def early_warnings(layout, mark):
    """What the first look at the inputs and the calibration found odd, sentences; ``mark`` of the inputs as they are now."""
    markers = [read_object(path) for path in (layout.preflight_done, layout.calibrate_done)]
    return tuple(text for marker in markers if marker.get("fingerprint") == mark for text in marker.get("warnings", ()))


def say_verdict(layout):
    """Put the verdict into the log."""
    for sentence in load_verdict(layout.verdict).sentences:
        log.info("verdict: %s", sentence)
