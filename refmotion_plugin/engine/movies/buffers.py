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
MOST_EXCESS_PINNED = 2 ** 28        # bytes, or so much larger if it is pinned: pinning may wait for the GPU

log = logging.getLogger(__name__)
_spare = {}                 # purpose -> the one block that is kept while not in use
_lock = threading.RLock()   # the garbage collector may give a block back while the thread that it runs in holds it


class Block:
    """Anonymous memory; ``pinned``: its pages stay where they are, so that the GPU ``pin`` copies from them without the host's help."""

    def __init__(self, size, pin=None):
        self.size, self.memory = size, mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = np.frombuffer(self.memory, np.uint8).ctypes.data
        self.pin, self.pinned = pin, pin is not None and _register(self.address, size, pin)

    def __del__(self):
        if getattr(self, "pinned", False):
            with contextlib.suppress(AssertionError, AttributeError, RuntimeError, TypeError):      # at the program's end CUDA may be gone
                with torch.cuda.device(self.pin):       # else a context would be made on the first GPU, whoever has that
                    torch.cuda.cudart().cudaHostUnregister(self.address)


def block_array(shape, dtype, purpose, pin=None):
    """An array (uninitialised) in a block of its own, which is used again for the same purpose when the array and its views are gone.

    ``pin``: the GPU that copies from or to it; where that is refused, copies are slower and nothing else. Raises MemoryError.
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
    if block is not None and size <= block.size <= max(LARGEST_EXCESS * size, size + MOST_EXCESS_PINNED * block.pinned):
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
        dropped = list(_spare.values())
        _spare.clear()
    del dropped         # not under the lock: CUDA may have to wait for the GPU


def _register(address, size, device):
    """Whether CUDA accepts the memory as pinned. Asked by a thread of its own: CUDA keeps what it refuses as the thread's last error, which torch would take for that of its next operation."""
    codes = []

    def ask():
        with torch.cuda.device(device):         # else a context would be made on the first GPU, whoever has that
            codes.append(int(torch.cuda.cudart().cudaHostRegister(address, size, 0)))

    thread = threading.Thread(target=ask, name="pin")
    thread.start()
    thread.join()
    if codes != [0]:
        log.info("CUDA does not pin %d bytes (error %s): frames are copied to the GPU more slowly", size, codes)
    return codes == [0]
