"""Who holds a job's folder: this machine's processes, other machines', file systems without locks, holders that were killed."""
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.engine.run import lock
from refmotion_plugin.engine.run.lock import check_run, holder, job_lock

HOLD = """
import sys, time
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.engine.run.lock import job_lock
with job_lock(JobLayout(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def layout(tmp_path, monkeypatch):
    for name, seconds in (("BEAT_SECONDS", 0.05), ("WATCH_SECONDS", 0.6), ("SETTLE_SECONDS", 0.1)):
        monkeypatch.setattr(lock, name, seconds)
    return JobLayout(tmp_path / "OUT")


def no_locks(monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "flock", refuse)


def record(layout, **values):
    layout.folder.mkdir(exist_ok=True)
    layout.lock.write_text(json.dumps(dict({"host": socket.gethostname(), "process": os.getpid(), "started": 1, "run": "r", "count": 0}, **values)))


def test_a_killed_holder_is_followed_at_once(layout):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(layout.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="process %d on %s" % (process.pid, socket.gethostname())), job_lock(layout):
        pass
    process.kill()
    process.wait()
    assert holder(layout)["process"] == process.pid             # it left its record
    with job_lock(layout):
        assert holder(layout)["process"] == os.getpid()
    assert holder(layout) == {} and layout.lock.read_bytes() == b""


def test_without_locks_a_live_process_is_told_from_a_dead_one(layout, monkeypatch):
    no_locks(monkeypatch)
    record(layout, started=lock.start_of(os.getpid()))
    with pytest.raises(InputError, match="process %d on" % os.getpid()), job_lock(layout):
        pass
    record(layout)                                              # the number was used again by another process
    with job_lock(layout) as run:
        assert holder(layout)["run"] == run
    record(layout, process=2 ** 22 + 1)
    with job_lock(layout):
        pass


@pytest.mark.parametrize("locks", [True, False])
def test_a_holder_on_another_machine_lives_if_its_count_moves(layout, monkeypatch, locks):
    if not locks:
        no_locks(monkeypatch)
    record(layout, host="another", process=7)
    stop = threading.Event()
    beating = threading.Thread(target=lock._beat, args=(layout.lock, holder(layout), stop))
    beating.start()
    try:
        with pytest.raises(InputError, match="process 7 on another"), job_lock(layout):
            pass
    finally:
        stop.set()
        beating.join()
    with job_lock(layout):                                      # it stands still now
        pass


def test_of_two_that_found_the_folder_free_at_once_one_has_it(layout, monkeypatch):
    no_locks(monkeypatch)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: record(layout, host="another", process=7))
    with pytest.raises(InputError, match="process 7 on another"), job_lock(layout):
        pass
    assert holder(layout)["process"] == 7                       # the other's record stays


def test_a_record_that_makes_no_sense_holds_nothing(layout):
    layout.folder.mkdir()
    for text in ("process 12 on old version\n", "[1]", "{", "\xff"):
        layout.lock.write_text(text)
        with job_lock(layout):
            pass


def test_a_worker_that_outlives_its_run_does_not_write(layout, monkeypatch):
    monkeypatch.setattr(lock, "CHECK_PAUSES", (0.1, 0.1))
    with job_lock(layout) as run:
        check_run(layout, run)
        check_run(layout, None)
    with pytest.raises(InputError, match="nothing is written"):
        check_run(layout, run)
    with job_lock(layout), pytest.raises(InputError, match="nothing is written"):
        check_run(layout, run)


def test_a_record_that_cannot_be_read_for_a_moment_stops_no_worker(layout, monkeypatch):
    looks, found = [], lock.holder

    def stumbling(layout):
        looks.append(1)
        return {} if len(looks) < 3 else found(layout)

    monkeypatch.setattr(lock, "CHECK_PAUSES", (0.1, 0.1))
    with job_lock(layout) as run:
        monkeypatch.setattr(lock, "holder", stumbling)
        check_run(layout, run)
        assert len(looks) == 3


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written .Not a directory"), job_lock(JobLayout(tmp_path / "file" / "OUT")):
        pass
