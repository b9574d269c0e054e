"""Inputs that grow while the protocols run: every movie and particle once, outputs open until the end, Continue after a kill."""
import os
import signal
import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pwem.objects import SetOfParticles
from pwem.protocols import ProtImportMovies, ProtImportParticles
from pyworkflow.utils import isProcessAlive

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import write_json
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec
from refmotion_plugin.contract.startable import read_tables
from refmotion_plugin.contract.store import save_hyperparameters, save_weights
from refmotion_plugin.headless import new_protocol
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters

from .fake_engine import BOX
from .growing_sets import GrowingSet, wait_for


@pytest.fixture(scope="module")
def results(imported, tmp_path_factory):
    """A protocol that holds hyperparameters and dose weights, as an earlier run would."""
    project, folder = imported[0], tmp_path_factory.mktemp("earlier")
    save_hyperparameters(folder / "hyperparameters.json", DEFAULT_HYPERPARAMETERS)
    flat = np.ones((1, 5))
    record = DoseWeights(np.full((1, 5, 9), 0.2), np.linspace(0.0, 0.4, 9), np.arange(5) + 0.5, flat, flat, flat, flat, "sum", "test")
    save_weights(folder / "weights.npz", record)
    holder = project.newProtocol(ProtImportMovies)
    project.saveProtocol(holder)
    holder.makeWorkingDir()
    hyperparameters, weights = MotionHyperparameters(), EmpiricalDoseWeights()
    hyperparameters.setRecord(DEFAULT_HYPERPARAMETERS)
    hyperparameters.setFileName(str(folder / "hyperparameters.json"))
    weights.setRecord(record)
    weights.setFileName(str(folder / "weights.npz"))
    holder._defineOutputs(outputHyperparameters=hyperparameters, outputDoseWeights=weights)
    holder.setStatus("finished")
    project._storeProtocol(holder)
    return holder


@pytest.fixture
def stream(in_project, results, fake_engine):
    """Growing movies and particles, and a protocol connected to them: (movies, particles, protocol)."""
    project, source, volume, _ = in_project
    movies = GrowingSet(project, ProtImportMovies, "outputMovies", source.outputMovies, lambda movie: movie.getObjId() == 1)
    particles = GrowingSet(project, ProtImportParticles, "outputParticles", source.outputParticles, lambda p: p.getMicId() == 1)
    protocol = new_protocol(project, "ProtReferenceMotionCorrection", inputMovies=movies.pointer, inputParticles=particles.pointer,
                            inputVolume=(volume, "outputVolume"), useGpu=False, numberOfThreads=1, batchMovies=1, batchPatience=1.0,
                            inputHyperparameters=(results, "outputHyperparameters"), inputDoseWeights=(results, "outputDoseWeights"), firstParticles=1)
    return movies, particles, protocol


def output_now(protocol, name="outputParticles", file_name="particles.sqlite"):
    """The output as its file has it, or None."""
    path = protocol._getPath(file_name)
    if not os.path.exists(path):
        return None
    from pwem.objects import SetOfMicrographs, SetOfParticles
    found = (SetOfParticles if "articles" in name else SetOfMicrographs)(filename=path)
    found.loadAllProperties()
    return found


def size_now(protocol):
    found = output_now(protocol)
    return 0 if found is None else found.getSize()


def ended(project, protocol):
    """Wait until the run is over; the protocol as it ended. A process that ends while the host looks is taken for dead: it is not looked at before."""
    project._updateProtocol(protocol)
    wait_for(lambda: not isProcessAlive(protocol.getPid()))
    project._updateProtocol(protocol)
    return protocol


def assert_complete(protocol, ids):
    """The output is closed, holds each of the particles once, and so does the file that the engine was given."""
    output = protocol.outputParticles
    assert output.isStreamClosed() and output.getSize() == len(ids)
    found = output_now(protocol)
    assert [p.getObjId() for p in found] == sorted(ids)
    stacks = [(p.getFileName(), p.getIndex()) for p in found.iterItems()]
    assert len(set(stacks)) == len(ids) and all(os.path.exists(name) for name, _ in stacks)
    assert output.getDim()[:2] == found.getDim()[:2] == (BOX, BOX)          # of the new images, after each batch
    rows = read_tables(protocol._getExtraPath("inputs", "particles_1.star"))["particles"].integers("rlnParticleId").tolist()
    assert sorted(rows) == list(range(1, 13))


def calls(protocol):
    with open(protocol._getExtraPath("job", "calls.txt"), encoding="utf-8") as file:
        return [line.split()[0] for line in file]


def test_outputs_grow_with_the_inputs_and_close_with_them(stream, in_project):
    movies, particles, protocol = stream
    assert protocol.validate() == [] and protocol.worksInStreaming()
    in_project[0].launchProtocol(protocol, wait=False)
    wait_for(lambda: size_now(protocol) == 6)
    assert output_now(protocol).isStreamOpen()
    movies.add(lambda movie: movie.getObjId() == 2)
    particles.add(lambda p: p.getMicId() == 2 and p.getObjId() < 8)
    wait_for(lambda: size_now(protocol) == 9)
    particles.add(lambda p: p.getMicId() == 2 and p.getObjId() >= 8)        # of a movie that was done: it is done again
    movies.close()
    particles.close()
    ended(in_project[0], protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert_complete(protocol, range(1, 13))
    assert calls(protocol) == ["all"] * 3
    assert JobSpec.read(protocol._getExtraPath("job", "job.json")).inputs.growing
    assert "12 particles written" in "\n".join(protocol.summary())
    protocol.makePathsAndClean()            # Continue: nothing has changed
    assert protocol.outputParticles.getSize() == 12 and os.path.exists(protocol.getStepsFile())
    protocol.searchRadius.set(9.0)
    protocol.makePathsAndClean()
    assert not hasattr(protocol, "outputParticles") and not os.path.exists(protocol.getStepsFile())


def test_continue_after_a_kill_loses_and_repeats_nothing_and_a_failed_movie_is_listed(stream, in_project, fake_engine):
    movies, particles, protocol = stream
    project = in_project[0]
    fake_engine("fail:m1")
    project.launchProtocol(protocol, wait=False)
    wait_for(lambda: size_now(protocol) == 6)
    project._updateProtocol(protocol)
    os.kill(protocol.getPid(), signal.SIGKILL)
    project.stopProtocol(protocol)
    movies.add(lambda movie: movie.getObjId() == 2)
    particles.add(lambda p: p.getMicId() == 2)
    movies.close()
    particles.close()
    project.launchProtocol(protocol, wait=True)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert_complete(protocol, range(1, 12, 2))
    assert [s.funcName.get() for s in protocol.loadSteps()] == ["closeStreamStep", "streamBatchStep", "streamBatchStep"]
    assert "m1.mrc: movie m1 ends after frame 3 of 5" in "\n".join(protocol.summary())
    fake_engine("")
    project.launchProtocol(protocol, wait=True)         # Continue: the movie is whole now
    assert_complete(protocol, range(1, 13))


def test_a_movie_that_never_came_and_changed_parameters(stream, in_project, fake_engine):
    """Particles without a movie are given to the job in the end, so that it lists them; other parameters begin anew."""
    movies, particles, protocol = stream
    project = in_project[0]
    particles.add(lambda p: p.getMicId() == 2)
    fake_engine("crash:polish")
    project.launchProtocol(protocol, wait=True)
    assert protocol.isFailed() and "exit code 1" in protocol.getErrorMessage()
    fake_engine("")
    protocol.searchRadius.set(9.0)
    project.launchProtocol(protocol, wait=False)
    wait_for(lambda: size_now(protocol) == 6)
    movies.close()
    particles.close()
    ended(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert_complete(protocol, range(1, 12, 2))
    assert JobSpec.read(protocol._getExtraPath("job", "job.json")).alignment.search_radius_angstrom == 9.0
    assert calls(protocol) == ["all"] * 3       # the crash, then the movie, and then the particles that are left


@pytest.mark.parametrize("name", ["ProtReferenceMotionCorrection", "ProtAverageMovies"])
def test_inputs_that_are_written_anew_do_not_go_on_with_a_stream(stream, in_project, name):
    """Continue with other parameters after the inputs were closed, and with the first ones again: their batches are not in the new files."""
    movies, particles, protocol = stream
    if name == "ProtAverageMovies":
        protocol = new_protocol(in_project[0], name, inputMovies=movies.pointer, useGpu=False, numberOfThreads=1)
    in_project[0].saveProtocol(protocol)
    os.makedirs(protocol._getExtraPath("inputs"))
    write_json(protocol._batchesFile(), {"key": protocol._streamKey(), "batches": [{"1": 6}]})
    movies.close()
    particles.close()
    assert protocol._isStreaming()
    protocol.convertInputStep("key")
    assert not protocol._isStreaming()


def with_second_reference(stream, in_project):
    """Particles of movie 2 alone as a second reference, still growing."""
    project, source, volume, _ = in_project
    second, protocol = GrowingSet(project, ProtImportParticles, "outputParticles", source.outputParticles, lambda p: p.getMicId() == 2), stream[2]
    protocol.numberOfReferences.set(1)
    for name, (holder, output) in (("inputParticles2", second.pointer), ("inputVolume2", (volume, "outputVolume"))):
        getattr(protocol, name).set(holder)
        getattr(protocol, name).setExtended(output)
    return second


def test_the_first_batch_has_particles_of_every_reference(stream, in_project):
    movies, particles, protocol = stream
    second = with_second_reference(stream, in_project)
    movies.add(lambda movie: movie.getObjId() == 2)
    in_project[0].launchProtocol(protocol, wait=False)
    wait_for(lambda: size_now(protocol) == 6)
    for growing in (movies, particles, second):
        growing.close()
    ended(in_project[0], protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert calls(protocol) == ["all"] and protocol.outputParticles.getSize() == protocol.outputParticles2.getSize() == 6
    assert protocol.outputParticles2.isStreamClosed()


def test_looking_at_growing_inputs_leaves_no_lock_on_them(stream, in_project):
    """Nobody could write to them: the program that fills them would wait for the end of this run."""
    movies, particles, protocol = stream
    movies.add(lambda movie: movie.getObjId() == 2)
    protocol._warnings()
    assert protocol.validate() == []
    protocol._jobData({"movies": "m.star", "references": [{"half1": "1", "half2": "2"}]})
    for growing in (movies, particles):
        with sqlite3.connect(growing.path, timeout=1.0) as other:
            other.execute("UPDATE Properties SET value = value")


def test_a_reference_without_any_particle_in_the_movies_is_named(stream, in_project):
    protocol = stream[2]
    with_second_reference(stream, in_project)
    in_project[0].saveProtocol(protocol)
    protocol.makeWorkingDir()
    with pytest.raises(InputError, match="Reference 2: none of its particles belongs"):
        protocol._extendInputs({1})


@pytest.mark.parametrize("output, size", [(None, 0), ("outputParticles", 0), ("outputParticles", 1), ("outputParticles2", 1)])
def test_one_reference_that_could_be_corrected_is_enough(stream, in_project, output, size, monkeypatch):
    protocol = stream[2]
    with_second_reference(stream, in_project)
    protocol._batches = SimpleNamespace(taken=[])
    monkeypatch.setattr(protocol, "_rememberSummary", lambda: None)
    if output is not None:
        particles = SetOfParticles(filename=":memory:")
        particles._size.set(size)
        setattr(protocol, output, particles)
    if size:
        protocol._streamEnd()
    else:
        with pytest.raises(RuntimeError, match="none belongs to one of the movies"):
            protocol._streamEnd()


def test_what_needs_all_movies_is_refused_while_they_grow(stream):
    protocol = stream[2]
    protocol.inputDoseWeights.set(None)
    protocol.inputHyperparameters.set(None)
    protocol.searchThoroughness.set(1)
    protocol.stopAfter.set(1)
    protocol.reconstruct.set(True)
    text = "".join(protocol.validate())
    for part in ("still grow", "no reconstruction", "dose weights", "instead of a search", "final processing stage", "or wait until"):
        assert part in text


@pytest.mark.parametrize("value, published", [(DEFAULT_HYPERPARAMETERS.velocity_sigma, []), (0.77, [0.77])])
def test_hyperparameters_that_were_changed_before_going_on_are_published(stream, monkeypatch, value, published):
    protocol, told = stream[2], []
    protocol.outputHyperparameters = MotionHyperparameters()
    protocol.outputHyperparameters.setRecord(DEFAULT_HYPERPARAMETERS)
    results = SimpleNamespace(hyperparameters=lambda: replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=value))
    layout = SimpleNamespace(particles=lambda *of: SimpleNamespace(exists=lambda: False))
    for name, stand_in in (("_runEngine", lambda stage: None), ("_results", lambda: results), ("_layout", lambda: layout),
                           ("_growingOutput", lambda *of: None), ("_publishHyperparameters", lambda: told.append(value))):
        monkeypatch.setattr(protocol, name, stand_in)
    protocol._runGrown()
    assert told == published
