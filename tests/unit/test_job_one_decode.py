"""On real movies: one decode or two, stage by stage or at once, with weights found or given, the images are the same."""
from dataclasses import replace

import mrcfile
import numpy as np
import pytest

from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.engine.run import distribute, leaders
from refmotion_plugin.engine.run.executor import at_once, run_here
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.engine.run.recipes import stage_recipes
from refmotion_plugin.engine.stages import load


@pytest.fixture
def spec(tiny, monkeypatch):
    """The first of the two movies leads."""
    monkeypatch.setattr(leaders, "LEAST_PARTICLES", 1)
    monkeypatch.setattr(leaders, "LEAST_MOVIES", 1)
    spec = tiny.prepared.spec
    return spec.model_copy(update={"dose": spec.dose.model_copy(update={"error_tolerance": 10.0}),
                                   "inputs": spec.inputs.model_copy(update={"preflight": False}),
                                   "compute": spec.compute.model_copy(update={"threads": 1, "device": "cpu", "scratch_gib": 0.0})})


def images(folder):
    """Images of all movies of a job, by file."""
    stacks = {}
    for path in JobResults(folder).stacks():
        with mrcfile.open(path) as file:
            stacks["/".join(path.parts[-2:])] = file.data.copy()
    return stacks


def assert_same(one, other):
    assert len(one) == 2 and list(one) == list(other)
    for name, stack in one.items():
        np.testing.assert_array_equal(stack, other[name])


def test_one_decode_is_two_decodes(tiny, spec, tmp_path, monkeypatch):
    decoded, real = [], load.load_movie
    monkeypatch.setattr(load, "load_movie", lambda movie, *args, **kwargs: decoded.append(movie.micrograph) or real(movie, *args, **kwargs))
    monkeypatch.setattr(load, "KEPT_BYTES", 0)
    run_job(tmp_path / "whole", spec)
    first, second = [m.micrograph for m in tiny.movies]
    once = decoded[-3:]                                             # the calibration had read both before
    assert once == [first, second, first]
    assert JobResults(tmp_path / "whole").weights().source.endswith("of 12 particles in 1 of 2 movies")
    for stage in ("align", "weigh", "polish"):
        run_job(tmp_path / "staged", spec, stage)
    assert_same(images(tmp_path / "whole"), images(tmp_path / "staged"))
    given = spec.model_copy(update={"dose": spec.dose.model_copy(update={"weights_file": str(tmp_path / "whole" / "weights.npz")})})
    run_job(tmp_path / "given", given)
    assert_same(images(tmp_path / "whole"), images(tmp_path / "given"))


def test_frames_on_disk_are_decoded_once(tiny, spec, tmp_path, monkeypatch):
    decoded, real = [], load.load_movie
    monkeypatch.setattr(load, "load_movie", lambda movie, *args, **kwargs: decoded.append(movie.micrograph) or real(movie, *args, **kwargs))
    run_job(tmp_path / "anew", spec)
    assert len(decoded) > 2
    decoded.clear()
    monkeypatch.setattr(load, "KEPT_BYTES", 0)
    run_job(tmp_path / "once", spec.model_copy(update={"compute": spec.compute.model_copy(update={"scratch_gib": 1.0})}))
    assert sorted(decoded) == [m.micrograph for m in tiny.movies]
    assert not load._kept
    assert_same(images(tmp_path / "anew"), images(tmp_path / "once"))


def test_a_worker_finds_frames_on_disk_when_the_weights_are_known(tiny, spec, tmp_path, monkeypatch):
    """Its workplace is made anew then. The worker is this process here, so the job's own part of it forgets nothing."""
    decoded, real = [], load.load_movie
    monkeypatch.setattr(load, "load_movie", lambda movie, *args, **kwargs: decoded.append(movie.micrograph) or real(movie, *args, **kwargs))
    monkeypatch.setattr(load, "KEPT_BYTES", 0)
    places = []

    def on_workers(tasks, crew, make, work):
        places.append(make)
        return run_here(tasks, make(device="cpu", threads=1), ahead=False, begin=at_once(work))

    monkeypatch.setattr(distribute, "run_on_workers", on_workers)
    spec = spec.model_copy(update={"compute": spec.compute.model_copy(update={"scratch_gib": 1.0, "workers": 2})})
    run_job(tmp_path / "OUT", spec, recipes=replace(stage_recipes(), forget_movies=None))
    first, second = [m.micrograph for m in tiny.movies]
    assert len(places) == 3 and sorted(decoded[:2]) == [first, second] and decoded[2:] == [first, second]
    load.forget_stacks()
