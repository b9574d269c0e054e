"""How a protocol runs the engine: which devices, the process, and what a failure means."""
from subprocess import CalledProcessError

from . import run_summary

SOME_MOVIES_FAILED = 3      # exit code of an engine that finished, but not with every movie


def device_of(protocol):
    """GPUs of a run, by their number among those it sees: a queue's CUDA_VISIBLE_DEVICES stays as it is."""
    if not protocol.usesGpu():
        return "cpu"
    executor = getattr(protocol, "_stepsExecutor", None)
    ids = executor.getGpuList() if executor is not None else protocol.getGpuList()
    return ",".join("cuda:%d" % int(i) for i in ids) or "cuda"


def run_engine(protocol, arguments, job_folder):
    """Run the engine and wait. A movie that fails is listed and costs nothing else.

    Raises RuntimeError with its reason if the engine stops.
    """
    plugin = protocol.getPlugin()
    try:
        protocol.runJob(plugin.getEngineProgram(), arguments, env=plugin.getEnviron(), numberOfMpi=1)
    except CalledProcessError as error:
        if error.returncode != SOME_MOVIES_FAILED:
            raise RuntimeError(run_summary.reason_of_failure(job_folder, error.returncode)) from None


def fingerprint_of(pointer, grows=False):
    """What tells an input from another: its id and size (not of one that grows), or file; None without an input."""
    item = pointer.get()
    if item is None:
        return None
    if grows:
        return item.getObjId()
    return item.getObjId(), item.getSize() if hasattr(item, "getSize") else item.getFileName()
