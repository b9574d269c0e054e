"""Where tasks run: the next movie is decoded ahead but never more than one, faults stay with their movie."""
import sys
import threading

import pytest

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.engine.run.devices import choose_devices, describe, set_threads
from refmotion_plugin.engine.run.executor import run_here, run_on_devices
from refmotion_plugin.engine.run.inputs import read_inputs
from refmotion_plugin.engine.run.tasks import MovieTask, Workplace

from tests.unit.job_stand_ins import FakePrepared, FakeStages, write_project


def tasks_and_place(folder, fake, movies=4):
    spec = write_project(folder / "project", movies=movies)
    inputs = read_inputs(spec, fake.recipes().outside_movie)
    tasks = [MovieTask(m, inputs.particles[m.key], "mark") for m in inputs.movies]
    return tasks, Workplace(fake.recipes(), FakePrepared(spec, amplitudes=(1.0,)), JobLayout(folder / "OUT"), 1)


@pytest.mark.parametrize("ahead", [False, True])
def test_results_come_in_order_whatever_the_way(tmp_path, ahead):
    fake = FakeStages(broken={1: MovieError("broken")}, broken_in="load")
    tasks, place = tasks_and_place(tmp_path, fake)
    results = list(run_here(tasks, place, ahead))
    assert [r.key for r in results] == [t.movie.key for t in tasks]
    assert [r.stages["align"] for r in results] == ["done", "broken", "done", "done"]


def test_one_movie_is_decoded_ahead_in_a_thread(tmp_path):
    fake, threads = FakeStages(), []
    load, align = fake.load_stack, fake.align_movie
    second = threading.Event()

    def watched_load(movie, prepared):
        threads.append(threading.current_thread().name)
        stack = load(movie, prepared)
        if movie.micrograph == "M/mic_1.mrc":
            second.set()
        return stack

    def watched_align(movie, *args, **kwargs):
        if movie.micrograph == "M/mic_0.mrc":
            assert second.wait(10)                          # the next movie is decoded while this one is aligned
            assert ("load", 2) not in fake.calls            # and no further one
        return align(movie, *args, **kwargs)

    fake.load_stack, fake.align_movie = watched_load, watched_align
    tasks, place = tasks_and_place(tmp_path, fake)
    assert all(r.stages == {"align": "done"} for r in run_here(tasks, place, True))
    assert all(name.startswith("decode") for name in threads)


def test_no_tasks(tmp_path):
    assert list(run_here([], None, True)) == []


def test_stopping_in_the_middle_ends_the_thread(tmp_path):
    fake = FakeStages(broken={1: InputError("stop")})
    tasks, place = tasks_and_place(tmp_path, fake)
    with pytest.raises(InputError, match="stop"):
        list(run_here(tasks, place, True))
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_several_devices_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(InputError, match=r"several devices \(cuda:0, cuda:1\) need dask.distributed"):
        list(run_on_devices([], ["cuda:0", "cuda:1"], None))


class FakePlaceMaker:
    """Makes the workplace of a worker process; movie 2 ends its process."""

    def __init__(self, place):
        self.place = place

    def __call__(self, device):
        fake = FakeStages()
        align = fake.align_movie

        def deadly(movie, *args, **kwargs):
            if movie.micrograph == "M/mic_2.mrc":
                import os
                os._exit(9)
            return align(movie, *args, **kwargs)

        fake.align_movie = deadly
        return Workplace(fake.recipes(), self.place[0], self.place[1], 1)


@pytest.mark.slow
def test_a_dead_worker_costs_its_movie_only(tmp_path):
    pytest.importorskip("distributed", reason="several devices need dask.distributed")
    tasks, place = tasks_and_place(tmp_path, FakeStages())
    results = {r.key: r.stages["align"] for r in run_on_devices(tasks, ["a", "b"], FakePlaceMaker((place.prepared, place.layout)))}
    assert [results["M_mic_%d" % i] == "done" for i in range(4)] == [True, True, False, True]
    assert "worker process ended twice" in results["M_mic_2"]


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_devices("auto") == ["cpu"] == choose_devices("CPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_devices("auto") == ["cuda:0"] == choose_devices("cuda") and choose_devices("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    for name, part in (("cuda:2", "sees 2 GPU"), ("cuda:0,cuda:0", "twice"), ("cpu,cuda", "not known"), ("cuda:x", "not known")):
        with pytest.raises(InputError, match=part):
            choose_devices(name)


def test_threads():
    import torch
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1 == torch.get_num_threads() and set_threads(0) >= 1
        assert "torch %s on cpu (CPU), 1 CPU threads" % torch.__version__ == describe(["cpu"], 1)
    finally:
        torch.set_num_threads(before)
