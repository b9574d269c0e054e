"""Which devices a job runs on, and how many CPU threads."""
import contextlib
import ctypes
import logging
import os
import re

import torch

from refmotion_plugin.contract.errors import InputError, MovieError

from ..maths.lanes import set_lanes
from ..stages.memory import called

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES = -1, -3, 2 ** 30     # of glibc's mallopt

log = logging.getLogger(__name__)


def choose_devices(name):
    """Device names, such as ["cpu"] or ["cuda:0", "cuda:1"], for ``compute.device`` of the spec.

    Raises InputError when a GPU is asked for that is not there, or the name is none.
    """
    name = name.strip().lower()
    if name == "auto":
        return ["cuda:0"] if torch.cuda.is_available() else ["cpu"]
    if name == "cpu":
        return ["cpu"]
    devices = ["cuda:0" if part == "cuda" else part for part in (p.strip() for p in name.split(","))]
    for device in devices:
        _check(device, name)
    if len(set(devices)) < len(devices):
        raise InputError("device %r names a GPU twice: name each once, such as cuda:0,cuda:1" % name)
    return devices


class DeviceLost(InputError):
    """A GPU that does no more work in this process, whatever it is asked."""


def works(device):
    """Whether a device still does work: after an illegal access or a fault of its memory, every operation of the process on a GPU fails."""
    if torch.device(device).type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        log.error("%s: %s", called(device), error)
        return False
    return True


def blame(error, devices):
    """The error, or :class:`DeviceLost` where one of the devices that were worked on does no more work: then no movie is to blame."""
    if isinstance(error, (InputError, MovieError)):
        return error
    lost = next((device for device in dict.fromkeys(map(str, devices)) if not works(device)), None)
    return error if lost is None else DeviceLost(
        "%s does no more work (%s): see nvidia-smi and the system's log, then give the same command again, what is finished is kept"
        % (called(lost), str(error).split("\n")[0]))


def devices_here(compute):
    """Devices of this process for a ComputeSpec: the CPU where workers elsewhere have the GPUs that were asked for and this machine has not."""
    return ["cpu"] if _only_elsewhere(compute.device, compute) else choose_devices(compute.device)


def spec_here(spec, devices):
    """The job's parameters for this process, which works on ``devices``: without the GPU of the references if only workers elsewhere have it."""
    slicing = spec.compute.slicing_device
    workers_elsewhere = spec.compute.scheduler or spec.compute.cluster
    if not slicing or not (_only_elsewhere(slicing, spec.compute) or workers_elsewhere and devices == ["cpu"]):
        return spec
    return spec.model_copy(update={"compute": spec.compute.model_copy(update={"slicing_device": None})})


def _only_elsewhere(name, compute):
    """Whether a name of GPUs is meant for workers of a scheduler or a cluster, since this machine has not so many."""
    numbers = re.findall(r"cuda(?::(\d+))?(?=\s*,|\s*$)", name.strip().lower())
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return bool((compute.scheduler or compute.cluster) and numbers and max(int(n or 0) for n in numbers) >= count)


def _check(device, asked):
    prefix, _, number = device.partition(":")
    if prefix != "cuda" or not number.isdigit():
        raise InputError("device %r is not known: cpu, cuda, cuda:0,cuda:1 or auto was expected" % asked)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number) >= count:
        raise InputError("device %r was asked for but torch %s sees %s here: check nvidia-smi and that torch was installed with "
                         "CUDA, or use --device cpu" % (asked, torch.__version__, "%d GPU(s)" % count if count else "no GPU"))


def slicing_in_worker(name):
    """The device of the references, ``name`` in the job, as a worker process sees it that has its own GPU as cuda:0. InputError if it is none."""
    if not name or not name.startswith("cuda"):
        return name and choose_devices(name)[0]
    return "cuda:1" if torch.cuda.device_count() > 1 else "cuda:0"


def set_threads(threads):
    """Use ``threads`` CPU threads (0: all cores this process may use) in torch and for the particles of a frame; returns the number."""
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    set_lanes(threads)
    return threads


@contextlib.contextmanager
def torch_in_one_thread(wanted=True):
    """torch's operations on the CPU take one thread meanwhile: where movies are worked on, what is large is shared otherwise (:mod:`..maths.lanes`)
    or done by a GPU, and threads that wait for each other's end of small operations would take cores from those that decode."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe(devices, threads):
    """One line for the log: versions, devices, threads."""
    names = [torch.cuda.get_device_name(d) if d.startswith("cuda") else "CPU" for d in devices]
    return "torch %s on %s, %d CPU threads" % (torch.__version__, ", ".join("%s (%s)" % p for p in zip(devices, names)), threads)


def keep_freed_memory():
    """Let the C library keep freed memory for the next movie instead of giving it back (glibc; elsewhere nothing happens).

    Every movie frees and asks for the same large blocks; the kernel clears each fresh page, which costs as much as decoding.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        mallopt(option, KEPT_BLOCK_BYTES)

