"""The command ``refmotion``: how it begins and ends. The only place that prints."""
import contextlib
import errno
import logging
import os
import select
import signal
import sys

from refmotion_plugin.contract.errors import InputError

from ..exhausted import memory_ran_out
from ..run.starter import watch_starter
from .exit_codes import EXIT_BUG, EXIT_FAILED_MOVIES, EXIT_FINE, EXIT_INPUT, EXIT_STOPPED
from .parser import command_parser

__all__ = ["EXIT_BUG", "EXIT_FAILED_MOVIES", "EXIT_FINE", "EXIT_INPUT", "EXIT_STOPPED", "command_parser", "main"]

log = logging.getLogger(__name__)


def main(argv=None):
    """Run one command; returns its exit code. With a reading that hangs in the kernel the process ends at once, which nothing else can end."""
    code = _main(argv)
    patience = sys.modules.get("refmotion_plugin.engine.movies.patience")
    if patience is not None and patience.hanging():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _main(argv):
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = command_parser(arguments)
    values = vars(parser.parse_args(arguments))
    command, goes_on = values.pop("command"), values.pop("goes_on", False)
    try:
        with _stopped_by_signal():
            watch_starter()
            return command(values)
    except InputError as error:
        _say_error(str(error))
        return EXIT_INPUT
    except KeyboardInterrupt:
        _say_error("stopped; the same command " + ("goes on where it was" if goes_on else "begins anew"))
        return EXIT_STOPPED
    except BrokenPipeError as error:
        return EXIT_FINE if _nobody_reads() else _unexpected(error, goes_on)
    except Exception as error:
        return _unexpected(error, goes_on)


def _nobody_reads():
    """Whether what reads our output has gone, as ``| head`` does, which is no fault; nothing is written there any more."""
    poll = select.poll()
    poll.register(1, 0)         # asks for errors alone
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        sys.stdout = open(os.devnull, "w")
    return gone


def _unexpected(error, goes_on):
    """Say what became of the command: short of something, or a fault of ours. ``goes_on``: given again, it keeps what is finished."""
    missing = None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        missing = "no space left on disk: free some and"
    elif memory_ran_out(error):
        missing = ("memory has run out (%s): leave it more%s and" % ((str(error).strip() or type(error).__name__).split("\n")[0],
                   ", or let it take less with --memory, --threads and --workers," if goes_on else ""))
    if missing is not None:
        _say_error(missing + " run the same command again" + (", what is finished is kept" if goes_on else ""))
        return EXIT_INPUT
    log.exception("unexpected error")
    _say_error("unexpected error, please report it with the text above" + (" (it is in %s too)" % error.log_file if hasattr(error, "log_file") else ""))
    return EXIT_BUG


def _say_error(text):
    print("refmotion: " + text, file=sys.stderr)


@contextlib.contextmanager
def _stopped_by_signal():
    """A polite kill ends like Ctrl-C: files whole, lock released."""
    def stop(number, frame):
        raise KeyboardInterrupt
    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:      # not in the main thread, where signals are someone else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
