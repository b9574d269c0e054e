"""On which movies the dose weights rest: as many, spread over the list, as their own standard errors ask for.

Leaders are worked on twice, to be aligned, and to be polished once the weights are known: their decoded frames wait on a disk, or they are
decoded anew. All other movies are aligned and polished in one decode. Who leads depends on the job's movies and particles alone, never on who is finished first or how many workers there are, so
a run that was stopped, or done stage by stage, finds the same weights.
"""
import logging
from dataclasses import replace

import numpy as np

from refmotion_plugin.contract import store
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import is_done, mark_done, read_object
from refmotion_plugin.contract.weighting import snr_lost_to_errors

from .verdict import gather_evidence

LEAST_MOVIES = 4
LEAST_PARTICLES = 500
GROWTH = 1.6            # the weights are looked at again when there are this many times as many particles

log = logging.getLogger(__name__)


def spread_order(count):
    """All of ``range(count)`` such that every beginning of it is spread evenly: both ends, the middle, the quarters ..."""
    order, intervals = [0, count - 1][:count], [(0, count - 1)]
    for low, high in intervals:         # grows while it is walked: breadth first
        middle = (low + high) // 2
        if low < middle < high:
            order.append(middle)
            intervals += [(low, middle), (middle, high)]
    return order


def steps(particles, tolerance):
    """How many movies lead when the weights are looked at, rising to all of them.

    ``particles``: their numbers, in the order of leading; a ``tolerance`` of 0 waits for all movies.
    """
    counts, total, wanted = [], 0, LEAST_PARTICLES
    for number, own in enumerate(particles, 1):
        total += own
        if number < len(particles) and number >= LEAST_MOVIES and total >= wanted and tolerance > 0:
            counts.append(number)
            wanted = GROWTH * total
    return counts + [len(particles)]


def weigh_leaders(job, mark, aligned, align=None):
    """Dose weights of the job, written and returned; None if no movie could be aligned.

    ``mark(keys)`` fingerprint of weights fitted to these movies; ``aligned(keys)`` those of them with valid trajectories;
    ``align(keys)`` aligns what is still open (none: what is aligned already must do).
    """
    movies = [job.inputs.movies[i] for i in spread_order(len(job.inputs.movies))]
    tolerance, order = job.spec.dose.error_tolerance, [m.key for m in movies]
    counts = steps([len(job.inputs.particles[key]) for key in order], tolerance)
    before = read_object(job.layout.fit_done).get("count")
    for again, count in [(True, before)] * (before in counts) + [(False, count) for count in counts]:
        if align is not None:
            align(order[:count])
        keys = aligned(order[:count])
        if again and is_done(job.layout.fit_done, mark(keys), made=job.layout.weights):
            try:
                return store.load_weights(job.layout.weights)
            except InputError as error:
                log.warning("%s; fitting them anew", error)
        if not again and keys:
            weights = job.recipes.fit_weights(gather_evidence(job.layout, keys).totals, job.prepared)
            lost = snr_lost_to_errors(weights, _groups_with_particles(job) if len(weights.weight) > 1 else None)
            log.info("dose weights of %d movies: their errors cost %.2g of the signal-to-noise ratio", len(keys), lost)
            if lost <= tolerance or count == len(order):
                return _write(job, weights, mark(keys), count, keys)
    return None


def fitted_before(job, mark):
    """Dose weights that the job's leaders gave in an earlier run, if these are aligned now as they were then; else None.

    A file that was put in the place of the weights is not theirs. Movies that came into the list, or failed, since then change nothing.
    """
    leaders = read_object(job.layout.fit_done).get("leaders")
    known = isinstance(leaders, list) and all(isinstance(key, str) and key in job.align_marks for key in leaders)
    return store.load_weights(job.layout.weights) if known and is_done(job.layout.fit_done, mark(leaders), made=job.layout.weights) else None


def _groups_with_particles(job):
    """Positions of the optics groups that particles of the job have: the table may list others, of which nothing will ever be known."""
    found = set()
    for table in job.inputs.particles.values():
        found.update(np.unique(job.prepared.optics_index(table)).tolist())
    return sorted(found)


def _write(job, weights, mark, count, keys):
    particles = sum(len(job.inputs.particles[key]) for key in keys)
    source = "%s of %d particles in %d of %d movies" % (weights.source, particles, len(keys), len(job.inputs.movies))
    store.save_weights(job.layout.weights, replace(weights, source=source))
    mark_done(job.layout.fit_done, mark, job.layout.weights, count=count, leaders=list(keys))
    return store.load_weights(job.layout.weights)
