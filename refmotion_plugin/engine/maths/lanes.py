"""CPU threads that share the particles of a frame: each takes some of them through all steps of the work, by itself.

torch's own threads share every single operation and wait for each other after it, hundreds of times per frame; beside threads that decode
the next movie, the slowest of them is waited for each time. Here they wait once per frame, and what one works on stays in its core's cache.
"""
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import torch

SHARED = 2      # parts may be that many times larger where several threads work on them: they wait for Python's lock at every operation

_here = threading.local()       # ``helps``: the thread helps others, and shares its own work with nobody
_count, _helpers = 1, None      # threads in all; those besides the one that asks, made when they are needed


def set_lanes(count):
    """How many threads :func:`each_part` may use from now on, the one that asks among them; not to be called while it runs."""
    global _count, _helpers
    if count != _count and _helpers is not None:
        _helpers.shutdown(wait=False)
        _helpers = None
    _count = count


def lanes(device="cpu"):
    """How many threads share the work on ``device``: one of a GPU's, which does many things at once by itself."""
    return 1 if torch.device(device).type != "cpu" or getattr(_here, "helps", False) else _count


def each_part(do, parts, device="cpu"):
    """``[do(part) for part in parts]`` by several threads, each with torch's operations to itself; the first error passes.

    ``do`` must not write where it does for another part.
    """
    count = min(lanes(device), len(parts))
    if count < 2:
        return [do(part) for part in parts]
    results, left = [None] * len(parts), enumerate(parts)

    def take():
        try:
            for number, part in left:
                results[number] = do(part)
        except BaseException:
            for _ in left:      # nobody begins another one
                pass
            raise

    others = [_pool().submit(take) for _ in range(count - 1)]
    try:
        take()
    finally:
        begun = [other for other in others if not other.cancel()]
        wait(begun)             # whatever happened: they write where the one who asked may write next
    for other in begun:
        other.result()
    return results


def larger(size, threads):
    """How large parts may be that fit one core's cache with ``size``: larger where ``threads`` wait for Python's lock at every operation."""
    return size * SHARED if threads > 1 else size


def even_parts(count, most, device="cpu"):
    """Slices of ``count`` items, at most ``most`` each, for the threads that share them."""
    step = max(1, min(most, -(-count // lanes(device))))
    return [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]


def _pool():
    global _helpers
    if _helpers is None:
        _helpers = ThreadPoolExecutor(_count - 1, thread_name_prefix="lane", initializer=_begin)
    return _helpers


def _begin():
    _here.helps = True
    torch.set_num_threads(1)        # of this thread: each has its own number
