"""Where tasks run: in this process with the next movie decoded ahead, or one worker process per GPU under dask."""
import functools
import logging
from concurrent.futures import ThreadPoolExecutor

from refmotion_plugin.contract.errors import InputError

from .tasks import TaskResult, run_task

log = logging.getLogger(__name__)


def run_here(tasks, place, ahead=True, work=run_task):
    """Run tasks one after the other; yields TaskResult in their order.

    ``ahead``: a thread decodes the next movie while this one is worked on, so two decoded movies are in memory at most.
    ``work(task, place, load_stack)`` does a task.
    """
    if not ahead:
        for task in tasks:
            yield work(task, place, lambda task=task: place.load(task))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        waiting = pool.submit(place.load, tasks[0]) if tasks else None
        try:
            for task, following in zip(tasks, list(tasks[1:]) + [None]):
                now = [waiting]
                waiting = pool.submit(place.load, following) if following is not None else None
                yield work(task, place, lambda: now.pop().result())     # popped: the stack is freed when the task is done
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_on_devices(tasks, devices, make_place, work=run_task):
    """Run tasks on several devices, one single-threaded worker process each; yields TaskResult as they end.

    ``make_place(device)`` and ``work`` must be picklable; a worker makes its place once. A movie whose worker dies is tried once
    more, then it is failed. Raises InputError if dask.distributed is not installed.
    """
    try:
        import dask
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise InputError("several devices (%s) need dask.distributed: 'pip install distributed', or name one device"
                         % ", ".join(devices)) from None
    dask.config.set({"distributed.scheduler.allowed-failures": 1, "distributed.scheduler.worker-saturation": 1.0})
    with LocalCluster(n_workers=len(devices), threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            yield from _one_per_worker(client, as_completed, tasks, functools.partial(_on_worker, devices=devices, make_place=make_place, work=work), len(devices))


def _one_per_worker(client, as_completed, tasks, on_worker, workers):
    """As many tasks under way as there are workers: dask blames the death of a worker on all tasks it was given."""
    waiting, of_future = list(tasks)[::-1], {}

    def submit():
        task = waiting.pop()
        future = client.submit(on_worker, task, pure=False)
        of_future[future.key] = task
        return future

    running = as_completed([submit() for _ in range(min(workers, len(waiting)))])
    for future in running:
        task, error = of_future.pop(future.key), future.exception()
        if isinstance(error, InputError):
            raise error
        yield future.result() if error is None else TaskResult(
            task.movie.key, 0.0, {task.first_stage: "its worker process ended twice (%s): memory may have run out" % error})
        if waiting:
            running.add(submit())


_PLACES = {}


def _on_worker(task, devices, make_place, work):
    from dask.distributed import get_worker
    device = devices[int(get_worker().name) % len(devices)]
    if device not in _PLACES:
        _PLACES[device] = make_place(device)
    place = _PLACES[device]
    return work(task, place, lambda: place.load(task))
