"""The view of a movie that calibration leaves: taken by the alignment of the same movie, freed before another one's is made."""
import gc
import weakref
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from refmotion_plugin.engine.run.recipes import stage_recipes
from refmotion_plugin.engine.stages import align, calibrate, load
from refmotion_plugin.engine.stages.patches import PatchSpectra


@pytest.fixture
def made(monkeypatch):
    """Frames whose patches were transformed."""
    frames, real = [], PatchSpectra.each_part
    monkeypatch.setattr(PatchSpectra, "each_part", lambda self, f, use: frames.append(f) or real(self, f, use))
    yield frames
    align.forget_movies()


@pytest.fixture
def of(tiny):
    """Particles of each movie, the same objects whenever they are asked for, as a job's are."""
    particles = {movie.key: tiny.of(movie) for movie in tiny.movies}
    return lambda movie: particles[movie.key]


def _recalibrated(tiny, of):
    return calibrate.calibrate(tiny.movies, of, tiny.prepared)


def test_the_first_movie_takes_what_calibration_made_and_gives_the_same(tiny, of, aligned, made):
    job = _recalibrated(tiny, of)
    movie, frames = tiny.movies[0], len(set(made))
    made.clear()
    found = align.align_movie(movie, of(movie), job)
    assert not made
    again = align.align_movie(movie, of(movie), job)               # it serves once
    assert len(made) == frames > 2
    for result in (found, again):
        for name in ("displacement_yx_angstrom", "deviation_sd_angstrom"):
            assert np.array_equal(getattr(result.trajectories, name), getattr(aligned[0].trajectories, name))
        assert np.array_equal(result.fcc.cross, aligned[0].fcc.cross) and np.array_equal(result.fcc.power_movie, aligned[0].fcc.power_movie)


@pytest.mark.parametrize("change", ["movie", "particles", "spec", "references"])
def test_of_anything_else_it_is_freed_before_more_is_made(tiny, of, made, monkeypatch, change):
    job = _recalibrated(tiny, of)
    left = weakref.ref(align._kept[0][0].spectra)
    movie, particles = tiny.movies[0], of(tiny.movies[0])
    if change == "movie":
        movie, particles = tiny.movies[1], of(tiny.movies[1])
    elif change == "particles":
        particles = replace(particles)
    elif change == "spec":
        job = replace(job, spec=job.spec.model_copy())
    else:
        job = replace(job, references=tuple(list(job.references)))
    there = []
    real = align.predictions
    monkeypatch.setattr(align, "predictions", lambda *args: there.append(gc.collect() and False or left()) or real(*args))
    align.view_movie(movie, particles, job)
    assert there == [None] and not align._kept


def test_it_is_forgotten_with_the_decoded_frames(tiny, of, made):
    _recalibrated(tiny, of)
    left = weakref.ref(align._kept[0][0].spectra)
    stage_recipes().forget_movies()
    gc.collect()
    assert left() is None


def test_memory_is_freed_without_the_frames_on_the_disk(monkeypatch):
    monkeypatch.setattr(align, "_kept", ["a view"])
    monkeypatch.setattr(load, "_kept", OrderedDict(memory=SimpleNamespace(held_bytes=1), disk=SimpleNamespace(held_bytes=0)))
    stage_recipes().free_memory()
    assert not align._kept and list(load._kept) == ["disk"]


def test_frames_come_from_the_stack_that_is_given_later(tiny, of, made):
    job = _recalibrated(tiny, of)
    movie, stack = tiny.movies[0], object.__new__(_Stack)
    view = align.view_movie(movie, of(movie), job, stack)
    assert view.spectra.stack is stack and stack.asked == [str(job.device)]


class _Stack:
    """Nothing but the request to keep frames on a device."""

    asked = ()

    def keep_on(self, device, most_bytes):
        self.asked = [str(device)]
