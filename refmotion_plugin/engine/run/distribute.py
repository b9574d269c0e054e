"""A stage's tasks given to this process or to workers; what became of each movie is noted."""
import functools
import logging
from dataclasses import replace

from refmotion_plugin.contract import store
from refmotion_plugin.contract.layout import JobLayout

from ..stages.memory import release
from .devices import choose_devices, keep_freed_memory, set_threads, slicing_in_worker, torch_in_one_thread
from .executor import run_here, run_on_workers
from .inputs import read_inputs
from .recipes import stage_recipes
from .tasks import Workplace, run_task

log = logging.getLogger(__name__)

_served = []        # token of the run that this worker process made its last workplace for


def begin_stage(job, stage, count):
    """Say that a stage begins, with ``count`` movies to do."""
    if count:
        job.status.begin(stage, count)
    else:
        log.info("%s: nothing to do, all movies are done", stage)


def run_tasks(job, tasks):
    """Run tasks of the stage that has begun on the job's devices and note what became of each."""
    if not tasks:
        return
    names, by_key = {m.key: m.micrograph for m in job.inputs.movies}, {task.movie.key: task for task in tasks}
    place = _workplace(job)
    gpu = job.devices[0] != "cpu"
    if job.crew is None:
        results = run_here(tasks, place, ahead=(job.threads > 1 or gpu), stand_back=True)
    else:
        if job.recipes.forget_movies is not None:
            job.recipes.forget_movies()                     # the workers decode for themselves: nobody here asks for these movies again
        release(job.devices[0])                             # the workers have the GPU now
        processes = 1 + len(job.crew.workers.local)         # this one keeps what it has prepared
        results = run_on_workers(tasks, job.crew, functools.partial(_remote_workplace, job.layout.folder, job.run, job.spec, job.weights, processes), _run_as_here)
    with torch_in_one_thread(job.crew is None):
        for result in results:
            _note(job, result, names[result.key], by_key[result.key])


def _run_as_here(task, place, load_stack):
    """:func:`~.tasks.run_task` in a worker process, with as many threads for the same operations as in a process alone."""
    with torch_in_one_thread():
        return run_task(task, place, load_stack)


def _note(job, result, micrograph, task):
    for name, text in result.stages.items():
        done = text == "done"
        job.status.event(name, movie=result.key, state="done" if done else "failed", reason="" if done else text,
                         seconds=round(result.seconds, 2), mark=getattr(task, name + "_mark"))
        if not done:
            job.failed[result.key] = text
            log.error("movie %s failed: %s", micrograph, text)
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
    device = choose_devices(device)[0]
    _forget_before(recipes, run)
    release(device)         # what this process prepared before, for other weights, is not to be counted as taken
    prepared = recipes.prepare(spec, inputs.sets, device, set_threads(threads), processes)
    keep_freed_memory()
    layout = JobLayout(folder)
    if layout.amplitudes.exists():
        prepared = prepared.with_amplitudes(recipes.load_amplitudes(layout.amplitudes))
    prepared = replace(prepared, hyperparameters=store.load_hyperparameters(layout.hyperparameters))
    return Workplace(recipes, prepared, layout, len(inputs.sets), weights, spec.output.float16, spec.output.reconstruct, run)


def _forget_before(recipes, run):
    """Free what this process kept of movies: of another run all of it; of this one the memory alone, for frames on the disk are asked for again."""
    forget = recipes.free_memory if _served == [run] else recipes.forget_movies
    _served[:] = [run]
    if forget is not None:
        forget()
