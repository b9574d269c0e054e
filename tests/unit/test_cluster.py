"""SLURM workers: the script that is submitted, and a job on a stand-in for sbatch that runs scripts at once."""
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dask_jobqueue", reason="SLURM workers need dask-jobqueue")

from refmotion_plugin.contract.cluster_spec import ClusterSpec  # noqa: E402
from refmotion_plugin.contract.spec import ComputeSpec  # noqa: E402
from refmotion_plugin.engine.run.executor import run_on_workers  # noqa: E402
from refmotion_plugin.engine.run.workers import Crew, choose_workers, preload  # noqa: E402

from tests.unit.job_stand_ins import FakeStages  # noqa: E402
from tests.unit.test_job_executor import FakePlaceMaker, tasks_and_place  # noqa: E402

SBATCH = """#!/bin/sh
script=$(cat "$1")
printf '%s\\n' "$script" > "{folder}/script.$$"
setsid sh -c "$script" > "{folder}/output.$$" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do echo "$job" >> "{folder}/cancelled"; kill -- -"$job" 2> /dev/null; done
exit 0
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = folder / name
        path.write_text(text.format(folder=folder))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", "%s:%s" % (folder, os.environ["PATH"]))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))      # workers are given classes of the tests
    return folder


def test_movies_are_done_by_slurm_jobs(tmp_path, slurm):
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=2)
    place.layout.folder.mkdir()
    (tmp_path / "cluster.json").write_text(json.dumps({
        "jobs": 1, "queue": "gpu", "account": "em", "cores": 3, "memory": "4GB", "walltime": "1:00:00", "interface": "lo",
        "directives": ["--gres=gpu:1"], "prologue": ["export FROM_PROLOGUE=1"], "log_directory": str(tmp_path / "log")}))
    workers = choose_workers(ComputeSpec(cluster=str(tmp_path / "cluster.json"), device="cpu"), ["cpu"], 1)
    assert (workers.device, workers.threads) == ("cpu", 3)
    with Crew(workers) as crew:
        results = [r.stages for r in run_on_workers(tasks, crew, FakePlaceMaker(place.prepared, place.layout))]
    assert results == [{"align": "done"}] * 2
    script = next(slurm.glob("script.*")).read_text()
    for line in ("#SBATCH -p gpu", "#SBATCH -A em", "#SBATCH --cpus-per-task=3", "#SBATCH --mem=4G", "#SBATCH -t 1:00:00",
                 "#SBATCH --gres=gpu:1", "export FROM_PROLOGUE=1"):
        assert line in script, line
    assert "--nthreads 1" in script
    assert "--preload %s" % shlex.quote(preload()) in script
    assert (slurm / "cancelled").exists()                       # what is left of the workers ends with the run


def test_a_cluster_file_has_an_example_in_the_documents():
    text = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    example = text.split("```json\n")[1].split("```")[0]
    assert ClusterSpec.build(json.loads(example)).jobs > 1


def test_a_worker_finds_the_package_though_it_is_not_installed():
    lines = preload() + "; import refmotion_plugin.contract.errors as found; print(found.__file__)"
    alone = [sys.executable, "-I", "-S", "-c"]
    assert subprocess.run(alone + ["import refmotion_plugin"], capture_output=True).returncode != 0
    said = subprocess.run(alone + [lines], capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()).resolve().parents[1] == Path(__file__).resolve().parents[2] / "refmotion_plugin"
