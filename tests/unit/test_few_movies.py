"""Few movies on one GPU are worked on by the job's own process, on several GPUs by one process each."""
from types import SimpleNamespace

import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.spec import ComputeSpec
from refmotion_plugin.engine.run import job
from refmotion_plugin.engine.run.workers import choose_workers
from refmotion_plugin.engine.stages import budget
from tests.unit.job_stand_ins import FakeStages, write_project


@pytest.mark.parametrize("movies, devices, asked, expected", [
    (budget.FEW_MOVIES - 1, ["cuda:0"], {}, 1), (budget.FEW_MOVIES, ["cuda:0"], {}, 0), (3, ["cuda:0", "cuda:1"], {}, 1), (3, ["cpu"], {}, 0),
    (budget.FEW_MOVIES, ["cuda:0", "cuda:1"], {}, 0), (3, ["cuda:0"], {"movies_per_gpu": 2}, 2), (3, ["cuda:0"], {"workers": 2}, 0),
    (3, ["cuda:0"], {"scheduler": "tcp://head:1"}, 0)])
def test_one_process_on_each_gpu_does_few_movies(movies, devices, asked, expected):
    compute, used = budget.for_few_movies(ComputeSpec(**asked), devices, movies)
    assert compute.movies_per_gpu == expected and used == devices


@pytest.mark.parametrize("movies, local", [(3, ("cuda:0", "cuda:1")), (1, None), (budget.FEW_MOVIES, ("cuda:0", "cuda:1") * 2)])
def test_several_large_gpus_have_no_more_workers_than_there_are_movies(monkeypatch, movies, local):
    monkeypatch.setattr(budget.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(budget.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=24 * budget.GIB))
    monkeypatch.setattr(budget.importlib.util, "find_spec", lambda name: name)
    workers = choose_workers(*budget.for_few_movies(ComputeSpec(), ["cuda:0", "cuda:1"], movies), 8)
    assert (workers and workers.local) == local


@pytest.mark.parametrize("few, alone", [(4, True), (3, False)])
def test_a_job_of_few_movies_on_a_large_gpu_has_no_workers(tmp_path, monkeypatch, few, alone):
    """Three movies; the GPU is pretended and would have two at a time."""
    gib, seen = 2 ** 30, []
    monkeypatch.setattr(budget, "FEW_MOVIES", few)
    monkeypatch.setattr(budget.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(budget.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * gib))
    monkeypatch.setattr(job, "devices_here", lambda compute: ["cuda:0"])
    monkeypatch.setattr(job, "describe", lambda devices, threads: "a pretended GPU")

    def stop(started, wanted, in_one_decode):
        seen.append((started.crew is None, budget.movies_at_once(started.spec.compute, 80 * gib)))
        raise InputError("seen")
    monkeypatch.setattr(job, "_run_stages", stop)
    with pytest.raises(InputError, match="seen"):
        job.run_job(tmp_path / "OUT", write_project(tmp_path / "project"), "all", FakeStages().recipes())
    assert seen == [(alone, 1 if alone else 2)]
