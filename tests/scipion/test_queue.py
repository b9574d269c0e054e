"""The protocol in a queue, whole and step by step, with stand-ins for the queue's commands and for the engine."""
import os
import time

import pytest
import pyworkflow as pw

from refmotion_plugin.headless import new_protocol

SBATCH = """#!/bin/sh
# As a scheduler does: the job starts elsewhere with GPUs that it chose, its output goes to a file, its exit code is told to nobody.
echo "$1" >> {folder}/submitted.txt
CUDA_VISIBLE_DEVICES=6,7 setsid sh "$1" > {folder}/job_$$.log 2>&1 &
echo "Submitted batch job $!"
"""
SQUEUE = """#!/bin/sh
kill -0 "$1" 2>/dev/null && echo "$1 RUNNING" && exit
test -e {folder}/gone_"$1" || touch {folder}/gone_"$1"
test $(( $(date +%s) - $(stat -c %Y {folder}/gone_"$1") )) -lt 4 && echo "$1 COMPLETING"      # SLURM too lists a job a little longer
exit 0
"""
HOSTS = """[localhost]
PARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s
NAME = SLURM
MANDATORY = False
SUBMIT_COMMAND = {folder}/sbatch %_(JOB_SCRIPT)s
SUBMIT_TEMPLATE = #!/bin/sh
    #SBATCH --cpus-per-task=%_(JOB_THREADS)d
    #SBATCH --gres=gpu:%_(GPU_COUNT)s
    %_(JOB_COMMAND)s
CANCEL_COMMAND = kill %_(JOB_ID)s
CHECK_COMMAND = {folder}/squeue %_(JOB_ID)s
QUEUES = {{ "default": {{}} }}
"""


@pytest.fixture
def queue(tmp_path, monkeypatch, in_project):
    """A queue on this machine; returns the folder of its scripts."""
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("hosts.conf", HOSTS)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("SCIPION_HOSTS", str(tmp_path / "hosts.conf"))           # for the processes of the runs
    monkeypatch.setattr(pw.Config, "SCIPION_HOSTS", str(tmp_path / "hosts.conf"))
    project = in_project[0]
    before = project._hosts
    project._loadHosts(None)
    yield tmp_path
    project._hosts = before


def queued(protocol, by_step):
    """Send the whole protocol or its steps to the queue."""
    protocol._useQueue.set(True)
    protocol.setQueueParams(("default", {"QUEUE_FOR_JOBS": "Y" if by_step else "N"}))
    protocol.useGpu.set(True)
    protocol.gpuList.set("2 3")
    protocol.numberOfThreads.set(3)
    return protocol


def run(project, protocol, seconds=90):
    """Launch and follow until it ends."""
    project.launchProtocol(protocol, wait=True)
    end = time.monotonic() + seconds
    while protocol.isActive():
        assert time.monotonic() < end, "still %s: %s" % (protocol.getStatus(), protocol.getErrorMessage())
        time.sleep(0.3)
        project._updateProtocol(protocol)
    return protocol


def calls(protocol):
    """What the engine was asked for and saw: lines ``stage device threads=N visible=...``."""
    with open(protocol._getExtraPath("job", "calls.txt"), encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def submitted(queue):
    """Scripts that were given to the queue, in order."""
    return (queue / "submitted.txt").read_text().split()


EXPECTED = ["%s cuda:0,cuda:1 threads=3 visible=6,7" % stage for stage in ("movies", "weigh", "polish")]


def test_the_whole_protocol_in_a_queue(correction, in_project, fake_engine, queue):
    run(in_project[0], queued(correction, by_step=False))
    assert correction.isFinished(), correction.getErrorMessage()
    assert calls(correction) == EXPECTED and correction.outputParticles.getSize() == 12
    script, = submitted(queue)
    with open(script, encoding="utf-8") as file:
        text = file.read()
    assert "pw_protocol_run.py" in text and "--cpus-per-task=3" in text and "--gres=gpu:2" in text


def test_steps_in_a_queue_are_the_engine_alone(correction, in_project, fake_engine, queue):
    run(in_project[0], queued(correction, by_step=True))
    assert correction.isFinished(), correction.getErrorMessage()
    assert calls(correction) == EXPECTED and correction.outputParticles.getSize() == 12
    scripts = submitted(queue)
    assert len(scripts) == len(set(scripts)) == 3
    for script, stage in zip(scripts, ("movies", "weigh", "polish")):
        with open(script, encoding="utf-8") as file:
            text = file.read()
        assert "start_engine.py" in text and "--stage %s" % stage in text and "pw_protocol_run.py" not in text


@pytest.mark.parametrize("fault, sentence", [pytest.param("input-error", "holds 3 voxels that are not numbers", marks=pytest.mark.slow),
                                             ("crash:align", "ended without a word")])
def test_a_failure_in_the_queue_is_noticed(correction, in_project, fake_engine, queue, monkeypatch, fault, sentence):
    """The queue tells no exit code: the engine's own record does."""
    fake_engine(fault)
    run(in_project[0], queued(correction, by_step=True))
    assert correction.isFailed() and sentence in correction.getErrorMessage()
    assert len(submitted(queue)) == 1 and not hasattr(correction, "outputHyperparameters")


def test_an_old_reason_is_not_taken_for_a_new_one(correction, in_project, fake_engine):
    fake_engine("input-error")
    run(in_project[0], correction)
    assert "not numbers" in correction.getErrorMessage()
    fake_engine("crash:align")
    run(in_project[0], correction)
    assert correction.isFailed() and "exit code 1" in correction.getErrorMessage()


@pytest.mark.parametrize("form, device", [("0", "cuda:0"), ("1 0", "cuda:1,cuda:0"), ("0-2,5", "cuda:0,cuda:1,cuda:2,cuda:5"), ("", "cuda")])
def test_gpus_of_the_form_are_the_engines(correction, form, device):
    correction.useGpu.set(True)
    correction.gpuList.set(form)
    assert correction._device() == device
    correction.useGpu.set(False)
    assert correction._device() == "cpu"


def test_gpu_numbers_count_among_those_the_run_sees(correction, in_project, fake_engine, monkeypatch):
    """The engine's GPUs are the form's, counted through CUDA_VISIBLE_DEVICES, which nobody changes."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    correction.useGpu.set(True)
    correction.gpuList.set("1 0")
    correction.stopAfter.set(0)
    run(in_project[0], correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert calls(correction) == ["align cuda:1,cuda:0 threads=1 visible=4,5"]


def test_temporary_files_go_to_the_scratch_disk(correction, in_project, fake_engine, tmp_path, monkeypatch):
    scratch = tmp_path / "fast disk"
    scratch.mkdir()
    monkeypatch.setenv("SCIPION_SCRATCH", str(scratch))             # for the run's own process
    monkeypatch.setattr(pw.Config, "SCIPION_SCRATCH", str(scratch))
    correction.stopAfter.set(0)
    run(in_project[0], correction)
    assert correction.isFinished(), correction.getErrorMessage()
    with open(correction._getExtraPath("job", "scratch.txt"), encoding="utf-8") as file:
        used = file.read()
    assert used.startswith(str(scratch) + os.sep)
    assert os.listdir(scratch) == [] or os.listdir(used) == []      # the host clears it


@pytest.mark.slow
def test_averages_in_a_queue(in_project, queue, monkeypatch):
    """With the real engine, step by step."""
    pytest.importorskip("torch", reason="the engine is not installed in this interpreter")
    monkeypatch.delenv("REFMOTION_PYTHON", raising=False)
    protocol = new_protocol(in_project[0], "ProtAverageMovies", inputMovies=(in_project[1], "outputMovies"))
    queued(protocol, by_step=True).useGpu.set(False)
    run(in_project[0], protocol)
    assert len(submitted(queue)) == 1
    assert protocol.isFinished(), (protocol.getStatus(), protocol.getErrorMessage())
