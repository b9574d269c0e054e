"""A file system that hangs or stumbles costs time, at most a movie, never the job."""
import errno
import gc
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.engine.movies import patience
from refmotion_plugin.engine.movies.patience import hanging, patiently
from refmotion_plugin.engine.movies.streamed import StreamedFrames
from refmotion_plugin.engine.run import tasks
from refmotion_plugin.engine.run.executor import run_here
from refmotion_plugin.engine.stages import load

from tests.unit.job_stand_ins import FakeStages
from tests.unit.test_job_executor import tasks_and_place


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.0)


def test_what_is_read_in_time_is_given_back():
    assert patiently(lambda: 3, 10, "x") == 3 == patiently(lambda: 3, 0, "x")


def test_a_reading_that_hangs_is_tried_once_more_then_the_movie_fails():
    release, tries = threading.Event(), []

    def read():
        tries.append(1)
        release.wait(20)

    before = hanging()
    try:
        with pytest.raises(MovieError, match="movie m.tiff could not be read within 0.1 s, 2 times.*--read-timeout"):
            patiently(read, 0.1, "movie m.tiff")
        assert len(tries) == 2 and hanging() == before + 2
    finally:
        release.set()


def test_a_reading_that_hung_once_is_fine():
    release, tries = threading.Event(), []

    def read():
        tries.append(1)
        if len(tries) == 1:
            release.wait(20)
        return len(tries)

    try:
        assert patiently(read, 0.2, "x") == 2
    finally:
        release.set()


@pytest.mark.parametrize("number, tries_expected", [(errno.ESTALE, 2), (errno.EIO, 2), (errno.EACCES, 1), (errno.ENOENT, 1)])
def test_errors_that_pass_are_tried_once_more(number, tries_expected):
    tries = []

    def read():
        tries.append(1)
        try:
            raise OSError(number, "stumbled")
        except OSError as error:                # as the readers do
            raise MovieError("movie cannot be read (%s)" % error) from None

    with pytest.raises(MovieError, match="stumbled"):
        patiently(read, 5, "x")
    assert len(tries) == tries_expected


def test_a_damaged_movie_is_not_read_twice():
    tries = []

    def read():
        tries.append(1)
        raise MovieError("truncated")

    with pytest.raises(MovieError, match="truncated"):
        patiently(read, 5, "x")
    assert len(tries) == 1


HUNG = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.engine.cli import main, parser
from refmotion_plugin.engine.movies.patience import patiently

def hang():
    with ThreadPoolExecutor(1) as pool:         # such a thread keeps an interpreter from ending
        pool.submit(threading.Event().wait).result()

def command(values):
    try:
        patiently(hang, 0.1, "movie m.tiff")
    except ValueError as error:
        raise InputError(str(error))

parser.status_command = command
sys.exit(main(["status", "x"]))
"""


def test_the_program_ends_although_a_reading_hangs():
    done = subprocess.run([sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "could not be read within 0.1 s" in done.stderr


def test_a_reading_that_hangs_is_given_up_when_the_run_ends(tmp_path):
    """Ctrl-C, or a polite kill: the thread that decodes ahead may wait for a file system that never answers."""
    release, begun = threading.Event(), threading.Event()

    def hang():
        begun.set()
        release.wait(60)

    place = SimpleNamespace(load=lambda task: "stack" if task == 1 else patience.patiently(hang, 50, "movie two"), room_ahead=lambda task: True)

    def stopped(task, place, load_stack):
        load_stack()
        assert begun.wait(10)
        raise KeyboardInterrupt

    before, start = patience.hanging(), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(run_here([1, 2], place, begin=stopped))
    assert time.monotonic() - start < 20 and patience.hanging() == before + 1
    release.set()
    assert patience.patiently(lambda: "read", 5, "movie three") == "read"        # the next run reads again


def test_a_reading_that_nobody_wants_is_given_up_however_late_its_thread_looks(monkeypatch):
    """The thread that waits for it looks now and then; the run has ended and gone by then."""
    monkeypatch.setattr(patience, "LOOK_SECONDS", 0.3)
    release, said = threading.Event(), []

    def wait():
        with pytest.raises(MovieError, match="the run ends"):
            patience.patiently(lambda: release.wait(60), 50, "frame 3")
        said.append("given up")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    with patience.readings_given_up():
        pass
    thread.join(10)
    release.set()
    assert said == ["given up"]


def test_a_file_system_that_hangs_before_the_first_byte_is_given_up(tiny, monkeypatch):
    release, job = threading.Event(), tiny.prepared
    spec = job.spec.model_copy(update={"compute": job.spec.compute.model_copy(update={"read_timeout_seconds": 0.2})})
    monkeypatch.setattr(load, "_stamp", lambda path: release.wait(60))
    try:
        with pytest.raises(MovieError, match="could not be read within 0.2 s, 2 times"):
            load.load_stack(tiny.movies[0], replace(job, spec=spec))
    finally:
        release.set()


def test_a_micrograph_that_hangs_costs_its_time_once_and_no_movie(tmp_path, monkeypatch):
    """It is only looked for to see whether a small average is wanted."""
    release, looked, made, places = threading.Event(), [], [], []

    def find(path, beside):
        places.append(threading.current_thread().name)
        return path

    monkeypatch.setattr(tasks, "located", find)
    monkeypatch.setattr(tasks, "os", SimpleNamespace(path=SimpleNamespace(exists=lambda path: looked.append(path) or release.wait(60))))
    movies, place = tasks_and_place(tmp_path, FakeStages(), movies=3)
    spec = place.prepared.spec
    spec = spec.model_copy(update={"compute": spec.compute.model_copy(update={"read_timeout_seconds": 0.1})})
    small = lambda movie, stack, plan, device: made.append(movie.micrograph) or (np.zeros((2, 2), np.uint8), 1.0)
    place = replace(place, prepared=replace(place.prepared, spec=spec), recipes=replace(place.recipes, thumbnail=small))
    try:
        results = list(run_here(movies[:2], place, ahead=False)) + list(run_here(movies[2:], replace(place), ahead=False))      # of two stages
    finally:
        release.set()
    assert [r.stages["align"] for r in results] == ["done"] * 3 and made == ["M/mic_%d.mrc" % i for i in range(3)]
    assert looked == ["M/mic_0.mrc"] * patience.TRIES and set(places) == {"read micrograph M/mic_0.mrc"}


def test_closing_a_movie_does_not_wait_for_a_frame_that_hangs():
    class Reader:
        path, shape_yx, dtype, concurrent, closed = "m.tiff", (4, 4), np.dtype(np.uint8), True, False

        def frame(self, i, out=None, rows=None):
            begun.set()
            release.wait(20)
            return np.zeros((4, 4), np.uint8)

        def close(self):
            assert release.is_set()
            self.closed = True

    release, begun, reader = threading.Event(), threading.Event(), Reader()
    frames = StreamedFrames(reader, 0, 4, False, threads=2)
    threading.Thread(target=frames._begin, args=(0,)).start()
    assert begun.wait(10)
    start = time.monotonic()
    del frames
    gc.collect()
    assert time.monotonic() - start < 10 and not reader.closed       # it is still read from
    release.set()
    for _ in range(100):
        if reader.closed:
            break
        time.sleep(0.1)
    assert reader.closed
