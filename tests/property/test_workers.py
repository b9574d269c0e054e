"""n workers = 1 worker = none: the engine's own stages leave the same bytes wherever a movie is done."""
import hashlib

import pytest
import torch

from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.engine.simulate import SimulationSpec, simulate

DATA = SimulationSpec(movies=3, particles=6, frames=6, size_yx=(256, 288), box=64, pixel_angstrom=2.4, contrast_scale=1.5, seed=3,
                      reference_resolution_angstrom=8.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("data"), DATA).folder


def outputs(data, job, **compute):
    """(file -> SHA-256 of what a run with these parameters found, its log of events)."""
    part = {"particles": str(data / "particles.star"), **{name: str(data / (name + ".mrc")) for name in ("half1", "half2", "mask")}}
    spec = JobSpec.build({"inputs": {"movies": str(data / "MotionCorr" / "corrected_micrographs.star")}, "references": [part],
                          "output": {"tracks_star": True}, "compute": {"device": "cpu", "threads": 1, **compute}})
    assert run_job(job, spec).failed == {}
    files = [p for p in job.rglob("*") if p.suffix in (".npz", ".mrcs", ".star") or p.name.endswith(".done.json") or p.name == "hyperparameters.json"]
    return {str(p.relative_to(job)): hashlib.sha256(p.read_bytes().replace(str(job).encode(), b"JOB")).hexdigest() for p in files}


def test_one_worker_and_two_leave_the_bytes_of_the_serial_run(data, tmp_path):
    distributed = pytest.importorskip("distributed", reason="several workers need dask.distributed")
    serial = outputs(data, tmp_path / "serial")
    assert sum(name.endswith("polished.mrcs") for name in serial) == DATA.movies and "weights.npz" in serial
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster:
        one = outputs(data, tmp_path / "one", scheduler=cluster.scheduler_address)
    two = outputs(data, tmp_path / "two", workers=2, threads=2)
    assert one == serial and two == serial
    assert outputs(data, tmp_path / "pairs", workers=2, threads=4) == outputs(data, tmp_path / "pair", threads=2)
    assert torch.get_num_threads() == 2                     # the job itself computed as each of its two workers
    assert not JobLayout(tmp_path / "two").lock.read_bytes()
