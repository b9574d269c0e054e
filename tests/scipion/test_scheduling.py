"""Scheduled runs start when what they take is there, optional inputs too."""
import logging
from argparse import Namespace

import pytest
import pyworkflow.protocol
from pyworkflow.apps.pw_schedule_run import RunScheduler

from refmotion_plugin.headless import new_protocol


def scheduler(project, protocol):
    """The host's scheduler, which is a process of its own, and the run as its database has it."""
    where = Namespace(projPath=project.path, dbPath=protocol.getDbPath(), protId=protocol.getObjId(), sleepTime=15, initial_sleep=0)
    return RunScheduler(where, logging.getLogger("scheduler"))


def waits(project, protocol):
    """Whether the scheduler would wait for inputs now."""
    return scheduler(project, protocol)._checkMissingInput()[0]


@pytest.fixture
def average(correction, in_project, monkeypatch):
    """Averages that are scheduled with the dose weights that a correction is to make."""
    project, movies = in_project[:2]
    project.saveProtocol(correction)
    protocol = new_protocol(project, "ProtAverageMovies", inputMovies=(movies, "outputMovies"), inputDoseWeights=(correction, "outputDoseWeights"),
                            useGpu=False, numberOfThreads=1)
    monkeypatch.setattr(pyworkflow.protocol, "schedule", lambda *arguments, **options: None)
    project.scheduleProtocol(protocol)
    return protocol


def test_averages_wait_for_the_dose_weights_of_a_correction(correction, average, in_project, fake_engine):
    project = in_project[0]
    assert waits(project, average)
    project.launchProtocol(correction, wait=True)
    assert correction.isFinished(), correction.getErrorMessage()
    assert not waits(project, average)


def test_a_scheduled_run_knows_its_inputs_as_the_project_does(correction, average, in_project, fake_engine):
    """Its own database numbers the outputs that came later otherwise: Continue in the project must not take its results for those of other inputs."""
    project = in_project[0]
    project.saveProtocol(new_protocol(project, "ProtAverageMovies", inputMovies=(in_project[1], "outputMovies")))     # takes numbers in the project
    project.launchProtocol(correction, wait=True)
    begun = scheduler(project, average)
    assert not begun._checkMissingInput()[0]
    here = project.getProtocol(average.getObjId())
    assert begun.protocol.inputDoseWeights.get().getObjId() != here.inputDoseWeights.get().getObjId()
    assert begun.protocol._outputKey() == here._outputKey()
