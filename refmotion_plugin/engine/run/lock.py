"""The lock that keeps a second run out of a job's folder, also where the file system knows no locks or other machines share it.

The system's own lock (flock) is taken where it works: it falls with the process, however that ends. Besides, the lock file says who
holds it (host, process and its start, a token drawn for the run) and carries a count that the holder raises every few seconds. No
clock is compared with another: a holder on another machine lives if its count moves while it is watched.
"""
import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.processes import start_of

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
WATCH_SECONDS = 25.0        # a live holder has raised its count by then, network file systems' caches included
SETTLE_SECONDS = 2.0
CHECK_PAUSES = (1.0, 4.0)   # seconds between looks at a record that cannot be read
RECORD_BYTES = 512          # always the same length: a reader never sees half of a shorter one


@contextlib.contextmanager
def job_lock(layout):
    """Hold the job's folder; yields the run's token. Raises InputError that names host and process if a live run holds it."""
    _make_folder(layout)
    with open(layout.lock, "a+b", buffering=0) as file:
        locked = _take(file, layout)
        mine = {"host": socket.gethostname(), "process": os.getpid(), "started": start_of(os.getpid()), "run": uuid.uuid4().hex, "count": 0}
        _write(layout.lock, mine)
        if not locked:
            _see_that_it_stays(layout, mine)
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(layout.lock, mine, stop), name="lock", daemon=True)
        beating.start()
        try:
            yield mine["run"]
        finally:
            stop.set()
            beating.join()
            if holder(layout).get("run") == mine["run"]:
                with contextlib.suppress(OSError):
                    os.truncate(layout.lock, 0)


def holder(layout):
    """What the lock file says of its holder; {} if nobody holds it or it says nothing sensible."""
    try:
        found = json.loads(layout.lock.read_bytes()[:RECORD_BYTES].decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_run(layout, run):
    """Raise InputError unless the run with this token holds the folder: a worker that outlives its run must not write."""
    for pause in (*CHECK_PAUSES, None):
        found = holder(layout)
        if run is None or found.get("run") == run:
            return
        if found or pause is None:      # nothing readable may be a file system that stumbles
            raise InputError("the run that asked for this work has left %s: nothing is written" % layout.folder)
        time.sleep(pause)


def _make_folder(layout):
    try:
        layout.folder.mkdir(parents=True, exist_ok=True)
        with open(layout.lock, "a"):
            pass
    except OSError as error:
        raise InputError("%s cannot be written (%s): choose a folder on a disk with space that you may write to"
                         % (layout.folder, error.strerror)) from None


def _take(file, layout):
    """Return once the folder is free, whether under the system's lock; raise InputError if it is not free."""
    other = holder(layout)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _taken(layout, other) from None
        locked = False                                      # a file system without locks: the record alone decides
        log.warning("%s is on a file system without locks (%s): the record in %s is used alone", layout.folder, error.strerror, layout.lock.name)
    if not other:
        return locked
    if other.get("host") == socket.gethostname():
        if not locked and other.get("started") is not None and start_of(other.get("process")) == other["started"]:
            raise _taken(layout, other)
    elif _moves(layout, other):
        raise _taken(layout, other)
    log.warning("the run of process %s on %s ended without a word: going on where it was", other.get("process"), other.get("host"))
    return locked


def _see_that_it_stays(layout, mine):
    """Without locks two runs may have found the folder free at once: the one that wrote last has it."""
    time.sleep(SETTLE_SECONDS)
    if holder(layout).get("run") != mine["run"]:
        raise _taken(layout, holder(layout))


def _moves(layout, before):
    """Whether a holder on another machine is alive."""
    log.warning("process %s on %s may be working in %s: watching for %.0f s", before.get("process"), before.get("host"), layout.folder, WATCH_SECONDS)
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_SECONDS / 4))
        if holder(layout) != before:
            return bool(holder(layout))
    return False


def _taken(layout, other):
    who = "process %s on %s" % (other.get("process"), other.get("host")) if other else "process unknown"
    return InputError("another run is working in %s (%s): wait for it or stop it first" % (layout.folder, who))


def _beat(path, record, stop):
    while not stop.wait(BEAT_SECONDS):
        record["count"] += 1
        try:
            _write(path, record)
        except OSError as error:                            # a full disk or a hanging server must not end the run
            log.warning("%s cannot be written (%s)", path, error.strerror)


def _write(path, record):
    data = json.dumps(record).encode("utf-8").ljust(RECORD_BYTES - 1) + b"\n"
    file = os.open(str(path), os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(file, data, 0)
    finally:
        os.close(file)
