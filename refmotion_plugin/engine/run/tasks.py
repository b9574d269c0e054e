"""One movie, one or two stages: the unit of work of a job. Arrays go to files, what is returned is small."""
import errno
import functools
import logging
import os
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import Dict, Optional

import numpy as np

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import JobLayout, along_input_beside, located, mark_done
from refmotion_plugin.contract.motion_summary import movie_motion
from refmotion_plugin.contract.records import DoseWeights, MovieMetadata, ParticleTable
from refmotion_plugin.contract.store import load_trajectories, save_fcc, save_judged, save_thumbnail, save_trajectories

from ..movies.patience import patiently
from .devices import blame
from .lock import check_run
from .mrc_files import write_mrc

log = logging.getLogger(__name__)

_hung = set()       # (folder, token of the run) of jobs whose micrographs lie on a file system that did not answer this process


@dataclass(frozen=True)
class MovieTask:
    """Stages to run on a movie: those whose fingerprint is given."""

    movie: MovieMetadata
    particles: ParticleTable
    align_mark: Optional[str] = None
    polish_mark: Optional[str] = None

    @property
    def first_stage(self):
        """The stage that is run first."""
        return "align" if self.align_mark is not None else "polish"


@dataclass(frozen=True)
class TaskResult:
    """What became of a task: stage -> "done" or the reason of its failure."""

    key: str
    seconds: float
    stages: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Workplace:
    """What every task of a job needs: recipes, prepared job, files, weights."""

    recipes: object
    prepared: object
    layout: JobLayout
    n_references: int
    weights: Optional[DoseWeights] = None
    float16: bool = False
    along_input: bool = False       # images along the input motion too, to compare with
    run: Optional[str] = None       # token of the run whose worker this is; none: in the run's own process

    def load(self, task):
        """Decode the movie of a task."""
        again = task.polish_mark is None and self.prepared.spec.output.stop_after == "particles"
        return self.recipes.load_stack(task.movie, self.prepared, n_particles=len(task.particles), needed_again=again)

    def room_ahead(self, task):
        """Whether memory allows to decode the movie of a task while another one is worked on."""
        return self.recipes.room_ahead(task.movie, len(task.particles), self.prepared)


def run_task(task, place, load_stack):
    """Do a task; ``load_stack()`` gives its decoded movie. A fault of the movie is a result, not an exception.

    InputError passes (the job cannot go on), as do interrupts.
    """
    return begin_task(task, place, load_stack)()


def begin_task(task, place, load_stack):
    """Compute what a task asks for; returns a function that writes it to files and gives the :class:`TaskResult`, as :func:`run_task` does.

    Files wait for disks, so another task may be computed meanwhile.
    """
    start, stage, writes, fault = time.monotonic(), task.first_stage, [], None
    try:
        stack, trajectories = load_stack(), None
        if task.align_mark is not None:
            trajectories, write = _align(task, place, stack)
            writes.append((stage, write))
        if task.polish_mark is not None:
            stage = "polish"
            writes.append((stage, _polish(task, place, stack, trajectories)))
    except Exception as error:
        fault, stack, trajectories = (stage, blame(error, _devices(place.prepared))), None, None
        _empty_frames(error)
    return functools.partial(_finish, task, place, start, writes, fault)


def _devices(prepared):
    """Devices that a movie is worked on: its own, and those of the references."""
    return [prepared.device] + [reference.spectrum.device for reference in prepared.references]


def _empty_frames(error):
    """Functions that an error passed through hold decoded movies and more, which the next movie has not been planned beside; their lines are kept."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _finish(task, place, start, writes, fault):
    """Write what was computed before a ``fault``, None or (stage, exception)."""
    stages = {}
    try:
        for stage, write in writes:
            _with_room(write, place)
            stages[stage] = "done"
        if fault is not None:
            stage, error = fault
            raise error
    except InputError:
        raise
    except MovieError as error:
        stages[stage] = str(error)
    except Exception as error:      # a fault we did not foresee must cost one movie, not the job
        log.error("unexpected error in movie %s", task.movie.micrograph, exc_info=error)
        stages[stage] = ("unexpected %s: %s (the full text is in %s)"
                         % (type(error).__name__, str(error).split("\n")[0], place.layout.log.name))
    return TaskResult(task.movie.key, time.monotonic() - start, stages)


def _with_room(work, place):
    """``work()``; where the disk is full, once more without the decoded frames that wait in temporary files, which may be on the same disk."""
    try:
        return work()
    except InputError as error:
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full or place.recipes.forget_movies is None:
            raise
        log.warning("%s; once more without the decoded frames in temporary files", str(error).partition(":")[0])
    place.recipes.forget_movies()       # after the handler: the error's traceback holds frames
    return work()


def _align(task, place, stack):
    """Trajectories of a movie, and a function that writes them with all that belongs to them."""
    aligned = place.recipes.align_movie(task.movie, task.particles, place.prepared, stack=stack)
    trajectories = aligned.trajectories
    if not np.isfinite(trajectories.displacement_yx_angstrom).all():
        raise MovieError("trajectories of %s are not finite: check the movie" % task.movie.micrograph)
    if not all(np.isfinite(getattr(aligned.fcc, name)).all() for name in ("cross", "power_movie", "power_reference")):
        raise MovieError("the correlation of %s with the reference is not finite: check the movie" % task.movie.micrograph)
    return trajectories, functools.partial(_write_aligned, task, place, aligned, _thumbnail(task.movie, place, stack))


def _write_aligned(task, place, aligned, thumbnail):
    trajectories, key = aligned.trajectories, task.movie.key
    check_run(place.layout, place.run)
    place.layout.done(key, "align").unlink(missing_ok=True)     # before the first file: it speaks of those that are replaced now
    save_trajectories(place.layout.trajectories(key), trajectories)
    save_fcc(place.layout.fcc(key), aligned.fcc)
    if aligned.judged is not None:
        save_judged(place.layout.judged(key), aligned.judged)
    else:
        place.layout.judged(key).unlink(missing_ok=True)        # of another alignment
    place.layout.tracks(key).unlink(missing_ok=True)            # likewise; written at the end, where they are asked for
    if thumbnail is not None:
        save_thumbnail(place.layout.thumbnail(key), *thumbnail)
    mark_done(place.layout.done(key, "align"), task.align_mark, **dict(
        aligned.notes, stop_reason=trajectories.stop_reason, particles=len(task.particles), motion=movie_motion(trajectories)._asdict()))


def _thumbnail(movie, place, stack):
    """A small average of the movie, where there is no micrograph to look at; else None."""
    if place.recipes.thumbnail is None or _has_micrograph(movie, place):
        return None
    plan = place.recipes.plan_frames(movie, place.prepared.spec.inputs)
    return place.recipes.thumbnail(movie, stack, plan, place.prepared.device)


def _has_micrograph(movie, place):
    """Whether there is a micrograph to look at. Where its file system hangs there is none, and this process looks for no other of the job: they would hang as long."""
    spec, job = place.prepared.spec, (str(place.layout.folder), place.run)
    if job in _hung:
        return False
    try:
        return patiently(lambda: os.path.exists(str(located(movie.micrograph, spec.inputs.movies))), spec.compute.read_timeout_seconds,
                         "micrograph " + movie.micrograph)
    except MovieError as error:
        log.warning("%s; small averages are made of the movies", error)
        _hung.add(job)
        return False


def _polish(task, place, stack, trajectories):
    """A function that writes the movie's polished images."""
    trajectories = _stored_trajectories(place.layout, task.movie.key) if trajectories is None else trajectories
    sets = []
    for reference in range(place.n_references):
        index = np.flatnonzero(task.particles.reference == reference)
        if len(index):
            particles, tracks = task.particles[index], rows_of(trajectories, index)
            polished = place.recipes.polish_movie(task.movie, particles, tracks, place.weights, place.prepared, stack=stack)
            before = place.recipes.polish_along_input(task.movie, particles, tracks, place.prepared, stack=stack) if place.along_input else None
            sets.append((reference, particles.row, polished, before))
    return functools.partial(_write_polished, task, place, sets)


def _write_polished(task, place, sets):
    check_run(place.layout, place.run)
    place.layout.done(task.movie.key, "polish").unlink(missing_ok=True)
    written = [_write_stack(place, task.movie.key, *one) for one in sets]
    _remove_other_stacks(place, task.movie.key, {part["reference"] for part in written if part["rows"]})
    mark_done(place.layout.done(task.movie.key, "polish"), task.polish_mark, references=written)


def _remove_other_stacks(place, key, references):
    """Remove the movie's images of references that have none now, or of another number of references."""
    kept = {place.layout.polished(key, reference, place.n_references) for reference in references}
    for stack in place.layout.movie(key).glob("polished*.mrcs"):
        if stack not in kept:
            stack.unlink()
            along_input_beside(stack).unlink(missing_ok=True)


def _stored_trajectories(layout, key):
    """What the align stage left; damaged files cost their movie, and are made anew by the next run."""
    try:
        return load_trajectories(layout.trajectories(key))
    except InputError as error:
        layout.done(key, "align").unlink(missing_ok=True)
        raise MovieError("%s: the same command aligns the movie anew" % error) from None


def rows_of(trajectories, index):
    """Trajectories of some of a movie's particles."""
    per_particle = ("reference", "row", "position_yx_angstrom", "displacement_yx_angstrom", "deviation_sd_angstrom",
                    "initial_yx_angstrom", "motion_sd_angstrom")
    return replace(trajectories, **{name: getattr(trajectories, name)[index] for name in per_particle if getattr(trajectories, name) is not None})


def _write_stack(place, key, reference, rows, polished, before):
    """Write the good images of one reference, and those ``before`` of the same particles; returns what the particle STAR file needs to know."""
    images, rejected = np.asarray(polished.images, dtype=np.float32), dict(polished.rejected)
    power = np.einsum("nyx,nyx->n", images, images)
    for i in np.flatnonzero(~(np.isfinite(power) & (power > 0))).tolist():
        rejected.setdefault(i, "its polished image is empty or not finite")
    kept = [i for i in range(len(images)) if i not in rejected]
    if kept:
        good = lambda all_of_them: all_of_them[kept] if rejected else all_of_them
        write_mrc(place.layout.polished(key, reference, place.n_references), good(images), polished.pixel_angstrom, place.float16)
        if before is not None:
            of_input = good(np.asarray(before.images, dtype=np.float32))
            write_mrc(place.layout.along_input(key, reference, place.n_references), of_input, before.pixel_angstrom, half=True)
    if not kept or before is None:
        place.layout.along_input(key, reference, place.n_references).unlink(missing_ok=True)        # of other images
    return {"reference": reference, "rows": [int(rows[i]) for i in kept], "pixel_angstrom": float(polished.pixel_angstrom),
            "box_px": int(images.shape[-1]), "rejected": [[int(rows[i]), rejected[i]] for i in sorted(rejected)]}
