"""Averaging movies into micrographs from beginning to end. The same command again does only what is missing or was made of something else."""
import contextlib
import functools
import logging
from collections import namedtuple
from typing import Dict

from refmotion_plugin.contract import layout as files
from refmotion_plugin.contract.averages import AverageLayout, COLUMNS, write_corrected_micrographs
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import write_json
from refmotion_plugin.contract.markers import averaged_notes

from ..lifetime import claim_blas_memory
from .average_movie import AveragePlace, average_task, remote_place
from .average_tasks import AVERAGE_STAGE, average_tasks, given_weights
from .devices import describe, devices_here, keep_freed_memory, set_threads
from .executor import at_once, run_here, run_on_workers
from .inputs import MovieCatalogue
from .lock import job_lock
from .plan import DONE, open_keys, plan
from .status import StatusLog
from .workers import Crew, choose_workers

log = logging.getLogger(__name__)

AverageOutcome = namedtuple("AverageOutcome", "failed written")
"""``failed`` {micrograph: reason}; ``written``: number of movies in corrected_micrographs.star."""


def run_average(folder, spec, listener=None):
    """Average the movies of ``spec`` into ``folder`` (made if absent); returns :class:`AverageOutcome`.

    ``listener(progress)`` is called after every movie. Raises InputError when nothing can be done with what was given.
    """
    layout = AverageLayout(folder)
    with job_lock(layout) as run:
        files.remove_leftovers(layout.folder)
        with files.atomic_write(layout.job, "w") as file:
            file.write(spec.to_json() + "\n")
        status = StatusLog(layout, listener)
        try:
            outcome = _Averaging(spec, layout, status, run).run()
        except BaseException as error:
            with contextlib.suppress(OSError):          # a full disk must not hide why it stopped
                status.stopped(error)
            raise
        status.event("finished", failed=len(outcome.failed))
        return outcome


class _Averaging:
    """One run: its tasks, and what became of them."""

    def __init__(self, spec, layout, status, run):
        claim_blas_memory()
        keep_freed_memory()
        self.spec, self.layout, self.status, self.token = spec, layout, status, run
        self.devices, self.threads = devices_here(spec.compute), set_threads(spec.compute.threads)
        self.workers = choose_workers(spec.compute, self.devices, self.threads)
        log.info(describe(self.devices, self.threads))
        catalogue = MovieCatalogue(spec.inputs.movies)
        self.weights = given_weights(catalogue, spec)
        self.tasks = average_tasks(catalogue, spec, self.weights)
        self.unreadable: Dict[str, str] = {catalogue.names[i]: reason for i, reason in catalogue.faults.items()}
        self.failed: Dict[str, str] = {}                # key -> reason

    def run(self):
        """Average what is open and list all that is done."""
        by_key = {task.movie.key: task for task in self.tasks}
        states = plan({key: task.mark for key, task in by_key.items()}, self._found())
        self._announce(states)
        work = [by_key[key] for key in open_keys(states)]
        if work:
            self._run(work)
        else:
            log.info("nothing to do, all movies are averaged")
        found = self._found()
        done = [task for task in self.tasks if found.get(task.movie.key) == task.mark and task.movie.key not in self.failed]
        failed = dict(self.unreadable, **{by_key[key].movie.micrograph: reason for key, reason in self.failed.items()})
        if not done and self.spec.inputs.growing:
            return AverageOutcome(failed, 0)
        if not done:
            raise InputError("no movie could be averaged; the first reason: %s" % next(iter(failed.values()), "the list is empty"))
        _write_lists(self.layout, self.spec, done)
        return AverageOutcome(failed, len(done))

    def _found(self):
        """Fingerprints on disk of those movies whose images are there too."""
        found = {}
        for task in self.tasks:
            notes = averaged_notes(self.layout, task.movie.key, COLUMNS)
            if notes is not None and all(self.layout.micrograph(task.name, kind).exists() for kind in notes["kinds"]):
                found[task.movie.key] = notes["fingerprint"]
        return found

    def _announce(self, states):
        rows = [{"key": task.movie.key, "micrograph": task.movie.micrograph,
                 "state": "done" if states[task.movie.key] == DONE else "todo"} for task in self.tasks]
        rows += [{"key": name, "micrograph": name, "state": "todo"} for name in self.unreadable]
        self.status.event("movies", movies=rows)
        for name, reason in self.unreadable.items():
            log.error("movie %s failed: %s", name, reason)
            self.status.event(AVERAGE_STAGE, movie=name, state="failed", reason=reason)

    def _run(self, tasks):
        self.status.begin(AVERAGE_STAGE, len(tasks))
        names = {task.movie.key: task.movie.micrograph for task in tasks}
        with contextlib.nullcontext() if self.workers is None else Crew(self.workers) as crew:
            for result in self._results(tasks, crew):
                text = result.stages[AVERAGE_STAGE]
                done = text == "done"
                self.status.event(AVERAGE_STAGE, movie=result.key, state="done" if done else "failed", reason="" if done else text,
                                  seconds=round(result.seconds, 2))
                if not done:
                    self.failed[result.key] = text
                    log.error("movie %s failed: %s", names[result.key], text)
                self.status.advance()

    def _results(self, tasks, crew):
        if crew is not None:
            processes = max(1, len(crew.workers.local))
            return run_on_workers(tasks, crew, functools.partial(remote_place, self.spec, self.layout.folder, self.token, self.weights, processes), average_task)
        place = AveragePlace(self.spec, self.layout, self.devices[0], self.threads, self.weights)
        gpu = self.devices[0] != "cpu"
        return run_here(tasks, place, self.threads > 1 or gpu, begin=at_once(average_task), stand_back=gpu)


def _write_lists(layout, spec, done):
    """corrected_micrographs.star for RELION and averages.json for our own reader."""
    rows, pixels, known = [], {}, []
    for task in done:
        notes = averaged_notes(layout, task.movie.key, COLUMNS)
        paths = {kind: str(layout.micrograph(task.name, kind)) for kind in COLUMNS if kind in notes["kinds"]}
        rows.append((task.row, dict({COLUMNS[kind]: path for kind, path in paths.items()},
                                    rlnMicrographMetadata=str(layout.metadata(task.name)))))
        if abs(pixels.setdefault(task.optics_group, notes["pixel_angstrom"]) - notes["pixel_angstrom"]) > 1e-6:
            log.warning("optics group %d has micrographs of %.4f and %.4f A/px: give each pixel size its own optics group",
                        task.optics_group, pixels[task.optics_group], notes["pixel_angstrom"])
        known.append({"micrograph": task.movie.micrograph, "files": paths, "pixel_angstrom": notes["pixel_angstrom"],
                      "size_yx": notes["size_yx"]})
    write_corrected_micrographs(layout.corrected_micrographs, spec.inputs.movies, rows, pixels)
    write_json(layout.averages, {"averages": known})
