"""How a protocol runs the engine: which devices, the process, and what a failure means."""
import os
import threading
import time
from subprocess import CalledProcessError

from pyworkflow.protocol.executor import StepThread, ThreadStepExecutor

from refmotion_plugin.contract.layout import JobLayout, file_stamp
from refmotion_plugin.contract.processes import STARTER_VARIABLE, own_name
from refmotion_plugin.contract.results import read_status

from . import run_summary

_LATE_SECONDS = 10
SOME_MOVIES_FAILED = 3      # exit code of an engine that finished, but not with every movie


def incomplete_runs(job_folder):
    """How often the engine came to its end without some of the movies. As a step's argument it has Continue run the step again after each."""
    return sum(bool(event.get("failed")) for event in read_status(JobLayout(job_folder).status) if event.get("event") == "finished")


def device_of(protocol):
    """GPUs of a run, by their number among those it sees: a queue's CUDA_VISIBLE_DEVICES stays as it is."""
    if not protocol.usesGpu():
        return "cpu"
    executor = getattr(protocol, "_stepsExecutor", None)
    if isinstance(executor, ThreadStepExecutor) and not isinstance(threading.current_thread(), StepThread):
        executor = None         # it knows the GPUs of its steps alone, and the form is checked outside them
    ids = executor.getGpuList() if executor is not None else protocol.getGpuList()
    return ",".join("cuda:%d" % int(i) for i in ids) or "cuda"


def run_engine(protocol, arguments, job_folder):
    """Run the engine and wait. A movie that fails is listed and costs nothing else.

    The engine's own record decides whether it came to its end: a queue that runs the steps tells no exit code, nor that it killed a job.
    Raises RuntimeError with its reason if the engine stopped.
    """
    plugin, status = protocol.getPlugin(), JobLayout(job_folder).status
    before, exit_code = len(read_status(status)), None
    try:
        protocol.runJob(plugin.getEngineProgram(), arguments, env=_environment(protocol), numberOfMpi=1)
    except CalledProcessError as error:
        exit_code = error.returncode
    if exit_code not in (None, SOME_MOVIES_FAILED) or _ending(status, before) != "finished":
        raise RuntimeError(run_summary.reason_of_failure(job_folder, exit_code, before))


def _environment(protocol):
    """The engine's environment; its temporary files go to the run's folder for such, which SCIPION_SCRATCH may have put on a fast disk."""
    environ, scratch = protocol.getPlugin().getEnviron(), os.path.realpath(protocol._getTmpPath())
    environ[STARTER_VARIABLE] = own_name()          # a protocol that is killed takes the engine with it, so that it can be continued
    if os.path.isdir(scratch):
        environ["TMPDIR"] = scratch
    return environ


def _ending(status, before):
    """What the engine said last since there were ``before`` events, ``finished`` or ``stopped``; None if neither.

    Files that another machine wrote may show late.
    """
    for waited in range(_LATE_SECONDS + 1):
        said = [event["event"] for event in read_status(status)[before:] if event.get("event") in ("finished", "stopped")]
        if said:
            return said[-1]
        time.sleep(1 if waited < _LATE_SECONDS else 0)
    return None


def fingerprint_of(pointer, grows=False):
    """What tells an input from another: the run that makes it, which of its outputs it is, and its size and file (neither of one that grows).

    None without an input; one that was chosen and does not exist yet, as when a run is scheduled, is unlike any. An output's own id is no name:
    the database of a scheduled run numbers outputs that came after it otherwise than the project's.
    """
    item = pointer.get()
    if item is None:
        return "to come" if pointer.hasValue() else None
    name = (pointer.getObjValue().getObjId(), pointer.getExtended()) if pointer.hasExtended() else (item.getObjId(), "")
    return name if grows else name + (item.getSize() if hasattr(item, "getSize") else None, file_stamp(item.getFileName()))
