"""What there is to average: one task for every readable movie, with the fingerprint of what it is made of."""
import hashlib
import json
from dataclasses import dataclass
from typing import List, Optional

import refmotion_plugin
from refmotion_plugin.contract.averages import bare_names
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.exchange import read_weights
from refmotion_plugin.contract.layout import content_hash, file_stamp
from refmotion_plugin.contract.records import MovieMetadata
from refmotion_plugin.contract.spec import SCHEMA
from refmotion_plugin.contract.weighting import check_groups

from ..stages.patches import plan_frames
from .given_weights import read_for_movies
from .inputs import values_of

AVERAGE_STAGE = "average"


@dataclass(frozen=True)
class AverageTask:
    """One movie to average: its row in the list, the bare name of its micrograph, its optics group's position, its fingerprint."""

    movie: MovieMetadata
    row: int
    name: str
    source: str
    optics_group: int
    group: int
    mark: Optional[str] = None
    first_stage = AVERAGE_STAGE


def given_weights(catalogue, spec):
    """Measured weights, or None for the standard curve. Files without doses or frequencies get those of the first movie of which as many frames
    are averaged.

    Raises InputError if there is none.
    """
    path = spec.dose.weights_file
    if path is None:
        return None
    readable = filter(None, map(catalogue.get, range(len(catalogue.names))))
    found, faults = read_for_movies(readable, lambda movie: plan_frames(movie, spec.inputs).dose_e_per_A2,
                                    lambda doses, pixel: read_weights(path, doses, spec.dose.weights_pixel_angstrom or pixel, "power"))
    if found is None:
        raise InputError("no movie can be read; the first reason: %s" % (faults + list(catalogue.faults.values()))[0])
    return found


def average_tasks(catalogue, spec, weights):
    """One task per readable movie, with names and fingerprints. Raises InputError if weights do not fit or two movies share a name."""
    n_weights = 1 if weights is None else len(weights.weight)
    groups = _groups(catalogue, n_weights)
    check_groups(n_weights, len(groups), "movies", "dose weights %s" % spec.dose.weights_file)
    rows = [i for i in range(len(catalogue.names)) if catalogue.get(i) is not None]
    movies = [catalogue.get(i) for i in rows]
    _check_keys(movies)
    tasks: List[AverageTask] = []
    common = _common(spec)
    for row, movie, name in zip(rows, movies, bare_names(movies)):
        item = catalogue.micrographs[row]
        group = groups.index(item.optics_group) if n_weights > 1 else 0
        values = [common, group, name, values_of(movie)]
        mark = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        tasks.append(AverageTask(movie, row, name, item.metadata_star, item.optics_group, group, mark))
    return tasks


def _groups(catalogue, n_weights):
    """Optics groups that weights may be of: those of the optics table, of which a subset of movies may have some only, or else those that movies have."""
    present = sorted({m.optics_group for m in catalogue.micrographs})
    return catalogue.groups if len(catalogue.groups) == n_weights and set(present) <= set(catalogue.groups) else present


def _check_keys(movies):
    seen = {}
    for movie in movies:
        other = seen.setdefault(movie.key, movie.micrograph)
        if other != movie.micrograph:
            raise InputError("the micrographs %s and %s would share the name %s: rename one of them" % (other, movie.micrograph, movie.key))


def _common(spec):
    """What decides every movie's average: parameters and files by what they hold, not by where they lie."""
    inputs = spec.inputs.model_dump(mode="json", exclude={"movies", "gain", "defects"})
    return [SCHEMA, refmotion_plugin.__version__, inputs, spec.output.model_dump(mode="json"), spec.dose.weights_pixel_angstrom,
            spec.dose.weights_file and content_hash(spec.dose.weights_file), file_stamp(spec.inputs.gain), file_stamp(spec.inputs.defects)]
