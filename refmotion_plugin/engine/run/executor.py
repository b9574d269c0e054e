"""Where tasks run: in this process with the next movie decoded ahead, or in worker processes under dask."""
import contextlib
import functools
import hashlib
import logging
import os
import pickle
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import refmotion_plugin
from refmotion_plugin.contract.errors import InputError

from ..exhausted import memory_ran_out
from ..lifetime import tell_where_on_request
from ..movies.patience import readings_given_up
from ..stages.memory import called
from .devices import DeviceLost
from .tasks import TaskResult, begin_task, run_task
from .waiting import WaitingTasks
from .watch import Watch

log = logging.getLogger(__name__)

LOOK_SECONDS = 5            # how often new workers are looked for
MOST_DEATHS = 2             # of workers under one task
TELL_SECONDS = 2.0          # for the log line of a worker that ends to reach the job
DECODING_NICENESS = 10      # beside a GPU, whose feeding thread would share a core with one of those that decode


def run_here(tasks, place, ahead=True, begin=begin_task, stand_back=False):
    """Run tasks one after the other; yields TaskResult in their order.

    ``ahead``: a thread decodes the next movie while this one is worked on, where ``place`` has room for two decoded movies, and another
    writes the files of the last one. ``begin(task, place, load_stack)`` does a task but for its files and returns what writes them.
    ``stand_back``: decoding, which takes every core, leaves one to the thread that feeds a GPU whenever it asks.
    """
    if not ahead:
        for task in tasks:
            yield begin(task, place, lambda task=task: place.load(task))()
        return
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer, ThreadPoolExecutor(
            1, thread_name_prefix="decode", initializer=_give_way if stand_back else None) as pool:
        waiting = pool.submit(place.load, tasks[0]) if tasks else None
        writing = None
        try:
            for task, following in zip(tasks, list(tasks[1:]) + [None]):
                now = [waiting]
                waiting = pool.submit(_load_if_room, following, place) if following is not None else None
                finish = begin(task, place, lambda: _loaded(now.pop(), task, place))     # popped: the stack is freed when the task is done
                if writing is not None:
                    yield writing.result()
                writing = writer.submit(finish)
            if writing is not None:
                yield writing.result()
        except BaseException:
            with readings_given_up():
                pool.shutdown(wait=True, cancel_futures=True)
            raise


def _give_way():
    """The calling thread, and the threads it starts, wait for others where cores are short (Linux, which knows this of single threads)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + DECODING_NICENESS)


def at_once(work):
    """``begin`` for :func:`run_here` of tasks, ``work(task, place, load_stack)``, that leave nothing to be written later."""
    def begin(*arguments):
        result = work(*arguments)
        return lambda: result
    return begin


def _load_if_room(task, place):
    return place.load(task) if place.room_ahead(task) else None


def _loaded(coming, task, place):
    stack = coming.result()
    return place.load(task) if stack is None else stack


def run_on_workers(tasks, crew, make_place, work=run_task):
    """Run tasks in worker processes (a :class:`~.workers.Crew`), one movie at a time in each; yields TaskResult as they end.

    ``make_place(device=, threads=)`` and ``work`` must be picklable; a worker makes its place once for all calls with the same
    ``make_place``. A movie whose worker dies is tried once more (on a scheduler that runs already, as often as that allows), then it
    is failed.
    Raises InputError if the workers cannot work at all, their scheduler is gone, or there was none of them for too long.
    """
    workers, client = crew.workers, crew.client()
    make = functools.partial(make_place, device=workers.device, threads=workers.threads)
    call = functools.partial(_on_worker, hashlib.sha256(pickle.dumps(make)).hexdigest(), (os.getcwd(), refmotion_plugin.__version__), make, work)
    yield from _one_per_worker(client, WaitingTasks(tasks, crew.worked_at), call, crew)


def _one_per_worker(client, waiting, call, crew):
    """One task under way at each worker: dask blames the death of a worker on all tasks it was given, and so do we on its one."""
    from dask.distributed import TimeoutError, wait
    running, deaths, watch = {}, Counter(), Watch(crew)      # running: future -> (task, address, since when)
    try:
        while waiting or running:
            addresses = _addresses(client)
            watch.look(len(addresses))
            busy = {address for _, address, _ in running.values()}
            for address in [a for a in addresses if a not in busy][:len(waiting)]:
                task = waiting.take(address)
                running[client.submit(call, task, pure=False, workers=[address], allow_other_workers=True)] = task, address, time.monotonic()
            if not running:
                _pause(client)
                continue
            watch.at_work(running.values())
            try:
                done = wait(list(running), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in done:
                task, crew.worked_at[task.movie.key], _ = running.pop(future)
                if _to_be_tried_again(task, future, deaths):
                    waiting.put_back(task)
                else:
                    yield _result(task, future, deaths)
    except InputError:
        raise
    except Exception as error:      # faults of movies are results: what comes here is dask's, of many kinds, when its scheduler is gone
        raise InputError("the connection to the Dask scheduler is lost (%s): see that it runs, then give the same command again, what "
                         "is finished is kept" % (str(error).split("\n")[0] or type(error).__name__)) from None
    finally:
        with contextlib.suppress(Exception):        # a client whose scheduler is gone can cancel nothing
            client.cancel(list(running))


def _pause(client):
    """Wait for a worker to come, not too long."""
    from dask.distributed import TimeoutError
    try:
        client.wait_for_workers(1, timeout=LOOK_SECONDS)
    except TimeoutError:
        pass


def _addresses(client):
    """Workers there are now. Raises InputError for one that would work on several movies at once."""
    threads = client.nthreads()
    for address, count in threads.items():
        if count > 1:
            raise InputError("the Dask worker %s has %d threads and would run as many movies in one process: start workers with "
                             "'dask worker --nthreads 1'" % (address, count))
    return list(threads)


def _to_be_tried_again(task, future, deaths):
    """Whether the task's worker died for the first time under it; a scheduler that ran before us tries again by itself."""
    from distributed.scheduler import KilledWorker
    error = future.exception()
    if not isinstance(error, KilledWorker):
        return False
    deaths[task.movie.key] += error.allowed_failures + 1
    return deaths[task.movie.key] < MOST_DEATHS


def _result(task, future, deaths):
    from distributed.scheduler import KilledWorker
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, InputError):
        raise error
    if isinstance(error, KilledWorker):
        return TaskResult(task.movie.key, 0.0, {task.first_stage: "its worker process ended %d times (the last on %s): memory may have run out"
                                                % (deaths[task.movie.key], error.last_worker.address)})
    raise InputError("a worker cannot do its work (%s: %s): %s" % (type(error).__name__, str(error).split("\n")[0], _advice(error))) from error


def _advice(error):
    """What to do about an error that keeps a worker from beginning."""
    if memory_ran_out(error):
        return "memory has run out there, try fewer with --workers, or give the same command again"
    if "CUDA" in str(error):
        return "the GPU cannot be used there, see nvidia-smi; one in exclusive mode serves a single process: name one GPU and give --movies-per-gpu 1"
    if isinstance(error, OSError):
        return "see that it can read the files of the job, then give the same command again"
    who = "workers, and the Dask scheduler," if isinstance(error, RuntimeError) else "workers"
    return who + " need the same refmotion_plugin as the job"


# ---- in the worker process ----------------------------------------------------------------------------------------------------

_PLACES = {}        # what it is made of -> place; only the last one


def _on_worker(made_of, home, make_place, work, task):
    if made_of not in _PLACES:
        _PLACES.clear()
        _settle(*home)
        log.info("worker %s, process %d on %s, prepares the job, device %s", _own_address(), os.getpid(), socket.gethostname(),
                 called(make_place.keywords["device"]))
        _PLACES[made_of] = make_place()
    place = _PLACES[made_of]
    try:
        return work(task, place, lambda: place.load(task))
    except DeviceLost as error:
        log.error("worker %s ends: %s", _own_address(), error)
        time.sleep(TELL_SECONDS)
        os._exit(1)         # a new process may use the GPU again; the movie is tried once more, as with every worker that dies


def _own_address():
    """By which the scheduler, and the log, know this worker."""
    from distributed import get_worker
    return get_worker().address


def _settle(folder, version):
    """Be where the job is, since paths in STAR files start there, and be the same program."""
    logging.getLogger("refmotion_plugin").setLevel(logging.INFO)        # sent to the job's log
    tell_where_on_request()
    if refmotion_plugin.__version__ != version:
        raise InputError("the worker on %s has refmotion_plugin %s and the job %s: install the same version"
                         % (socket.gethostname(), refmotion_plugin.__version__, version))
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError("the worker on %s does not see the folder %s (%s): workers need the same file system as the job"
                         % (socket.gethostname(), folder, error.strerror)) from None
