"""The protocol's steps and outputs, run in a process of its own as the host runs it, with a stand-in for the engine."""
import filecmp
import os

import pytest
from pwem.protocols import ProtImportParticles
from pyworkflow.object import RELATION_SOURCE, RELATION_TRANSFORM

from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS as PRIOR
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.headless import new_protocol
from refmotion_plugin.protocols.protocol_reference_motion_correction import LAST_STAGE, STAGES

from .conftest import correction_of
from .growing_sets import GrowingSet


def launch(project, protocol):
    """Run to the end, well or not."""
    project.launchProtocol(protocol, wait=True)
    return protocol


def calls(protocol):
    """Stages that the engine was asked for."""
    with open(protocol._getExtraPath("job", "calls.txt"), encoding="utf-8") as file:
        return [line.split()[0] for line in file]


def related(project, protocol, kind):
    """Names of the outputs that the protocol relates to its inputs in a way."""
    names = {output.getObjId(): name for name, output in protocol.iterOutputAttributes()}
    return {names[row["object_child_id"]] for row in project.mapper.getRelationsByCreator(protocol) if row["name"] == kind}


def test_outputs_relations_and_summary(correction, in_project, fake_engine):
    project = in_project[0]
    launch(project, correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert calls(correction) == ["movies", "weigh", "polish"]
    assert correction.outputHyperparameters.getStrengths() == (
        PRIOR.velocity_sigma, PRIOR.correlation_distance_angstrom, PRIOR.acceleration_sigma)
    assert correction.outputDoseWeights.getFrames() == 5
    assert correction.outputParticles.getSize() == 12 and correction.outputParticles.getSamplingRate() == pytest.approx(1.1)
    assert correction.outputParticles.getDim() == (32, 32, 1)
    summary = "\n".join(correction.summary())
    assert "2 of 2 movies aligned, 2 polished." in summary and "12 particles written, 0 left out." in summary
    assert "outputParticles" in summary and correction._citations() == ["Zivanov2019", "Grant2015"]
    assert related(project, correction, RELATION_TRANSFORM) == {"outputParticles"}
    assert related(project, correction, RELATION_SOURCE) == {"outputHyperparameters", "outputDoseWeights", "outputParticles"}


def test_motion_that_is_kept_is_not_told_as_corrected(correction, in_project, fake_engine):
    correction.rigidOnly.set(True)
    launch(in_project[0], correction)
    said = correction.methods()[0]
    assert said.startswith("Particles of 2 of 2 movies were summed along the movies' own alignment with dose weights measured") and "strengths" not in said
    assert "Hyperparameters" not in "\n".join(correction.summary()) and outputs_in_project(in_project[0], correction) == ["outputDoseWeights", "outputParticles"]


def test_half_map_1_is_that_of_half_set_1(correction, in_project, fake_engine, relion_folder):
    launch(in_project[0], correction)
    reference = JobSpec.read(correction._getExtraPath("job", "job.json")).references[0]
    for path, name in ((reference.half1, "half1.mrc"), (reference.half2, "half2.mrc"), (reference.mask, "mask.mrc")):
        assert filecmp.cmp(path, relion_folder[0] / name, shallow=False), name


def test_half_sets_and_ids_are_those_of_the_input(correction, in_project, fake_engine):
    launch(in_project[0], correction)
    source = {p.getObjId(): p._rlnRandomSubset.get() for p in in_project[1].outputParticles}
    assert {p.getObjId(): p._rlnRandomSubset.get() for p in correction.outputParticles} == source


def test_a_failed_movie_costs_its_particles_only_and_is_named(correction, in_project, fake_engine):
    fake_engine("fail:m1")
    launch(in_project[0], correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert correction.outputParticles.getSize() == 6
    summary = "\n".join(correction.summary())
    assert "1 movie failed:" in summary and "m1.mrc: movie m1 ends after frame 3 of 5" in summary


def test_continue_does_what_failed_and_nothing_else(correction, in_project, fake_engine):
    fake_engine("fail:m1")
    launch(in_project[0], correction)
    assert "Particles of 1 of 2 movies were corrected" in correction.methods()[0] and "measured on the particles" in correction.methods()[0]
    fake_engine("")
    launch(in_project[0], correction)
    assert correction.isFinished(), correction.getErrorMessage()
    stages = ["movies", "weigh", "polish"]
    assert calls(correction) == 2 * stages and correction.outputParticles.getSize() == 12 and "failed" not in "\n".join(correction.summary())
    launch(in_project[0], correction)
    assert calls(correction) == 2 * stages          # now nothing is left to do


def test_a_wrong_input_ends_the_run_with_the_engines_own_sentence(correction, in_project, fake_engine):
    fake_engine("input-error")
    launch(in_project[0], correction)
    assert correction.isFailed()
    assert "holds 3 voxels that are not numbers: give an intact map" in correction.getErrorMessage()


def test_continue_keeps_finished_steps_and_early_outputs(correction, in_project, fake_engine):
    fake_engine("crash:polish")
    launch(in_project[0], correction)
    assert correction.isFailed() and "exit code 1" in correction.getErrorMessage()
    assert correction.outputDoseWeights.getFrames() == 5 and not hasattr(correction, "outputParticles")
    fake_engine("")
    launch(in_project[0], correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert calls(correction) == ["movies", "weigh", "polish", "polish"] and correction.outputParticles.getSize() == 12


def test_a_changed_parameter_runs_the_stages_again(correction, in_project, fake_engine):
    fake_engine("crash:polish")
    launch(in_project[0], correction)
    fake_engine("")
    correction.searchRadius.set(7.0)
    launch(in_project[0], correction)
    assert calls(correction) == ["movies", "weigh", "polish", "movies", "weigh", "polish"]


def test_going_further_keeps_what_is_done(correction, in_project, fake_engine):
    correction.stopAfter.set(1)
    launch(in_project[0], correction)
    correction.stopAfter.set(2)
    correction.numberOfThreads.set(2)
    launch(in_project[0], correction)
    assert calls(correction) == ["align", "weigh", "polish"] and correction.outputParticles.getSize() == 12


def test_going_on_from_the_hyperparameters_aligns_the_movies(correction, in_project, fake_engine):
    correction.stopAfter.set(0)
    launch(in_project[0], correction)
    correction.stopAfter.set(2)
    launch(in_project[0], correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert calls(correction) == ["align", "movies", "weigh", "polish"] and correction.outputParticles.getSize() == 12


@pytest.mark.parametrize("stage, outputs", [(0, ["outputHyperparameters"]), (1, ["outputDoseWeights", "outputHyperparameters"])])
def test_final_processing_stage(correction, in_project, fake_engine, stage, outputs):
    correction.stopAfter.set(stage)
    launch(in_project[0], correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert sorted(name for name, _ in correction.iterOutputAttributes()) == outputs


def test_results_of_an_earlier_run_are_taken_and_movies_read_once(correction, in_project, fake_engine):
    launch(in_project[0], correction)
    project, movies, volume, mask = in_project
    second = new_protocol(project, "ProtReferenceMotionCorrection", inputMovies=(movies, "outputMovies"),
                          inputParticles=(movies, "outputParticles"), inputVolume=(volume, "outputVolume"), useGpu=False,
                          inputHyperparameters=(correction, "outputHyperparameters"), inputDoseWeights=(correction, "outputDoseWeights"))
    launch(project, second)
    assert second.isFinished(), second.getErrorMessage()
    assert calls(second) == ["all"] and "given dose weights" in second.methods()[0]
    assert [name for name, _ in second.iterOutputAttributes()] == ["outputParticles"]
    spec = JobSpec.read(second._getExtraPath("job", "job.json"))
    assert spec.motion_prior.hyperparameters_file == correction.outputHyperparameters.getFileName()
    assert spec.dose.weights_file == correction.outputDoseWeights.getFileName() and spec.references[0].mask is None


def test_two_references_give_two_outputs(correction, in_project, fake_engine, relion_folder):
    project, movies, volume, mask = in_project
    other = new_protocol(project, "ProtImportRelionMovies", projectFolder=str(relion_folder[0]),
                         moviesStar="MotionCorr/corrected_micrographs.star", particlesStar="particles.star")
    launch(project, other)
    correction.numberOfReferences.set(1)
    for name, source, output in (("inputParticles2", other, "outputParticles"), ("inputVolume2", volume, "outputVolume")):
        getattr(correction, name).set(source)
        getattr(correction, name).setExtended(output)
    launch(project, correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert correction.outputParticles.getSize() == correction.outputParticles2.getSize() == 12
    first, second = (next(iter(p.getFiles())) for p in (correction.outputParticles, correction.outputParticles2))
    assert os.path.basename(first) == "stack_0.mrcs" and os.path.basename(second) == "stack_1.mrcs"
    later = new_protocol(project, "ProtReferenceMotionCorrection", inputParticles=(correction, "outputParticles2"))
    correction.numberOfReferences.set(0)
    launch(project, correction)                 # Continue with one: nothing makes the second's particles any more
    assert correction.isFinished(), correction.getErrorMessage()
    assert "outputParticles2" not in outputs_in_project(project, correction) and correction.outputParticles.getSize() == 12
    assert later.inputParticles.get() is None and "*Input particles* cannot be EMPTY." in later.validate()


def test_given_values_take_away_what_was_measured_before_and_back(correction, in_project, fake_engine):
    """The job's files hold the given values then: the old outputs would say other numbers than their files."""
    project, again = in_project[0], correction_of(in_project)
    launch(project, correction)
    launch(project, again)
    everything = ["outputDoseWeights", "outputHyperparameters", "outputParticles"]
    assert outputs_in_project(project, again) == everything
    for name, output in (("inputHyperparameters", "outputHyperparameters"), ("inputDoseWeights", "outputDoseWeights")):
        getattr(again, name).set(correction)
        getattr(again, name).setExtended(output)
    launch(project, again)
    assert again.isFinished(), again.getErrorMessage()
    assert outputs_in_project(project, again) == ["outputParticles"] and "given dose weights" in again.methods()[0]
    for name in ("inputHyperparameters", "inputDoseWeights"):
        getattr(again, name).set(None)
    launch(project, again)
    assert again.isFinished(), again.getErrorMessage()
    assert outputs_in_project(project, again) == everything


def test_a_start_that_never_begins_takes_nothing_away_for_good(correction, in_project, fake_engine, monkeypatch):
    """It waited for dose weights that were still to come; without them the outputs are published again, although their steps were finished."""
    project, again = in_project[0], correction_of(in_project)
    launch(project, again)
    everything = outputs_in_project(project, again)
    monkeypatch.setattr("pyworkflow.protocol.schedule", lambda *arguments, **options: 0)
    again.inputDoseWeights.set(correction)
    again.inputDoseWeights.setExtended("outputDoseWeights")
    project.scheduleProtocol(again)
    assert outputs_in_project(project, again) == []         # the scheduler will start it without a look at them
    again.inputDoseWeights.set(None)
    launch(project, again)
    assert again.isFinished(), again.getErrorMessage()
    assert outputs_in_project(project, again) == everything


def test_other_settings_take_the_outputs_away_at_their_start(correction, in_project, fake_engine):
    """Their images lie where the new ones will be written. The same settings keep them, and publish again what was deleted by hand."""
    project = in_project[0]
    launch(project, correction)
    everything = outputs_in_project(project, correction)
    correction.numberOfThreads.set(2)
    correction.makePathsAndClean()
    assert outputs_in_project(project, correction) == everything and os.path.exists(correction.getStepsFile())
    correction.deleteOutput(correction.outputDoseWeights)
    launch(project, correction)
    assert outputs_in_project(project, correction) == everything
    correction.deleteOutput(correction.outputDoseWeights)       # what made the others is not known any more
    correction.boxSize.set(40)
    correction.makePathsAndClean()
    assert outputs_in_project(project, correction) == [] and not os.path.exists(correction.getStepsFile())


def test_a_reference_of_which_nothing_is_corrected_any_more_has_no_particles(correction, in_project, fake_engine):
    project, source, volume, _ = in_project
    second = GrowingSet(project, ProtImportParticles, "outputParticles", source.outputParticles, lambda p: p.getMicId() == 2)
    second.close()
    correction.numberOfReferences.set(1)
    for name, (holder, output) in (("inputParticles2", second.pointer), ("inputVolume2", (volume, "outputVolume"))):
        getattr(correction, name).set(holder)
        getattr(correction, name).setExtended(output)
    launch(project, correction)
    assert (correction.outputParticles.getSize(), correction.outputParticles2.getSize()) == (12, 6)
    fake_engine("fail:m1")
    correction.searchRadius.set(9.0)
    launch(project, correction)
    assert correction.isFinished(), correction.getErrorMessage()
    assert "outputParticles2" not in outputs_in_project(project, correction) and correction.outputParticles.getSize() == 6


def test_outputs_beyond_the_last_stage_are_taken_away(in_project, fake_engine):
    project, protocol = in_project[0], correction_of(in_project)
    launch(project, protocol)
    protocol.stopAfter.set(STAGES.index("hyperparameters"))
    launch(project, protocol)
    assert outputs_in_project(project, protocol) == ["outputHyperparameters"]
    assert "2 of 2 movies aligned." in protocol.summary() and not any("polished" in text or "written" in text for text in protocol.summary())
    protocol.stopAfter.set(LAST_STAGE)
    launch(project, protocol)
    assert "2 of 2 movies aligned, 2 polished." in protocol.summary() and "12 particles written, 0 left out." in protocol.summary()
    assert outputs_in_project(project, protocol) == ["outputDoseWeights", "outputHyperparameters", "outputParticles"]


def in_reloaded(project, protocol):
    """The protocol as the project's file has it."""
    import pyworkflow as pw
    from pyworkflow.project import Project
    reloaded = Project(pw.Config.getDomain(), os.path.abspath(project.path))
    reloaded.load()
    return reloaded.getProtocol(protocol.getObjId())


def outputs_in_project(project, protocol):
    """Names of the outputs, the same in the project's file as at hand."""
    names = sorted(name for name, _ in protocol.iterOutputAttributes())
    assert sorted(name for name, _ in in_reloaded(project, protocol).iterOutputAttributes()) == names
    return names


def test_outputs_survive_closing_the_project(correction, in_project, fake_engine):
    launch(in_project[0], correction)
    again = in_reloaded(in_project[0], correction)
    assert again.outputHyperparameters._kernel.get() == "matern"
    assert again.outputHyperparameters._correlated_acceleration.get() is True
    assert "5 frames" in str(again.outputDoseWeights) and os.path.exists(again.outputDoseWeights.getFileName())


def test_gpus_are_named_by_their_number_among_those_the_run_sees(correction):
    assert correction._device() == "cpu"
    correction.useGpu.set(True)
    correction.gpuList.set("0 1")
    assert correction._device() == "cuda:0,cuda:1"
