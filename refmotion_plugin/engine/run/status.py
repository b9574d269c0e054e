"""Where a job says what it does: status.jsonl (events) and progress.json (now)."""
import contextlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from typing import Optional

from refmotion_plugin.contract.layout import write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """One stage in numbers; ``remaining_seconds`` is None before the first movie is through."""

    stage: str
    done: int
    total: int
    seconds_per_movie: Optional[float] = None
    remaining_seconds: Optional[float] = None
    unit: str = "movie"

    def line(self):
        """``align 3/10 movies, 2.1 s/movie, 15 s remaining``."""
        text = "%s %d/%d %s" % (self.stage, self.done, self.total, "families" if self.unit == "family" else self.unit + "s")
        if self.seconds_per_movie is None:
            return text
        return "%s, %.1f s/%s, %s remaining" % (text, self.seconds_per_movie, self.unit, duration(self.remaining_seconds))


def duration(seconds):
    """Seconds as a person says it: 15 s, 3 min 20 s, 2 h 5 min."""
    seconds = int(round(seconds))
    if seconds < 60:
        return "%d s" % seconds
    if seconds < 3600:
        return "%d min %d s" % divmod(seconds, 60)
    return "%d h %d min" % (seconds // 3600, seconds % 3600 // 60)


class StatusLog:
    """Appends events and keeps the current progress; ``listener(progress)`` shows it to a person."""

    def __init__(self, layout, listener=None):
        self.layout, self.listener = layout, listener
        self.stage, self.unit, self.done, self.total, self.start = "", "movie", 0, 0, 0.0
        self._end_cut_line()

    def _end_cut_line(self):
        """A crash may have left half a line: end it, so that the next event stands on its own."""
        with contextlib.suppress(FileNotFoundError), open(self.layout.status, "rb+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def event(self, name, **values):
        """Append one event."""
        with open(self.layout.status, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict({"event": name, "time": round(time.time(), 2)}, **values)) + "\n")

    def stopped(self, error):
        """Append that the run ended before its end, and why."""
        self.event("stopped", reason="interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__)

    def begin(self, stage, total, unit="movie"):
        """A stage starts with ``total`` movies (or other units) to do."""
        self.stage, self.unit, self.done, self.total, self.start = stage, unit, 0, total, time.monotonic()
        self._tell(Progress(stage, 0, total, unit=unit))

    def advance(self):
        """One more movie of the stage is through."""
        self.reach(self.done + 1)

    def reach(self, done):
        """``done`` of the stage's steps are through."""
        self.done = done
        each = (time.monotonic() - self.start) / max(1, self.done)
        self._tell(Progress(self.stage, self.done, self.total, round(each, 3), round(each * (self.total - self.done), 1),
                            self.unit))

    def _tell(self, progress):
        write_json(self.layout.progress, asdict(progress), lasting=False)        # of what goes on now: the thread that feeds a GPU does not wait for the disk
        log.info(progress.line())
        if self.listener:
            self.listener(progress)
