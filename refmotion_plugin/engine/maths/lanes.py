"""CPU threads that share the particles of a frame: each takes some of them through all steps of the work, by itself.

torch's own threads share every single operation and wait for each other after it, hundreds of times per frame; beside threads that decode
the next movie, the slowest of them is waited for each time. Here they wait once per frame, and what one works on stays in its core's cache.
"""
import itertools
import queue
import threading

import torch

SHARED = 2      # parts may be that many times larger where several threads work on them: they wait for Python's lock at every operation

_here = threading.local()       # ``helps``: the thread helps others, and shares its own work with nobody
_helpers, _lock = [], threading.Lock()      # a queue of work for each thread besides the one that asks, made when it is needed
_count = 1


def set_lanes(count):
    """How many threads :func:`each_part` may use from now on, the one that asks among them."""
    global _count
    _count = count
    with _lock:
        while len(_helpers) > count - 1:
            _helpers.pop().put(None)


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
    work = _Work(do, parts)
    for helper in _some_helpers(count - 1):
        helper.put(work)
    work.take()
    errors = [error for error in (work.ended.get() for _ in parts) if error is not None]
    if errors:
        raise errors[0]
    return work.results


def even_parts(count, most, device="cpu"):
    """Slices of ``count`` items, at most ``most`` each, for the threads that share them."""
    step = max(1, min(most, -(-count // lanes(device))))
    return [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]


class _Work:
    """Parts that are taken one by one by whoever has time; ``ended``: None or an error for each."""

    def __init__(self, do, parts):
        self.do, self.parts, self.results = do, parts, [None] * len(parts)
        self.ended, self.numbers, self.failed = queue.SimpleQueue(), itertools.count(), False

    def take(self):
        """Do parts until none is left."""
        for number in self.numbers:
            if number >= len(self.parts):
                return
            self.ended.put(self._one(number))

    def _one(self, number):
        if self.failed:
            return None
        try:
            self.results[number] = self.do(self.parts[number])
        except BaseException as error:      # goes to the thread that asked
            self.failed = True
            return error
        return None


def _some_helpers(count):
    with _lock:
        while len(_helpers) < count:
            _helpers.append(queue.SimpleQueue())
            threading.Thread(target=_help, args=(_helpers[-1],), name="lane", daemon=True).start()
        return _helpers[:count]


def _help(asked):
    _here.helps = True
    torch.set_num_threads(1)        # of this thread: each has its own number
    for work in iter(asked.get, None):
        work.take()
        del work        # it holds what it works on
