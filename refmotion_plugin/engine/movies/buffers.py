"""Large blocks of memory, used again by the next movie.

Fresh pages cost as much as decoding does, and blocks of this size inside the heap tear it apart: they get memory of their own.
"""
import mmap
import threading
import weakref

import numpy as np

LARGEST_EXCESS = 1.5    # a spare block may be this many times larger than what is asked for

_spare, _lock = {}, threading.Lock()      # purpose -> the one block that is kept while not in use


def block_array(shape, dtype, purpose):
    """An array (uninitialised) in a block of its own, which is used again for the same purpose when the array and its views are gone."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, dtype)
    block = _take(count * dtype.itemsize, purpose)
    flat = np.frombuffer(block, dtype, count)
    weakref.finalize(flat, _give_back, block, purpose)
    return flat.reshape(shape)


def _take(size, purpose):
    with _lock:
        block = _spare.pop(purpose, None)
    if block is not None and size <= len(block) <= LARGEST_EXCESS * size:
        return block
    del block       # freed before more is asked for
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError("%d bytes for %s: %s" % (size, purpose, error)) from None


def _give_back(block, purpose):
    with _lock:
        _spare.setdefault(purpose, block)
