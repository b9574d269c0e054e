"""An eye on how many workers there are: those of this machine that are gone for good are started anew, and a run without any ends."""
import logging
import time

from refmotion_plugin.contract.errors import InputError

SAY_SECONDS = 60            # between two lines in the log
SLOW_SECONDS = 900.0        # of one movie at one worker, after which it is named

log = logging.getLogger(__name__)


class Watch:
    """How long a run has had no worker at all, whether or not tasks wait with the scheduler for one to come."""

    def __init__(self, crew):
        self.crew, self.alone_since, self._said = crew, None, {}

    def look(self, count):
        """There are ``count`` workers now. Raises InputError when there was none for too long."""
        workers, now = self.crew.workers, time.monotonic()
        if count < len(workers.local):
            missing = self.crew.call_back()
            if missing:
                self._say(now, logging.WARNING, "%d of %d worker processes ended and did not come back: starting them anew", missing, len(workers.local))
        if count:
            self.alone_since = None
            return
        self.alone_since = now if self.alone_since is None else self.alone_since
        if workers.patience_seconds and now - self.alone_since >= workers.patience_seconds:
            raise InputError(_no_worker(workers))
        self._say(now, logging.INFO, "waiting for a worker: %s", workers.line())

    def at_work(self, running):
        """``running`` (task, address, since when) each. A worker that stands still in a driver or a file system lives on: who takes long is named."""
        now = time.monotonic()
        slow = ["%s at %s for %.0f min" % (task.movie.micrograph, address, (now - since) / 60) for task, address, since in running if now - since >= SLOW_SECONDS]
        if slow:
            self._say(now, logging.WARNING, "not done yet: %s (kill -USR1 of its process, which the log named when it prepared the job, makes it write what it is at to its standard error)", "; ".join(slow), seconds=SLOW_SECONDS)

    def _say(self, now, level, text, *values, seconds=SAY_SECONDS):
        if now - self._said.get(text, -seconds) >= seconds:
            log.log(level, text, *values)
            self._said[text] = now


def _no_worker(workers):
    if workers.local:
        return ("all worker processes of this machine ended and for %.0f s none could be started anew: memory may have run out, try fewer with "
                "--workers, or give the same command again, what is finished is kept" % workers.patience_seconds)
    return ("there was no worker for %.0f s (%s): see that workers start and reach the scheduler, then give the same command again, what is "
            "finished is kept, or allow more time with --worker-timeout" % (workers.patience_seconds, workers.line()))
