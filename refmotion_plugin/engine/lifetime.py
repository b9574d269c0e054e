"""Beginning and end of the program: one heap, no idle threads, and large libraries are loaded and left without a search for garbage in them.

Torch and matplotlib make some 200 000 objects that stay. Looking through them for garbage, again and again while they are made and once more
at the end, costs more than half a second each, as much as a movie.
"""
import atexit
import contextlib
import ctypes
import faulthandler
import gc
import os
import resource
import signal
import sys

from refmotion_plugin.contract.errors import InputError

M_ARENA_MAX = -8        # of glibc's mallopt
LEAST_VIRTUAL_BYTES = 64 * 2 ** 20          # that a run may still ask for when it begins: twice what OpenBLAS takes


def share_one_heap():
    """From now on all threads share one heap, so that memory freed by one serves the others (glibc; elsewhere nothing happens).

    To be called before there are threads: those that are there keep theirs, and later ones take part in it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 1)


def tell_where_on_request():
    """The signal USR1 makes this process write to its standard error where each of its threads is, and go on: what stands still can be asked."""
    with contextlib.suppress(AttributeError, ValueError, OSError, RuntimeError):          # no such signal, or no file behind standard error
        faulthandler.register(signal.SIGUSR1, all_threads=True)


def keep_blas_single():
    """numpy's and scipy's linear algebra work in the thread that calls them, unless the environment says otherwise; to be called before
    they are imported.

    All they are given here is small. Their other threads, one for each core, would look for work for a while after every product, on cores
    that others could use.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def claim_blas_memory():
    """numpy's linear algebra takes its working memory now, while there is some: OpenBLAS keeps it, and looks for it for ever where there is none.

    Raises InputError if the limit of virtual memory leaves too little.
    """
    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], virtual_bytes()
    if limit != resource.RLIM_INFINITY and limit - used < LEAST_VIRTUAL_BYTES:
        raise InputError("the limit of virtual memory is %d MiB (ulimit -v), of which the program's libraries take %d: raise it by %d MiB at least"
                         % (limit >> 20, used >> 20, (LEAST_VIRTUAL_BYTES - limit + used >> 20) + 1))
    import numpy as np
    np.linalg.det(np.eye(2))


def virtual_bytes():
    """Address space of this process; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0


@contextlib.contextmanager
def lasting_imports():
    """What is imported meanwhile is never looked through for garbage, neither now nor later."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collected:
            gc.enable()


def leave(code):
    """End the process with an exit code: what is registered for the end is done, but objects are not taken apart one by one."""
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        sys.exit(code)          # the reader is gone or the disk is full: Python has its own way to say so
    os._exit(code)
