"""Large blocks of memory, used again by the next movie.

Fresh pages cost as much as decoding does, and blocks of this size inside the heap tear it apart: they get memory of their own.
"""
import contextlib
import logging
import mmap
import threading
import weakref

import numpy as np
import torch

LARGEST_EXCESS = 1.5    # a spare block may be this many times larger than what is asked for

log = logging.getLogger(__name__)
_spare, _lock = {}, threading.Lock()      # purpose -> the one block that is kept while not in use


class Block:
    """Anonymous memory; ``pinned``: its pages stay where they are, so that a GPU copies from them without the host's help."""

    def __init__(self, size, pin=False):
        self.size, self.memory = size, mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = np.frombuffer(self.memory, np.uint8).ctypes.data
        self.pinned = pin and _register(self.address, size)

    def __del__(self):
        if getattr(self, "pinned", False):
            with contextlib.suppress(AssertionError, AttributeError, RuntimeError, TypeError):      # at the program's end CUDA may be gone
                torch.cuda.cudart().cudaHostUnregister(self.address)


def block_array(shape, dtype, purpose, pin=False):
    """An array (uninitialised) in a block of its own, which is used again for the same purpose when the array and its views are gone.

    ``pin``: for copies to a GPU; where that is refused, copies are slower and nothing else. Raises MemoryError.
    """
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, dtype)
    block = _take(count * dtype.itemsize, purpose, pin)
    flat = np.frombuffer(block.memory, dtype, count)
    weakref.finalize(flat, _give_back, block, purpose)
    return flat.reshape(shape)


def _take(size, purpose, pin):
    with _lock:
        block = _spare.pop(purpose, None)
    if block is not None and size <= block.size <= LARGEST_EXCESS * size:
        return block
    del block       # freed before more is asked for
    try:
        return Block(size, pin)
    except OSError as error:
        raise MemoryError("%d bytes for %s: %s" % (size, purpose, error)) from None


def _give_back(block, purpose):
    with _lock:
        _spare.setdefault(purpose, block)


def free_blocks():
    """Give the blocks that are not in use back to the system."""
    with _lock:
        _spare.clear()


def _register(address, size):
    """Whether CUDA accepts the memory as pinned."""
    code = int(torch.cuda.cudart().cudaHostRegister(address, size, 0))
    if code:
        log.info("CUDA does not pin %d bytes (error %d): frames are copied to the GPU more slowly", size, code)
    return code == 0
