"""How much memory one process may use: what was asked for, or a share of what the machine has free."""
import contextlib
import ctypes
import gc
import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import torch

GIB = 2 ** 30
HOST_SHARE, MOST_HOST_GIB = 0.5, 6.0    # of what is free; more than that makes no movie faster
MOST_BESIDE_GPU_GIB = 16.0              # where a GPU computes, decoding is what takes time: two super-resolution movies are held
DEVICE_SHARE = 0.9                      # of what is free on a GPU: the driver and the libraries take some
FEW_MOVIES = 32                         # on a GPU they are done before further processes have paid for their start
UNKNOWN_FREE = 4 * GIB                  # where the system does not say what is free

_free_at_most = {}                      # GPU that several processes share -> most bytes that this one has seen free


@dataclass(frozen=True)
class Budget:
    """Bytes for one process: ``host`` with the program itself, of which ``program`` were taken before the first movie; ``device`` of
    its GPU, None where the CPU computes."""

    host: int = int(MOST_HOST_GIB * GIB)
    device: Optional[int] = None
    program: int = 0
    source: str = "by default"

    @property
    def host_room(self):
        """Host bytes left for movies."""
        return max(0, self.host - self.program)

    def measured(self):
        """The same with what this process holds now as the program's own part; what was freed so far goes back to the system."""
        gc.collect()
        give_back()
        return replace(self, program=resident_bytes())


def find_budget(compute, device, processes=1):
    """The :class:`Budget` of one of ``processes`` processes on this machine that work with ``device``.

    ``compute`` ComputeSpec. Several processes share what is free on the host; those of one GPU share the GPU.
    """
    device, free = torch.device(device), free_host_bytes()
    if compute.memory_gib:
        host, source = int(compute.memory_gib * GIB), "as asked for"
    else:
        host = int(min(HOST_SHARE * free / processes, (MOST_BESIDE_GPU_GIB if device.type == "cuda" else MOST_HOST_GIB) * GIB))
        source = "of %.1f GiB free" % (free / GIB)
    return Budget(host, _device_bytes(compute, device), 0, source)


def _device_bytes(compute, device):
    if device.type != "cuda" or not hasattr(compute, "gpu_memory_gib"):     # averaging needs a few frames of it
        return None
    if compute.gpu_memory_gib:
        return int(compute.gpu_memory_gib * GIB)
    free, sharing = torch.cuda.mem_get_info(device)[0], movies_at_once(compute, _total_bytes(device))
    if sharing > 1:         # what was free when most was is what all share: what is free later, the others have left
        most = _free_at_most[str(device)] = max(_free_at_most.get(str(device), 0), free)
        free = min(free, most / sharing)
    return int(DEVICE_SHARE * free)


def _total_bytes(device):
    """Memory of a GPU. To ask what is free instead would make the GPU hold some hundreds of MB for this process until it ends."""
    return torch.cuda.get_device_properties(device).total_memory


def movies_at_once(compute, device_bytes):
    """Movies that share a GPU of this size: what was asked for, or two if each gets enough and worker processes are possible.

    A worker that a scheduler or a cluster has started owns its GPU, unless something else is asked for.
    """
    if compute.workers:
        return -(-compute.workers // len(compute.device.split(",")))
    if compute.movies_per_gpu:
        return compute.movies_per_gpu
    if compute.scheduler or compute.cluster:
        return 1
    possible = importlib.util.find_spec("distributed") is not None
    return 2 if possible and device_bytes >= compute.oversubscription_gib * GIB else 1


def movies_per_gpu(compute, devices):
    """Movies at a time on each of ``devices``; 1 on the CPU. The smallest GPU decides."""
    on_gpus = torch.cuda.is_available() and all(device.startswith("cuda") for device in devices)
    if not hasattr(compute, "movies_per_gpu") or not on_gpus:
        return 1
    return movies_at_once(compute, min(map(_total_bytes, devices)))


def for_few_movies(compute, devices, movies):
    """``compute`` and ``devices``; for few ``movies`` with one at a time on each GPU, and no more GPUs than movies, if nothing else was asked for."""
    asked = compute.workers or compute.movies_per_gpu or compute.scheduler or compute.cluster
    if asked or movies >= FEW_MOVIES or not devices[0].startswith("cuda"):
        return compute, devices
    return compute.model_copy(update={"movies_per_gpu": 1}), devices[:max(1, movies)]


def give_back():
    """Give freed pages inside the heap back to the system (glibc; elsewhere nothing happens)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_bytes():
    """Memory this process holds now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def free_host_bytes(proc=Path("/proc"), cgroups=Path("/sys/fs/cgroup")):
    """Memory this process could still get: what the machine has available, or what its control groups leave of it."""
    found = [_available(proc / "meminfo")] + list(_left_by_cgroups(proc / "self" / "cgroup", cgroups))
    return min((f for f in found if f is not None), default=UNKNOWN_FREE)


def _available(meminfo):
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_by_cgroups(own, root):
    """What each control group above this process leaves; pages of files that can be dropped do not count as used."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file ")
        elif "memory" in controllers.split(","):
            base, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        else:
            continue
        folder = base / path.lstrip("/")
        while True:
            left = _left(folder, *names)
            if left is not None:
                yield left
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent


def _left(folder, limit, usage, droppable):
    try:
        most = (folder / limit).read_text().strip()
        if most == "max" or int(most) >= 1 << 60:
            return None
        stat = (folder / "memory.stat").read_text().splitlines()
        dropped = next((int(line.split()[1]) for line in stat if line.startswith(droppable)), 0)
        return max(0, int(most) - max(0, int((folder / usage).read_text()) - dropped))
    except (OSError, ValueError, IndexError):
        return None
