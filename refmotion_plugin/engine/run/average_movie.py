"""One movie averaged and its images written: the unit of work of averaging."""
import functools
import logging
import time
from dataclasses import dataclass
from typing import Optional

from refmotion_plugin.contract.averages import SUFFIXES, AverageLayout, write_movie_metadata
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import mark_done
from refmotion_plugin.contract.records import DoseWeights

from ..movies.patience import patiently
from ..movies.stack import load_movie
from ..stages.average import average_movie
from ..stages.budget import find_budget
from ..stages.memory import plan_averaging
from ..stages.patches import plan_frames
from .average_tasks import AVERAGE_STAGE
from .devices import blame, choose_devices, keep_freed_memory, set_threads
from .lock import check_run
from .mrc_files import write_mrc
from .tasks import TaskResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AveragePlace:
    """What every task needs."""

    spec: object
    layout: AverageLayout
    device: str
    threads: int
    weights: Optional[DoseWeights]
    run: Optional[str] = None
    processes: int = 1              # that share the machine's memory

    @functools.cached_property
    def budget(self):
        """Memory this process may use."""
        return find_budget(self.spec.compute, self.device, self.processes).measured()

    def load(self, task):
        """Decode the movie of a task."""
        timeout = self.spec.compute.read_timeout_seconds
        return patiently(lambda: load_movie(task.movie, self.spec.inputs, threads=self.threads, held_bytes=self._memory(task).held_bytes,
                                            frame_timeout=timeout), timeout, "movie " + task.movie.movie_file)

    def room_ahead(self, task):
        """Whether memory allows to decode the movie of a task while another one is averaged."""
        return self._memory(task).ahead

    def _memory(self, task):
        return plan_averaging(self.budget, tuple(task.movie.size_yx), len(plan_frames(task.movie, self.spec.inputs)), self.threads)


def remote_place(spec, folder, run, weights, processes, device, threads):
    """A worker process's own place; ``processes`` share the machine's memory."""
    keep_freed_memory()
    return AveragePlace(spec, AverageLayout(folder), choose_devices(device)[0], set_threads(threads), weights, run, processes)


def average_task(task, place, load_stack):
    """Average one movie and write its images. A fault of the movie is a result, not an exception; InputError passes."""
    start, text = time.monotonic(), "done"
    try:
        _average(task, place, load_stack())
    except InputError:
        raise
    except MovieError as error:
        text = str(error)
    except Exception as error:      # a fault we did not foresee must cost one movie, not the run
        cause = blame(error, [place.device])
        if cause is not error:
            raise cause from error
        log.exception("unexpected error in movie %s", task.movie.micrograph)
        text = "unexpected %s: %s (the full text is in %s)" % (type(error).__name__, str(error).split("\n")[0], place.layout.log.name)
    return TaskResult(task.movie.key, time.monotonic() - start, {AVERAGE_STAGE: text})


def _average(task, place, stack):
    averaged = average_movie(task.movie, place.spec, stack, place.device, place.weights, task.group)
    check_run(place.layout, place.run)
    place.layout.done(task.movie.key, AVERAGE_STAGE).unlink(missing_ok=True)       # before the first file: it speaks of those that are replaced now
    for kind, image in averaged.images.items():
        write_mrc(place.layout.micrograph(task.name, kind), image, averaged.pixel_angstrom, place.spec.output.float16)
    for kind in set(SUFFIXES) - set(averaged.images):
        place.layout.micrograph(task.name, kind).unlink(missing_ok=True)        # of an earlier run, perhaps of another size
    write_movie_metadata(place.layout.metadata(task.name), task.source, str(place.layout.micrograph(task.name, "weighted")),
                         averaged.binning)
    mark_done(place.layout.done(task.movie.key, AVERAGE_STAGE), task.mark, kinds=list(averaged.images), binning=averaged.binning,
              pixel_angstrom=averaged.pixel_angstrom, size_yx=list(averaged.images["weighted"].shape))
