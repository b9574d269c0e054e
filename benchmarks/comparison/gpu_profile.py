"""What a GPU does during the alignment and polishing of one movie: kernels by time, launches, and where the host waits."""
from __future__ import annotations

import collections
import time
import traceback
import warnings

import torch
from torch.profiler import ProfilerActivity, profile

ROWS = 25


def profile_work(work, device: torch.device) -> str:
    """Tables of one call of ``work`` after one that is not looked at: kernels, host operators, launches; and the places where the host waits."""
    work()
    _settle(device)
    start = time.perf_counter()
    work()
    issued = time.perf_counter() - start
    _settle(device)
    lines = [f"host {issued:.4f} s, until the device was done {time.perf_counter() - start:.4f} s"]
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as seen:
        work()
        _settle(device)
    events = seen.key_averages()
    launches = sum(e.count for e in events if e.key in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel"))
    lines.append(f"{launches} kernels launched, {sum(e.count for e in events if 'Synchronize' in e.key)} waits of the host by the profiler's count")
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    for key in dict.fromkeys((order, "self_cpu_time_total")):
        lines += [f"\nby {key}", events.table(sort_by=key, row_limit=ROWS, max_name_column_width=90)]
    return "\n".join(lines + [f"{count:5d} waits at {place}" for place, count in host_waits(work, device)])


def host_waits(work, device: torch.device):
    """[(place in the engine, how often the host waited for the device there)], most first."""
    if device.type != "cuda":
        return []
    found = collections.Counter()

    def note(message, *_, **__):
        frames = [f for f in traceback.extract_stack() if "/engine/" in f.filename]
        found[f"{frames[-1].filename.split('/engine/')[1]}:{frames[-1].lineno}" if frames else "elsewhere"] += 1

    shown, warnings.showwarning = warnings.showwarning, note
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        warnings.showwarning = shown
    return found.most_common()


def _settle(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
