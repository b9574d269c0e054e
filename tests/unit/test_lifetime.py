"""How the program begins and ends: nothing that was made by imports is looked through for garbage, nothing that was to be done at the end is lost."""
import gc
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from refmotion_plugin.engine.lifetime import lasting_imports

ENDING = """
import atexit, sys
from refmotion_plugin.engine.lifetime import leave

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
atexit.register(print, "done at the end")
print("said before", end="; ")
%s
leave(3)
"""


def ended(command=""):
    return subprocess.run([sys.executable, "-c", ENDING % command], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONUNBUFFERED": ""})


def test_what_is_registered_for_the_end_is_done_and_nothing_that_was_said_is_lost():
    end = ended()
    assert (end.returncode, end.stdout, end.stderr) == (3, "said before; done at the end\n", "")


def test_a_reader_that_is_gone_is_said_as_python_says_it():
    end = ended("import os; gone, there = os.pipe(); os.close(gone); os.dup2(there, 1)")
    assert end.returncode == 120 and "BrokenPipeError" in end.stderr


def test_a_program_without_output_streams_ends_too():
    assert ended("sys.stdout = sys.stderr = None").returncode == 3


@pytest.mark.parametrize("before", [True, False])
def test_what_imports_make_is_not_looked_at_again(before):
    try:
        gc.enable() if before else gc.disable()
        with lasting_imports():
            assert not gc.isenabled()
            made = ["imported", []]
        assert gc.isenabled() == before
        assert gc.get_freeze_count() and not any(each is made for each in gc.get_objects())
        with pytest.raises(ImportError), lasting_imports():
            raise ImportError
        assert gc.isenabled() == before
    finally:
        gc.enable()
        gc.unfreeze()


HEAPS = """
import ctypes, sys, threading
from refmotion_plugin.engine.lifetime import share_one_heap
%s
keep = []
threads = [threading.Thread(target=lambda: keep.append(bytes(5000))) for _ in range(3)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
libc = ctypes.CDLL("libc.so.6")
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has one heap per thread")
def test_threads_share_one_heap():
    def heaps(command):
        said = subprocess.run([sys.executable, "-c", HEAPS % command], capture_output=True, text=True, timeout=60,
                              env={k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}).stdout
        return said.count("<heap ")
    assert heaps("share_one_heap()") == 1 < heaps("")


def test_a_job_and_its_workers_begin_without_libraries_that_they_do_not_need_yet():
    code = ("import sys; from refmotion_plugin.engine.run import job, recipes; recipes.stage_recipes()\n"
            "print(*[m for m in ('scipy.optimize', 'matplotlib', 'distributed', 'dask', 'jinja2') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=str(Path(__file__).resolve().parents[2]))
    assert done.stdout.split() == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one thread on one core anyway")
@pytest.mark.parametrize("given, threads", [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)])
def test_products_of_numpy_are_made_by_one_thread_unless_asked_otherwise(given, threads):
    code = ("import os, %s\nimport numpy as np\n"
            "square = np.ones((600, 600)); square @ square\nprint(len(os.listdir('/proc/self/task')))")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code % "refmotion_plugin.engine.__main__"], capture_output=True, text=True, check=True,
                          cwd=str(Path(__file__).resolve().parents[2]), env=dict(environment, **given))
    assert int(done.stdout) == threads


LIMITED = """
import resource
import numpy as np
from refmotion_plugin.engine.lifetime import claim_blas_memory, virtual_bytes

def leave(mib):
    resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + mib * 2 ** 20, resource.RLIM_INFINITY))

try:
    leave(40)
    claim_blas_memory()
except Exception as error:
    print(type(error).__name__, error)
leave(%d)
claim_blas_memory()
leave(1)
print("%%.1f" %% np.linalg.det(2 * np.eye(2)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere address space is not limited like this")
def test_linear_algebra_has_its_memory_before_it_runs_out():
    """Without it, the last line would look for memory for ever."""
    end = subprocess.run([sys.executable, "-c", LIMITED % 300], capture_output=True, text=True, timeout=60, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    refused, found = end.stdout.splitlines()
    assert refused.startswith("InputError the limit of virtual memory is ") and refused.endswith("raise it by 25 MiB at least") and found == "4.0"
