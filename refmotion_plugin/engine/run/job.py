"""A job from beginning to end: prepare, align every movie, fit the weights, polish every movie, write what leaves.

map -> reduce -> map. The same command again does only what is missing or was made of something else.
"""
import contextlib
import functools
import logging
import os
import tempfile
from collections import namedtuple

import refmotion_plugin
from refmotion_plugin.contract import layout as files
from refmotion_plugin.contract import store
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout, content_hash

from ..lifetime import claim_blas_memory
from ..stages.budget import for_few_movies
from ..stages.memory import release
from . import outputs
from .align_stage import align_movies
from .devices import choose_devices, describe, devices_here, keep_freed_memory, set_threads, spec_here
from .inputs import read_inputs
from .lock import job_lock
from .polish_stage import polish_and_write
from .preparation import preflight_and_calibrate, use_given_weights
from .recipes import stage_recipes
from .search import find_hyperparameters
from .state import Job, aligned_keys, mark_of
from .status import StatusLog
from .verdict import say_verdict
from .weigh_stage import verdict_stands, weigh_movies
from .workers import Crew, choose_workers

log = logging.getLogger(__name__)

STAGES = ("align", "weigh", "polish")
CHOICES = {"all": STAGES, "movies": STAGES[:1], **{stage: (stage,) for stage in STAGES}}
"""What may be run at once. ``movies`` aligns and, as soon as there are weights, polishes in the same decode; weigh and polish finish the job."""
JobOutcome = namedtuple("JobOutcome", "failed particles_written particles_left_out")
"""``failed`` {micrograph: reason}; particle counts are None if no particles were written in this run."""


def run_job(folder, spec, stage="all", recipes=None, listener=None):
    """Run a job, or one stage of it, in ``folder`` (made if absent); returns :class:`JobOutcome`.

    Parameters: ``stage`` one of ``CHOICES``; ``recipes`` the stages' functions (none: the engine's own);
    ``listener(progress)`` is called after every movie.
    Raises InputError when the job cannot go on; what is finished is kept.
    """
    layout = JobLayout(folder)
    with job_lock(layout) as run:
        files.remove_leftovers(layout.folder)
        with files.atomic_write(layout.job, "w") as file:
            file.write(spec.to_json() + "\n")
        status, recipes = StatusLog(layout, listener), recipes or stage_recipes()
        try:
            job = _start(spec, layout, recipes, status, run)
            with job.crew or contextlib.nullcontext():
                outcome = _run_stages(job, CHOICES[stage], stage in ("all", "movies") and spec.output.stop_after == "particles")
        except BaseException as error:
            with contextlib.suppress(OSError):          # a full disk must not hide why the job stopped
                status.stopped(error)
            raise
        finally:
            if recipes.forget_movies is not None:
                recipes.forget_movies()
        judged = verdict_stands(job)
        del job
        release("cpu")          # movies and references: what follows, the report above all, has the memory to itself
        if judged:
            say_verdict(layout)
        status.event("finished", failed=len(outcome.failed))
        return outcome


def _start(spec, layout, recipes, status, run):
    claim_blas_memory()
    _see_where_temporary_files_go()
    devices, threads = devices_here(spec.compute), set_threads(spec.compute.threads)
    slicing = spec_here(spec, devices).compute.slicing_device
    if slicing and len(choose_devices(slicing)) > 1:
        raise InputError("slicing device %r names several devices: one was expected, such as cuda:1 or cpu" % spec.compute.slicing_device)
    choose_workers(spec.compute, devices, threads)      # what cannot be is said before anything is read
    inputs = read_inputs(spec, recipes.outside_movie)
    compute, devices = for_few_movies(spec.compute, devices, len(inputs.movies))
    spec = spec.model_copy(update={"compute": compute})
    workers = choose_workers(spec.compute, devices, threads)
    if workers is not None and workers.local:
        threads = set_threads(workers.threads)      # as each of them: sums split over other threads differ in the last bits, in the calibration too
    log.info(describe(devices, threads))
    log.info("%d movies with %d particles of %d sets", len(inputs.movies), sum(map(len, inputs.particles.values())), len(inputs.sets))
    for micrograph, (reason, _) in inputs.unreadable.items():
        log.error("movie %s failed: %s", micrograph, reason)
    for text in inputs.warnings:
        log.warning(text)
    return Job(spec, layout, recipes, status, inputs, devices, threads, workers and Crew(workers), run,
               getattr(refmotion_plugin, "__version__", "0"))


def _see_where_temporary_files_go():
    """Decoded frames may wait there: another folder than the one that was named is worth a word, none at all ends the job."""
    wanted = os.environ.get("TMPDIR")
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        raise InputError("no folder for temporary files can be written (%s): set TMPDIR to one that can" % error.strerror) from None
    if wanted and os.path.realpath(wanted) != os.path.realpath(folder):
        log.warning("TMPDIR names %s, where nothing can be written: temporary files go to %s", wanted, folder)


def _run_stages(job, wanted, in_one_decode):
    job.prepared = job.recipes.prepare(spec_here(job.spec, job.devices), job.inputs.sets, job.devices[0], job.threads)
    keep_freed_memory()         # from now on: what the references needed for a moment has gone back to the system
    if job.spec.output.stop_after == "particles" and job.recipes.output_geometry is not None:
        outputs.check_geometry(job.inputs, functools.partial(job.recipes.output_geometry, job.prepared))
    searched = job.spec.wants_search
    if not searched:
        store.save_hyperparameters(job.layout.hyperparameters, job.prepared.hyperparameters)
        if job.spec.output.stop_after == "hyperparameters":
            return _outcome(job)
    use_given_weights(job)
    preflight_and_calibrate(job, "align" in wanted)
    if searched:
        mark = mark_of(job, "search", amplitude=content_hash(job.layout.amplitudes), inputs=job.inputs_mark)
        job.prepared = find_hyperparameters(job, mark, "align" in wanted)
        if job.spec.output.stop_after == "hyperparameters":
            return _outcome(job)
    align_movies(job, "align" in wanted, in_one_decode)
    if job.spec.output.tracks_star:
        outputs.write_tracks(job.layout, aligned_keys(job))
    if "weigh" in wanted:
        weigh_movies(job)
    if "polish" not in wanted or job.spec.output.stop_after != "particles":
        return _outcome(job)
    return _outcome(job, *polish_and_write(job))


def _outcome(job, written=None, left_out=None):
    names = {m.key: m.micrograph for m in job.inputs.movies}
    failed = {m: reason for m, (reason, _) in job.inputs.unreadable.items()}
    failed.update({names[k]: reason for k, reason in job.failed.items()})
    return JobOutcome(failed, written, left_out)
