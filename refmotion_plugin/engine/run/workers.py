"""Worker processes: of this machine, bound to its devices; of a Dask scheduler that runs already; or jobs of a SLURM cluster."""
import asyncio
import contextlib
import logging
import os
import re
import shlex
import sys
from dataclasses import dataclass
from typing import Optional, Tuple

import refmotion_plugin
from refmotion_plugin.contract.cluster_spec import ClusterSpec
from refmotion_plugin.contract.errors import InputError

from ..stages.budget import movies_per_gpu

log = logging.getLogger(__name__)

CONNECT_SECONDS = 30
START_TRIES = 2
START_SECONDS = 300.0               # of a worker process, whose imports may come from a slow file system
LOCAL_PATIENCE_SECONDS = 600.0      # without any worker of this machine, where none waits in a queue
DASK_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,                                        # the executor counts deaths and tries again
    "distributed.comm.timeouts.connect": "%d s" % CONNECT_SECONDS,
    "distributed.diagnostics.nvml": False,                                              # a driver that hangs would stop scheduler and workers
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "error"}           # workers come and go without a word


@dataclass(frozen=True)
class Workers:
    """Where the worker processes of a run come from, and what each of them uses.

    ``local``: devices of this machine, one worker each (a device may be named several times); empty for workers elsewhere;
    ``slicing``: device of this machine that holds the references, if not their own.
    ``device``: what a worker asks :func:`~.devices.choose_devices` for. ``threads``: of each worker, 0: all its cores.
    ``patience_seconds``: how long a run goes without any worker, 0: for ever.
    """

    device: str
    threads: int
    local: Tuple[str, ...] = ()
    slicing: Optional[str] = None
    scheduler: Optional[str] = None
    cluster: Optional[ClusterSpec] = None
    patience_seconds: float = 0.0

    def line(self):
        """Who works, for the log."""
        if self.cluster:
            return "%d SLURM jobs of %d cores" % (self.cluster.jobs, self.cluster.cores)
        return "workers of the scheduler %s" % self.scheduler if self.scheduler else "%d worker processes (%s), %d CPU threads each" % (
            len(self.local), ", ".join(self.local), self.threads)


def choose_workers(compute, devices, threads):
    """:class:`Workers` that ``compute`` (ComputeSpec) asks for, or None if this process does the work alone.

    Parameters: ``devices`` of this machine; ``threads`` that this process may use, shared out among local workers.
    Raises InputError when more than one source of workers is named, an address is none, or a cluster file is no good.
    """
    given = [option for option, value in (("--workers", compute.workers), ("--scheduler", compute.scheduler), ("--cluster", compute.cluster))
             if value]
    if len(given) > 1:
        raise InputError("%s given: workers come from this machine, a scheduler or a cluster, name one of them" % " and ".join(given))
    patience = compute.worker_timeout_seconds
    elsewhere = "cuda" if compute.device.startswith("cuda") else compute.device
    if compute.cluster:
        cluster = ClusterSpec.read(compute.cluster)
        return Workers(elsewhere, cluster.cores, cluster=cluster, patience_seconds=patience)
    if compute.scheduler:
        if not re.match(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+$", compute.scheduler):
            raise InputError("the scheduler's address is %r: tcp://host:port was expected, as 'dask scheduler' prints it" % compute.scheduler)
        return Workers(elsewhere, compute.threads, scheduler=compute.scheduler, patience_seconds=patience)
    count = compute.workers or len(devices) * movies_per_gpu(compute, devices)
    if count == 1:
        return None
    local = tuple(devices[i % len(devices)] for i in range(count))
    return Workers("cpu" if devices == ["cpu"] else "cuda:0", max(1, threads // count), local, getattr(compute, "slicing_device", None),
                   patience_seconds=LOCAL_PATIENCE_SECONDS)


def environment_of(device, environment, slicing=None):
    """Variables that bind a worker process to a device of this machine, which is its ``cuda:0``; ``slicing``, the device of the
    references, is its ``cuda:1`` if that is another GPU.

    A CUDA_VISIBLE_DEVICES that ``environment`` has already (a queue sets it) says which devices the numbers mean.
    """
    if not device.startswith("cuda"):
        return {}
    seen = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    wanted = [device] + [slicing] * bool(slicing and slicing.startswith("cuda"))
    numbers = dict.fromkeys(int(name.partition(":")[2] or 0) for name in wanted)       # each once, the worker's own first
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen[number] if seen else str(number) for number in numbers)}


class Crew:
    """The workers of a run: called when they are first needed, kept for its later stages, sent home at its end. A context manager."""

    def __init__(self, workers):
        self.workers, self._client, self._stack = workers, None, contextlib.ExitStack()
        self.worked_at = {}         # movie key -> address of the worker that had it last

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._client = None
        try:
            self._stack.close()
        except Exception as error:      # a scheduler that is gone cannot be told; why the run ended must not be hidden by that
            log.warning("workers could not be sent home (%s)", str(error).split("\n")[0] or type(error).__name__)

    def client(self):
        """A dask Client of these workers.

        Raises InputError when what is needed is not installed or the scheduler does not answer.
        """
        if self._client is None:
            self._client = self._connect()
        return self._client

    def call_back(self):
        """Start anew workers of this machine that are gone for good; returns how many.

        Dask restarts a worker that was killed, but not one that was away for long or ended while it started.
        """
        cluster, wanted = self.client().cluster, len(self.workers.local)
        for name, worker in list(cluster.workers.items()):
            if worker.status.name in ("closed", "failed"):
                cluster.workers.pop(name, None)
        missing = wanted - len(cluster.workers)
        if missing:
            cluster.scale(wanted)
        return missing

    def _connect(self):
        workers = self.workers
        try:
            import dask
            from dask.distributed import Client
        except ImportError:
            raise InputError("%s need dask.distributed: 'pip install distributed', or run on one device" % workers.line()) from None
        log.info(workers.line())
        self._stack.enter_context(dask.config.set(DASK_SETTINGS))
        where = workers.scheduler or self._stack.enter_context(_slurm(workers.cluster) if workers.cluster else _started(workers))
        try:
            client = self._stack.enter_context(Client(where, timeout=CONNECT_SECONDS))
        except Exception as error:      # dask's are of many kinds when a scheduler goes while it is asked
            raise InputError("the Dask scheduler %s does not answer (%s): start one with 'dask scheduler' and give the address it prints"
                             % (getattr(where, "scheduler_address", where), str(error).split("\n")[0] or type(error).__name__)) from None
        _hear(client)
        return client


def _hear(client):
    """What workers log is logged here too. A worker that dies while they are told breaks that: once more, then without it.

    A scheduler that is gone is noticed when it is given the first task.
    """
    for last in (False, True):
        try:
            return client.forward_logging("refmotion_plugin", logging.INFO)
        except Exception as error:      # dask's are of many kinds
            if last:
                log.warning("what the workers log is not seen here (%s)", str(error).split("\n")[0] or type(error).__name__)


def _started(workers):
    """Workers of this machine; tried once more when one of them dies while it starts."""
    for last in [False] * (START_TRIES - 1) + [True]:
        try:
            return _local(workers)
        except (RuntimeError, TimeoutError, asyncio.TimeoutError, AssertionError) as error:       # the last: dask's, of a worker that took too long
            reason = error.__cause__ or error.__context__ or error
            if last:
                raise InputError("worker processes cannot be started (%s): memory may have run out, try fewer with --workers, or give the same "
                                 "command again" % (str(reason) or type(reason).__name__)) from error
            log.warning("a worker process ended while it started (%s): starting them once more", str(reason) or type(reason).__name__)


def _local(workers):
    """One single-threaded worker process per device; they end when this process does, however it ends."""
    from dask.distributed import Nanny, Scheduler, SpecCluster
    options = dict(nthreads=1, memory_limit=0, dashboard=False, death_timeout=START_SECONDS)      # no limit: dask would kill workers, movies are large
    specs = {i: {"cls": Nanny, "options": dict(options, env=environment_of(device, os.environ, workers.slicing))}
             for i, device in enumerate(workers.local)}
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "host": "127.0.0.1", "port": 0}}
    return SpecCluster(workers=specs, scheduler=scheduler, silence_logs=logging.ERROR)


def preload():
    """Python text by which a worker that was not started by this package finds it: an engine's environment need not have it installed."""
    return "import runpy; runpy.run_path(%r, run_name='__mp_main__')" % os.path.join(os.path.dirname(refmotion_plugin.__file__), "start_engine.py")


def _slurm(spec):
    """The SLURM jobs of a ClusterSpec: dask-jobqueue writes and submits the scripts, and cancels what is left at the end."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError("SLURM workers need dask-jobqueue: '%s -m pip install distributed dask-jobqueue'" % sys.executable) from None
    cluster = SLURMCluster(
        queue=spec.queue, account=spec.account, cores=spec.cores, processes=1, memory=spec.memory, walltime=spec.walltime,
        job_extra_directives=spec.directives, job_script_prologue=spec.prologue, python=spec.python or sys.executable,
        interface=spec.interface, local_directory=spec.local_directory, log_directory=spec.log_directory, job_name="refmotion",
        worker_extra_args=["--nthreads", "1", "--memory-limit", "0", "--preload", shlex.quote(preload())], scheduler_options={"dashboard": False})
    log.info("SLURM script of a worker:\n%s", cluster.job_script())
    cluster.scale(jobs=spec.jobs)
    return cluster
