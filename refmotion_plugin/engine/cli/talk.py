"""How a command talks while it works: engine.log, lines on stderr, a progress bar on a terminal."""
import contextlib
import logging
import sys

from refmotion_plugin.contract.errors import InputError

log = logging.getLogger(__name__)


class _Stderr(logging.StreamHandler):
    """To what stderr is at the time: a progress bar puts itself there, to stay below the lines."""

    def emit(self, record):
        self.stream = sys.stderr
        super().emit(record)


@contextlib.contextmanager
def logging_to(layout):
    """Log to engine.log; to stderr too: everything in a log file, only warnings beside a progress bar."""
    try:
        layout.folder.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(str(layout.log), encoding="utf-8")
    except OSError as error:
        raise InputError("%s cannot be written (%s): choose another folder" % (layout.folder, error.strerror)) from None
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_stderr = _Stderr()
    to_stderr.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    to_stderr.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("refmotion_plugin")
    before, handlers = root.level, (to_file, to_stderr)
    root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    except (InputError, KeyboardInterrupt) as error:
        root.removeHandler(to_stderr)               # the command's last line says it there
        log.error("%s", str(error) or "stopped")
        raise
    except Exception as error:
        root.removeHandler(to_stderr)
        log.exception("unexpected error")
        error.log_file = layout.log                 # for the command's last line
        raise
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def progress_bar():
    """A listener that draws a bar on a terminal; None elsewhere, where log lines say the same."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rest]}"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        rows = {}

        def listener(progress):
            if progress.stage not in rows:
                rows[progress.stage] = bar.add_task(progress.stage, total=progress.total, rest="")
            bar.update(rows[progress.stage], completed=progress.done, total=progress.total,
                       rest=progress.line().partition(", ")[2])
        yield listener
