"""Reading from file systems that hang or stumble: a time after which a reading is given up, one more try, then an error of the movie.

A thread that hangs in the kernel cannot be ended. It is left behind, its result is dropped, and :func:`hanging` counts such threads,
so that the program can leave without waiting for them.
"""
import contextlib
import errno
import logging
import threading
import time

from refmotion_plugin.contract.errors import MovieError

log = logging.getLogger(__name__)

TRIES = 2
PAUSE_SECONDS = 5.0         # before a file system that stumbled is asked again
STUMBLES = {getattr(errno, name) for name in ("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EREMOTEIO", "ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "ESHUTDOWN")}

LOOK_SECONDS = 0.5          # how often a thread that waits for a reading looks whether it still shall

_left = []                  # threads of readings that were given up
_stopping = threading.Event()
_runs_ended = [0]           # a reading that began before one of them ended is given up, whenever its thread looks


@contextlib.contextmanager
def readings_given_up():
    """Readings that are under way, or begun meanwhile, are given up, in whatever thread: nobody will want what they bring."""
    _runs_ended[0] += 1
    _stopping.set()
    try:
        yield
    finally:
        _stopping.clear()


def hanging():
    """Number of readings that were given up and still hang."""
    _left[:] = [thread for thread in _left if thread.is_alive()]
    return len(_left)


def patiently(read, seconds, what):
    """``read()``, given up after ``seconds`` (0: never) and tried once more, also after errors that pass, such as a stale file handle.

    Parameters: ``what`` is named in messages, such as "movie x.tiff". Raises MovieError, and whatever else ``read`` raises.
    """
    ended = _runs_ended[0]
    wanted = lambda: ended == _runs_ended[0] and not _stopping.is_set()
    for last in [False] * (TRIES - 1) + [True]:
        try:
            return _within(read, seconds, what, wanted)
        except _GivenUp:
            reason = "%s could not be read within %g s" % (what, seconds)
            if last:
                raise MovieError("%s, %d times: the file system hangs or is very slow; see that it works, or allow more time with "
                                 "--read-timeout" % (reason, TRIES)) from None
        except (MovieError, OSError) as error:
            if last or not _may_pass(error):
                raise
            reason = str(error)
            time.sleep(PAUSE_SECONDS)
        log.warning("%s; trying once more", reason)


class _GivenUp(Exception):
    pass


def _may_pass(error):
    """Whether the error, or the one it was made of, is of a file system that may work again in a moment."""
    return any(isinstance(e, OSError) and e.errno in STUMBLES for e in (error, error.__cause__, error.__context__))


def _within(read, seconds, what, wanted):
    if not seconds:
        return read()
    answer = []

    def run():
        try:
            answer.append((read(), None))
        except BaseException as error:
            answer.append((None, error))

    thread = threading.Thread(target=run, name="read " + what, daemon=True)
    thread.start()
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end and wanted():
        thread.join(min(LOOK_SECONDS, max(0.0, end - time.monotonic())))
    if not answer:
        _left.append(thread)
        if not wanted():
            raise MovieError("%s is not read any more: the run ends" % what)
        raise _GivenUp
    value, error = answer.pop()
    if error is not None:
        raise error
    return value
