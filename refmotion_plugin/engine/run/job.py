"""A job from beginning to end: prepare, align every movie, fit the weights, polish every movie, write what leaves.

map -> reduce -> map. The same command again does only what is missing or was made of something else.
"""
import contextlib
import functools
import logging
from collections import namedtuple
from dataclasses import dataclass, field, replace
from typing import Dict

import numpy as np

import refmotion_plugin
from refmotion_plugin.contract import layout as files
from refmotion_plugin.contract import store
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import JobLayout, content_hash, file_stamp, fingerprint, is_done, mark_done, particles_hash
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.verdict import save_verdict

from ..stages.memory import release
from . import outputs, reconstruct
from .devices import choose_devices, describe, keep_freed_memory, set_threads, slicing_in_worker
from .executor import run_here, run_on_workers
from .found import found_on_disk
from .inputs import JobInputs, read_inputs
from .leaders import weigh_leaders
from .lock import job_lock
from .plan import DONE, open_keys, plan
from .recipes import stage_recipes
from .search import find_hyperparameters
from .status import StatusLog
from .tasks import MovieTask, Workplace
from .verdict import early_warnings, gather_evidence, say_verdict
from .workers import Crew, choose_workers

log = logging.getLogger(__name__)

STAGES = ("align", "weigh", "polish")
CHOICES = {"all": STAGES, "movies": STAGES[:1], **{stage: (stage,) for stage in STAGES}}
"""What may be run at once. ``movies`` aligns and, as soon as there are weights, polishes in the same decode; weigh and polish finish the job."""
JobOutcome = namedtuple("JobOutcome", "failed particles_written particles_left_out")
"""``failed`` {micrograph: reason}; particle counts are None if no particles were written in this run."""


@dataclass
class _Job:
    """The one changing thing of a run; everything in it is frozen."""

    spec: object
    layout: JobLayout
    recipes: object
    status: StatusLog
    inputs: JobInputs
    devices: list
    threads: int
    crew: object                                                  # worker processes, or None: this process alone
    run: str                                                      # token of this run in the lock file
    version: str
    prepared: object = None
    weights: object = None
    align_marks: Dict[str, str] = field(default_factory=dict)
    failed: Dict[str, str] = field(default_factory=dict)          # key -> reason


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
                status.event("stopped", reason=str(error) or type(error).__name__)
            raise
        finally:
            if recipes.forget_stacks is not None:
                recipes.forget_stacks()
        del job
        release("cpu")          # movies and references: what follows, the report above all, has the memory to itself
        say_verdict(layout)
        status.event("finished", failed=len(outcome.failed))
        return outcome


def _start(spec, layout, recipes, status, run):
    devices, threads = choose_devices(spec.compute.device), set_threads(spec.compute.threads)
    if spec.compute.slicing_device and len(choose_devices(spec.compute.slicing_device)) > 1:
        raise InputError("slicing device %r names several devices: one was expected, such as cuda:1 or cpu" % spec.compute.slicing_device)
    workers = choose_workers(spec.compute, devices, threads)
    if workers is not None and workers.local:
        threads = set_threads(workers.threads)      # as each of them: sums split over other threads differ in the last bits, in the calibration too
    log.info(describe(devices, threads))
    inputs = read_inputs(spec, recipes.outside_movie)
    log.info("%d movies with %d particles of %d sets", len(inputs.movies), sum(map(len, inputs.particles.values())), len(inputs.sets))
    for micrograph, (reason, _) in inputs.unreadable.items():
        log.error("movie %s failed: %s", micrograph, reason)
    return _Job(spec, layout, recipes, status, inputs, devices, threads, workers and Crew(workers), run,
                getattr(refmotion_plugin, "__version__", "0"))


def _run_stages(job, wanted, in_one_decode):
    job.prepared = job.recipes.prepare(job.spec, job.inputs.sets, job.devices[0], job.threads)
    keep_freed_memory()         # from now on: what the references needed for a moment has gone back to the system
    searched = job.spec.wants_search
    if not searched:
        store.save_hyperparameters(job.layout.hyperparameters, job.prepared.hyperparameters)
        if job.spec.output.stop_after == "hyperparameters":
            return _outcome(job)
    _use_given_weights(job)
    _preflight_and_calibrate(job, "align" in wanted)
    if searched:
        mark = _mark(job, "search", amplitude=content_hash(job.layout.amplitudes))
        job.prepared = find_hyperparameters(job, mark, "align" in wanted)
        if job.spec.output.stop_after == "hyperparameters":
            return _outcome(job)
    _align(job, "align" in wanted, in_one_decode)
    if job.spec.output.tracks_star:
        outputs.write_tracks(job.layout, _aligned(job))
    if "weigh" in wanted:
        _weigh(job)
    if "polish" not in wanted or job.spec.output.stop_after != "particles":
        return _outcome(job)
    return _polish_and_write(job)


# ---- before the first movie -------------------------------------------------------------------------------------------------

def _announce(job, aligned):
    """Write the list of movies and what is known of each, so that a reader knows what is to come."""
    before = {m.key: m for m in JobResults(job.layout.folder).movies()}
    rows = [{"key": m.key, "micrograph": m.micrograph, "n_particles": len(job.inputs.particles[m.key]),
             "align": "done" if m.key in aligned else "todo",
             "polish": before[m.key].polish if m.key in aligned and m.key in before else "todo"} for m in job.inputs.movies]
    rows += [{"key": name, "micrograph": name, "n_particles": count, "align": "todo", "polish": "todo"}
             for name, (_, count) in job.inputs.unreadable.items()]
    job.status.event("movies", movies=rows)
    for name, (reason, _) in job.inputs.unreadable.items():
        job.status.event("align", movie=name, state="failed", reason=reason)
    for key, reason in job.failed.items():
        job.status.event("align", movie=key, state="failed", reason=reason)


def _use_given_weights(job):
    path = job.spec.dose.weights_file
    if path is None:
        return
    doses, pixel = None, job.spec.dose.weights_pixel_angstrom
    for movie in job.inputs.movies:
        try:
            doses = job.recipes.plan_frames(movie, job.spec.inputs).dose_e_per_A2
            pixel = pixel or movie.original_pixel_angstrom
            break
        except MovieError:
            continue
    job.weights = job.recipes.load_weights(path, doses, job.spec.dose.normalisation, pixel)
    store.save_weights(job.layout.weights, job.weights)


def _mark(job, stage, **made_of):
    optics = [repr(sorted(s.optics.items())) for s in job.inputs.sets]
    return fingerprint(stage, job.spec, job.version, optics=optics, **made_of)


def _preflight_and_calibrate(job, may_run):
    """Check the inputs on a few movies and find the references' amplitude, each once per set of inputs; once for all if they grow."""
    made_of = {} if job.spec.inputs.growing else {"particles": [particles_hash(s.table) for s in job.inputs.sets],
                                                  "movies": [file_stamp(m.movie_file) for m in job.inputs.movies]}
    mark = _mark(job, "calibrate", **made_of)
    if job.spec.inputs.preflight and may_run and not is_done(job.layout.preflight_done, mark):
        report = job.recipes.preflight(job.inputs.movies, job.inputs.particles_of, job.prepared)
        mark_done(job.layout.preflight_done, mark, text=report.text, warnings=list(report.warnings))
    if job.spec.motion_prior.rigid:
        return
    if may_run and not is_done(job.layout.calibrate_done, mark, job.layout.amplitudes):
        job.prepared = job.recipes.calibrate(job.inputs.movies, job.inputs.particles_of, job.prepared)
        job.recipes.save_amplitudes(job.layout.amplitudes, job.prepared.amplitudes)
        mark_done(job.layout.calibrate_done, mark, warnings=list(job.prepared.warnings))
    elif job.layout.amplitudes.exists():
        job.prepared = job.prepared.with_amplitudes(job.recipes.load_amplitudes(job.layout.amplitudes))


# ---- the stages -------------------------------------------------------------------------------------------------------------

def _align(job, may_run, polish_too):
    """Align what is open, or (``may_run`` false) find out what is aligned already.

    ``polish_too``: once there are weights, given ones or the leaders', each movie is polished in the same decode.
    """
    amplitude = content_hash(job.layout.amplitudes)
    hyperparameters = content_hash(job.layout.hyperparameters)
    for movie in job.inputs.movies:
        job.align_marks[movie.key] = _mark(job, "align", metadata=_metadata(movie), particles=particles_hash(job.inputs.particles[movie.key]),
                                           amplitude=amplitude, hyperparameters=hyperparameters)
    states = plan(job.align_marks, _found(job, "align"))
    if not may_run:
        reasons = {m.key: m.reason for m in JobResults(job.layout.folder).movies()}
        job.failed.update({k: reasons.get(k) or "it was not aligned" for k in open_keys(states)})
    _announce(job, {k for k, state in states.items() if state == DONE})
    if not may_run:
        return
    waiting = set(open_keys(states))
    _begin(job, "align", len(waiting))

    def align(keys, polish_marks=None):
        chosen = waiting.intersection(keys)
        waiting.difference_update(chosen)
        _run(job, [MovieTask(m, job.inputs.particles[m.key], job.align_marks[m.key], (polish_marks or {}).get(m.key))
                   for m in job.inputs.movies if m.key in chosen])

    if polish_too and job.weights is None:
        job.weights = _fit(job, align)
    align(set(waiting), _polish_marks(job) if polish_too else None)


def _metadata(movie):
    """What a movie's own file says of it, for the fingerprint; files by their stamps, since their paths depend on the folder."""
    values = {name: file_stamp(value) if name.endswith("_file") else value for name, value in vars(movie).items()}
    return [[name, values[name].tolist() if isinstance(values[name], np.ndarray) else values[name]] for name in sorted(values)]


def _found(job, stage, keys=None):
    """Fingerprints on disk of those movies (of ``keys``, or all) whose result files are there too."""
    wanted = [m.key for m in job.inputs.movies if keys is None or m.key in keys]
    return found_on_disk(job.layout, wanted, stage, len(job.inputs.sets), job.spec.output.reconstruct)


def _begin(job, stage, count):
    if count:
        job.status.begin(stage, count)
    else:
        log.info("%s: nothing to do, all movies are done", stage)


def _run(job, tasks):
    """Run tasks of the stage that has begun on the job's devices and note what became of each."""
    if not tasks:
        return
    names, by_key = {m.key: m.micrograph for m in job.inputs.movies}, {task.movie.key: task for task in tasks}
    place = _workplace(job)
    if job.crew is None:
        results = run_here(tasks, place, ahead=job.threads > 1 or job.devices[0] != "cpu")
    else:
        release(job.devices[0])                             # the workers have the GPU now
        processes = 1 + len(job.crew.workers.local)         # this one keeps what it has prepared
        results = run_on_workers(tasks, job.crew, functools.partial(_remote_workplace, job.layout.folder, job.run, job.spec, job.weights, processes))
    for result in results:
        for name, text in result.stages.items():
            done = text == "done"
            job.status.event(name, movie=result.key, state="done" if done else "failed", reason="" if done else text,
                             seconds=round(result.seconds, 2), mark=getattr(by_key[result.key], name + "_mark"))
            if not done:
                job.failed[result.key] = text
                log.error("movie %s failed: %s", names[result.key], text)
        job.status.advance()


def _workplace(job):
    output = job.spec.output
    return Workplace(job.recipes, job.prepared, job.layout, len(job.inputs.sets), job.weights, output.float16, output.reconstruct)


def _remote_workplace(folder, run, spec, weights, processes, device, threads):
    """A worker process's own copy of the prepared job, read from the same files; ``processes`` share the machine's memory."""
    recipes = stage_recipes()
    slicing = slicing_in_worker(spec.compute.slicing_device)
    spec = spec.model_copy(update={"compute": spec.compute.model_copy(update={"slicing_device": slicing})})
    inputs = read_inputs(spec, recipes.outside_movie)
    prepared = recipes.prepare(spec, inputs.sets, choose_devices(device)[0], set_threads(threads), processes)
    keep_freed_memory()
    layout = JobLayout(folder)
    if layout.amplitudes.exists():
        prepared = prepared.with_amplitudes(recipes.load_amplitudes(layout.amplitudes))
    prepared = replace(prepared, hyperparameters=store.load_hyperparameters(layout.hyperparameters))
    return Workplace(recipes, prepared, layout, len(inputs.sets), weights, spec.output.float16, spec.output.reconstruct, run)


def _aligned(job, keys=None):
    """Keys (all, or those of ``keys``) with valid trajectories, in the job's order."""
    states = plan(job.align_marks, _found(job, "align", None if keys is None else set(keys)))
    return [k for k, state in states.items() if state == DONE]


def _fit(job, align=None):
    """The job's own dose weights, from its leading movies; InputError if none was aligned."""
    weights = weigh_leaders(job, lambda keys: _mark(job, "weigh", tables=[job.align_marks[k] for k in keys]),
                            functools.partial(_aligned, job), align)
    return weights if weights is not None else _nothing_aligned(job)


def _nothing_aligned(job):
    first = next(iter(list(job.failed.values()) + [r for r, _ in job.inputs.unreadable.values()]), "align them first")
    raise InputError("no movie was aligned, so there are no dose weights to fit; the first reason: %s" % first)


def _weigh(job):
    """Fit the weights, sum the FCC tables in the movies' order and reach the verdict, unless that was done with the same tables."""
    keys = _aligned(job)
    if not keys:
        _nothing_aligned(job)
    if job.spec.dose.weights_file is None:
        job.weights = _fit(job)
    mark = _mark(job, "weigh", tables=[job.align_marks[k] for k in keys])
    if not is_done(job.layout.weigh_done, mark, job.layout.weights, job.layout.fcc_total, job.layout.verdict):
        evidence = gather_evidence(job.layout, keys)
        store.save_fcc(job.layout.fcc_total, evidence.totals[0])
        verdict = job.recipes.reach_verdict(evidence, store.load_weights(job.layout.weights), job.prepared, early_warnings(job.layout))
        save_verdict(job.layout.verdict, verdict)
        mark_done(job.layout.weigh_done, mark, movies=len(keys))
    job.weights = store.load_weights(job.layout.weights)
    outputs.write_bfactors(job.layout, job.weights)


def _polish_marks(job):
    """Fingerprints of the polish stage; the weights must be on disk."""
    weights = content_hash(job.layout.weights)
    return {key: _mark(job, "polish", align=mark, weights=weights) for key, mark in job.align_marks.items()}


def _polish_and_write(job):
    if job.weights is None:
        if not job.layout.weights.exists():
            raise InputError("%s has no dose weights yet: run the stage weigh first" % job.layout.folder)
        job.weights = store.load_weights(job.layout.weights)
    aligned, marks = set(_aligned(job)), _polish_marks(job)
    states = plan({k: m for k, m in marks.items() if k in aligned}, _found(job, "polish"), failed=job.failed)
    work = set(open_keys(states))
    _begin(job, "polish", len(work))
    _run(job, [MovieTask(m, job.inputs.particles[m.key], None, marks[m.key]) for m in job.inputs.movies if m.key in work])
    found = _found(job, "polish")
    polished = {k for k in aligned if found.get(k) == marks[k] and k not in job.failed}
    written, left_out = outputs.write_particle_stars(job.inputs, job.layout, job.spec, polished, job.failed,
                                                     job.recipes.recentering_yx_px)
    if not written:
        raise InputError("no particle was polished; the first reason: %s" % next(iter(job.failed.values()), "none is inside a movie"))
    if job.spec.output.reconstruct:
        _reconstruct(job, [marks[m.key] for m in job.inputs.movies if m.key in polished])
    return _outcome(job, written, left_out)


def _reconstruct(job, polished_marks):
    """Compare the particles before and after, unless that was done with the same particles. A fault is said and costs nothing else."""
    symmetry = job.spec.output.symmetry
    mark = _mark(job, "reconstruct", polished=polished_marks, symmetry=symmetry, prints=[particles_hash(s.table) for s in job.inputs.sets])
    found = reconstruct.kept(job.layout, mark)
    if found is not None:
        reconstruct.note(job.layout, found)
        return
    if job.crew is not None:
        release(job.devices[0])
    references, budget = job.prepared.references, job.prepared.budget
    place = reconstruct.Place(job.devices[0], budget.host_room if budget.device is None else budget.device,
                              tuple(r.resolution_angstrom / reconstruct.BEYOND for r in references))
    try:
        found = reconstruct.reconstruct_job(JobResults(job.layout.folder), symmetry, place, reconstruct.Teller(job.status))
        reconstruct.keep(job.layout, found, mark if not any(r.fault for r in found) else None)
    except (InputError, OSError) as error:
        log.error("what the reconstruction found cannot be written: %s", error)


def _outcome(job, written=None, left_out=None):
    names = {m.key: m.micrograph for m in job.inputs.movies}
    failed = {m: reason for m, (reason, _) in job.inputs.unreadable.items()}
    failed.update({names[k]: reason for k, reason in job.failed.items()})
    return JobOutcome(failed, written, left_out)
