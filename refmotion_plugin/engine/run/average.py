"""Averaging movies into micrographs from beginning to end. The same command again does only what is missing or was made of something else."""
import contextlib
import functools
import hashlib
import json
import logging
import time
from collections import namedtuple
from dataclasses import dataclass
from typing import Dict, List, Optional

import mrcfile
import numpy as np

import refmotion_plugin
from refmotion_plugin.contract import layout as files
from refmotion_plugin.contract.averages import AverageLayout, COLUMNS, bare_names, write_corrected_micrographs, write_movie_metadata
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.exchange import Exposure, read_weights
from refmotion_plugin.contract.layout import atomic_path, content_hash, file_stamp, mark_done, read_json, write_json
from refmotion_plugin.contract.records import DoseWeights, MovieMetadata
from refmotion_plugin.contract.spec import SCHEMA

from ..movies.patience import patiently
from ..movies.stack import load_movie
from ..stages.average import average_movie
from ..stages.budget import find_budget
from ..stages.memory import plan_averaging
from ..stages.patches import plan_frames
from .devices import choose_devices, describe, keep_freed_memory, set_threads
from .executor import run_here, run_on_workers
from .inputs import MovieCatalogue
from .lock import check_run, job_lock
from .plan import DONE, open_keys, plan
from .status import StatusLog
from .tasks import MRC_LABEL, TaskResult
from .workers import Crew, choose_workers

log = logging.getLogger(__name__)

STAGE = "average"
AverageOutcome = namedtuple("AverageOutcome", "failed written")
"""``failed`` {micrograph: reason}; ``written``: number of movies in corrected_micrographs.star."""


@dataclass(frozen=True)
class AverageTask:
    """One movie to average: its row in the list, the bare name of its micrograph, its optics group's position, its fingerprint."""

    movie: MovieMetadata
    row: int
    name: str
    source: str
    optics_group: int
    group: int
    mark: Optional[str] = None
    first_stage = STAGE


@dataclass(frozen=True)
class AveragePlace:
    """What every task needs."""

    spec: object
    layout: AverageLayout
    device: str
    threads: int
    weights: Optional[DoseWeights]
    run: Optional[str] = None

    @functools.cached_property
    def budget(self):
        """Memory this process may use."""
        return find_budget(self.spec.compute, self.device).measured()

    def load(self, task):
        """Decode the movie of a task."""
        return patiently(lambda: load_movie(task.movie, self.spec.inputs, threads=self.threads, held_bytes=self._memory(task).held_bytes),
                         self.spec.compute.read_timeout_seconds, "movie " + task.movie.movie_file)

    def room_ahead(self, task):
        """Whether memory allows to decode the movie of a task while another one is averaged."""
        return self._memory(task).ahead

    def _memory(self, task):
        return plan_averaging(self.budget, tuple(task.movie.size_yx), len(plan_frames(task.movie, self.spec.inputs)))


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
                status.event("stopped", reason=str(error) or type(error).__name__)
            raise
        status.event("finished", failed=len(outcome.failed))
        return outcome


class _Averaging:
    """One run: its tasks, and what became of them."""

    def __init__(self, spec, layout, status, run):
        keep_freed_memory()
        self.spec, self.layout, self.status, self.token = spec, layout, status, run
        self.devices, self.threads = choose_devices(spec.compute.device), set_threads(spec.compute.threads)
        self.workers = choose_workers(spec.compute, self.devices, self.threads)
        log.info(describe(self.devices, self.threads))
        catalogue = MovieCatalogue(spec.inputs.movies)
        self.weights = _given_weights(catalogue, spec)
        self.tasks = _tasks(catalogue, spec, layout, self.weights)
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
            data = read_json(self.layout.done(task.movie.key, STAGE))
            if isinstance(data, dict) and all(self.layout.micrograph(task.name, kind).exists() for kind in data.get("kinds", [])):
                found[task.movie.key] = data.get("fingerprint")
        return found

    def _announce(self, states):
        rows = [{"key": task.movie.key, "micrograph": task.movie.micrograph,
                 "state": "done" if states[task.movie.key] == DONE else "todo"} for task in self.tasks]
        rows += [{"key": name, "micrograph": name, "state": "todo"} for name in self.unreadable]
        self.status.event("movies", movies=rows)
        for name, reason in self.unreadable.items():
            log.error("movie %s failed: %s", name, reason)
            self.status.event(STAGE, movie=name, state="failed", reason=reason)

    def _run(self, tasks):
        self.status.begin(STAGE, len(tasks))
        names = {task.movie.key: task.movie.micrograph for task in tasks}
        with contextlib.nullcontext() if self.workers is None else Crew(self.workers) as crew:
            for result in self._results(tasks, crew):
                text = result.stages[STAGE]
                done = text == "done"
                self.status.event(STAGE, movie=result.key, state="done" if done else "failed", reason="" if done else text,
                                  seconds=round(result.seconds, 2))
                if not done:
                    self.failed[result.key] = text
                    log.error("movie %s failed: %s", names[result.key], text)
                self.status.advance()

    def _results(self, tasks, crew):
        if crew is not None:
            return run_on_workers(tasks, crew, functools.partial(_remote_place, self.spec, self.layout.folder, self.token, self.weights), average_task)
        place = AveragePlace(self.spec, self.layout, self.devices[0], self.threads, self.weights)
        return run_here(tasks, place, self.threads > 1 or self.devices[0] != "cpu", work=average_task)


def _remote_place(spec, folder, run, weights, device, threads):
    """A worker process's own place."""
    keep_freed_memory()
    return AveragePlace(spec, AverageLayout(folder), choose_devices(device)[0], set_threads(threads), weights, run)


# ---- before the first movie -------------------------------------------------------------------------------------------------

def _given_weights(catalogue, spec):
    """Measured weights, or None for the standard curve. Files without doses or frequencies get those of the first readable movie."""
    path = spec.dose.weights_file
    if path is None:
        return None
    movie = next((m for m in map(catalogue.get, range(len(catalogue.names))) if m is not None), None)
    if movie is None:
        raise InputError("no movie can be read; the first reason: %s" % next(iter(catalogue.faults.values())))
    exposure = Exposure(movie.dose_per_frame_e_per_A2,
                        movie.pre_exposure_e_per_A2 + (movie.start_frame - 1) * movie.dose_per_frame_e_per_A2)
    return read_weights(path, exposure, spec.dose.weights_pixel_angstrom or movie.original_pixel_angstrom, "power")


def _tasks(catalogue, spec, layout, weights):
    """One task per readable movie, with names and fingerprints."""
    groups = sorted({m.optics_group for m in catalogue.micrographs})
    n_weights = 1 if weights is None else len(weights.weight)
    if n_weights not in (1, len(groups)):
        raise InputError("dose weights %s have %d optics groups, the movies %d: give weights of one group or of the same groups"
                         % (spec.dose.weights_file, n_weights, len(groups)))
    rows = [i for i in range(len(catalogue.names)) if catalogue.get(i) is not None]
    movies = [catalogue.get(i) for i in rows]
    tasks: List[AverageTask] = []
    common = _common(spec)
    for row, movie, name in zip(rows, movies, bare_names(movies)):
        item = catalogue.micrographs[row]
        group = groups.index(item.optics_group) if n_weights > 1 else 0
        values = [common, group, name, _metadata(movie)]
        mark = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        tasks.append(AverageTask(movie, row, name, item.metadata_star, item.optics_group, group, mark))
    _check_keys(tasks)
    return tasks


def _check_keys(tasks):
    seen = {}
    for task in tasks:
        other = seen.setdefault(task.movie.key, task.movie.micrograph)
        if other != task.movie.micrograph:
            raise InputError("the micrographs %s and %s would share the name %s: rename one of them"
                             % (other, task.movie.micrograph, task.movie.key))


def _common(spec):
    """What decides every movie's average: parameters and files by what they hold, not by where they lie."""
    inputs = spec.inputs.model_dump(mode="json", exclude={"movies", "gain", "defects"})
    return [SCHEMA, refmotion_plugin.__version__, inputs, spec.output.model_dump(mode="json"), spec.dose.weights_pixel_angstrom,
            spec.dose.weights_file and content_hash(spec.dose.weights_file), file_stamp(spec.inputs.gain), file_stamp(spec.inputs.defects)]


def _metadata(movie):
    """What a movie's own file says of it; files by their stamps."""
    values = {name: file_stamp(value) if name.endswith("_file") else value for name, value in vars(movie).items()}
    return [[name, value.tolist() if isinstance(value, np.ndarray) else value] for name, value in sorted(values.items())]


# ---- one movie --------------------------------------------------------------------------------------------------------------

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
        log.exception("unexpected error in movie %s", task.movie.micrograph)
        text = "unexpected %s: %s (the full text is in %s)" % (type(error).__name__, str(error).split("\n")[0], place.layout.log.name)
    return TaskResult(task.movie.key, time.monotonic() - start, {STAGE: text})


def _average(task, place, stack):
    averaged = average_movie(task.movie, place.spec, stack, place.device, place.weights, task.group)
    check_run(place.layout, place.run)
    kind_of_number = np.float16 if place.spec.output.float16 else np.float32
    for kind, image in averaged.images.items():
        _write_mrc(place.layout.micrograph(task.name, kind), image.astype(kind_of_number, copy=False), averaged.pixel_angstrom)
    write_movie_metadata(place.layout.metadata(task.name), task.source, str(place.layout.micrograph(task.name, "weighted")),
                         averaged.binning)
    mark_done(place.layout.done(task.movie.key, STAGE), task.mark, kinds=list(averaged.images), binning=averaged.binning,
              pixel_angstrom=averaged.pixel_angstrom, size_yx=list(averaged.images["weighted"].shape))


def _write_mrc(path, image, pixel_angstrom):
    with atomic_path(path) as temporary:
        with mrcfile.new(str(temporary), overwrite=True) as file:
            file.set_data(image)
            file.header.label[0] = MRC_LABEL
            file.voxel_size = (pixel_angstrom, pixel_angstrom, 1.0)


def _write_lists(layout, spec, done):
    """corrected_micrographs.star for RELION and averages.json for our own reader."""
    rows, pixels, known = [], {}, []
    for task in done:
        notes = read_json(layout.done(task.movie.key, STAGE))
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
