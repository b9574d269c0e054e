"""What a job's own process does where movies are worked on: decoding stands back, torch keeps to one thread on the CPU."""
from types import SimpleNamespace

import pytest
import torch

from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.engine.run import distribute
from refmotion_plugin.engine.run.devices import torch_in_one_thread
from refmotion_plugin.engine.run.tasks import TaskResult


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("device, crew, expected", [("cpu", None, 1), ("cuda:0", None, 1), ("cuda:0", "a crew", 3)])
def test_torch_and_decoding_beside_the_work(monkeypatch, three_threads, device, crew, expected):
    seen, noted = {}, []

    def results(tasks, *place, **how):
        seen.update(how, threads=torch.get_num_threads(), work=place[-1])
        yield TaskResult("a", 1.0, {"align": "done"})

    for name in ("run_here", "run_on_workers"):
        monkeypatch.setattr(distribute, name, results)
    monkeypatch.setattr(distribute, "_workplace", lambda job: None)
    movie = SimpleNamespace(key="a", micrograph="M/a.mrc")
    crew = crew and SimpleNamespace(workers=SimpleNamespace(local=("cuda:0",) * 2))
    job = SimpleNamespace(inputs=SimpleNamespace(movies=[movie]), devices=[device], crew=crew, threads=3, failed={}, spec=None, run=None, weights=None,
                          layout=SimpleNamespace(folder="OUT"), recipes=SimpleNamespace(forget_movies=None),
                          status=SimpleNamespace(event=lambda *a, **k: noted.append(k["state"]), advance=lambda: noted.append("next")))
    distribute.run_tasks(job, [SimpleNamespace(movie=movie, align_mark="mark")])
    assert noted == ["done", "next"] and seen["threads"] == expected and torch.get_num_threads() == 3
    assert crew or (seen["stand_back"], seen["ahead"]) == (True, True)
    if crew:                # in the worker, whose place was made with all its threads
        monkeypatch.setattr(distribute, "run_task", lambda *task: (torch.get_num_threads(), task))
        assert seen["work"]("task", "place", "load") == (1, ("task", "place", "load")) and torch.get_num_threads() == 3


def test_threads_are_given_back_whatever_happens(three_threads):
    with pytest.raises(KeyError), torch_in_one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 3
    with torch_in_one_thread(False):
        assert torch.get_num_threads() == 3


def test_a_worker_forgets_what_it_prepared_before_its_memory_is_planned_anew(monkeypatch, tmp_path):
    """Of another run all of it; of the same run, as when the dose weights become known, not what waits on the disk."""
    order = []
    recipes = SimpleNamespace(outside_movie=None, forget_movies=lambda: order.append("forget"), free_memory=lambda: order.append("free memory"),
                              prepare=lambda *of: order.append("prepare") or 1 / 0)
    monkeypatch.setattr(distribute, "stage_recipes", lambda: recipes)
    monkeypatch.setattr(distribute, "read_inputs", lambda *of: SimpleNamespace(sets=()))
    monkeypatch.setattr(distribute, "release", lambda device: order.append("release " + device))
    spec = JobSpec.build({"inputs": {"movies": "m.star"}, "references": [{"particles": "p.star", "half1": "a.mrc", "half2": "b.mrc"}]})
    for run, first in (("run", "forget"), ("run", "free memory"), ("another run", "forget")):
        order.clear()
        with pytest.raises(ZeroDivisionError):
            distribute._remote_workplace(tmp_path, run, spec, None, 2, device="cpu", threads=1)
        assert order == [first, "release cpu", "prepare"]
