"""The summary while the engine runs, from what the engine itself writes."""
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyworkflow.protocol import STATUS_LAUNCHED, STATUS_SCHEDULED

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.averages import AverageLayout
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec
from refmotion_plugin.contract.store import save_hyperparameters, save_weights
from refmotion_plugin.engine.run.status import StatusLog
from refmotion_plugin.objects import MotionHyperparameters
from refmotion_plugin.protocols import live_summary, run_summary

DATA = {"inputs": {"movies": "m.star"}, "references": [{"particles": "p.star", "half1": "1.mrc", "half2": "2.mrc"}]}


@pytest.fixture
def job(tmp_path):
    """A job of three movies that has begun: its layout and its status."""
    layout = JobLayout(tmp_path / "job")
    layout.folder.mkdir()
    layout.job.write_text(JobSpec.build(DATA).to_json())
    status = StatusLog(layout)
    status.event("movies", movies=[{"key": k, "micrograph": k + ".mrc", "n_particles": 5, "align": "todo", "polish": "todo"} for k in "abc"])
    return layout, status


def test_before_anything_is_known(tmp_path):
    assert live_summary.correction_lines(tmp_path / "none") == ["Starting: reading the inputs."]


def test_stage_rate_and_time_left(job):
    layout, status = job
    status.begin("align", 3)
    assert live_summary.correction_lines(layout.folder) == ["Following the particles: 0 of 3 movies done."]
    status.start -= 240
    status.advance()
    assert live_summary.correction_lines(layout.folder) == [
        "Following the particles: 1 of 3 movies done, 240 s each (15 per hour), 8 min left."]
    status.reach(3)
    assert live_summary.correction_lines(layout.folder)[0] == "Following the particles: 3 of 3 movies done, 80 s each."


def test_search_counts_its_own_units(job):
    layout, status = job
    status.begin("search: rays", 12, "step")
    assert live_summary.correction_lines(layout.folder) == ["Searching hyperparameters, rays: 0 of 12 steps done."]


def test_failed_movies_are_named_at_once(job):
    layout, status = job
    status.begin("align", 3)
    status.event("align", movie="b", state="failed", reason="movie b ends after frame 3 of 5: copy it again")
    status.advance()
    assert live_summary.correction_lines(layout.folder)[1:] == ["1 movie failed:", "- b.mrc: movie b ends after frame 3 of 5: copy it again"]


def test_what_is_known_so_far(job):
    layout, status = job
    status.begin("polish", 3)
    save_hyperparameters(layout.hyperparameters, DEFAULT_HYPERPARAMETERS)
    one = np.ones((1, 3))
    save_weights(layout.weights, DoseWeights(np.ones((1, 3, 4)), np.linspace(0, 0.25, 4), np.array([1.0, 2.0, 3.0]), 5 * one, one, one, one, "sum", "x"))
    text = live_summary.correction_lines(layout.folder)
    assert text[1].startswith("Hyperparameters (default): velocity 0.46,") and text[2] == "Dose weights (measured): 3 frames, the last at 3.0 e/Å², B-factor 5 to 5 Å²."
    given = dict(DATA, motion_prior={"relion_sigmas": [1, 2, 3]}, dose={"weights_file": "w.npz"})
    layout.job.write_text(JobSpec.build(given).to_json())
    assert ["given" in line for line in live_summary.correction_lines(layout.folder)[1:]] == [True, True]
    searched = dict(DATA, search={"thoroughness": "fast"})
    layout.job.write_text(JobSpec.build(searched).to_json())
    assert "(searched)" in live_summary.correction_lines(layout.folder)[1]


def test_results_that_are_half_written_hide_nothing_else(job):
    layout, status = job
    status.begin("align", 3)
    layout.hyperparameters.write_text('{"velocity')
    assert live_summary.correction_lines(layout.folder) == ["Following the particles: 0 of 3 movies done."]


def test_an_engine_that_is_silent_is_noticed(job):
    layout, status = job
    status.begin("align", 3)
    past = time.time() - 7200
    os.utime(layout.progress, (past, past))
    assert live_summary.correction_lines(layout.folder)[1] == "Nothing was heard for 2 h 0 min: see the run's log."
    status.reach(3)
    os.utime(layout.progress, (past, past))
    assert len(live_summary.correction_lines(layout.folder)) == 1          # what was to do is done


def test_a_stream_that_has_nothing_to_do_waits_for_movies(job, tmp_path):
    layout, status = job
    assert live_summary.correction_lines(tmp_path / "none", True) == live_summary.average_lines(tmp_path / "none", True) == ["Waits for more movies."]
    status.begin("polish", 3)           # of movies that failed, once nothing more comes
    assert live_summary.correction_lines(layout.folder, True) == ["Writing corrected particles: 0 of 3 movies done."]
    status.reach(3)
    status.event("align", movie="b", state="failed", reason="a reason")
    assert live_summary.correction_lines(layout.folder, True) == ["Waits for more movies.", "1 movie failed:", "- b.mrc: a reason"]


@pytest.mark.parametrize("done, grows, text", [(2, True, "Waits for more movies."), (1, True, "Writing corrected particles: 3 of 3 movies done"),
                                               (2, False, "Writing corrected particles: 3 of 3 movies done")])
def test_a_stream_waits_when_no_step_but_the_closing_one_is_left(correction, job, monkeypatch, done, grows, text):
    layout, status = job
    status.begin("polish", 3)
    status.reach(3)
    monkeypatch.setattr(correction, "_jobFolder", lambda: str(layout.folder))
    monkeypatch.setattr(live_summary.convert, "is_open", lambda pointer: grows)
    correction.setRunning()
    correction._numberOfSteps.set(3)
    correction._stepsDone.set(done)
    assert correction.summary()[-1].startswith(text)


def test_averages(tmp_path):
    layout = AverageLayout(tmp_path)
    layout.job.write_text(AverageSpec.build({"inputs": {"movies": "m.star"}}).to_json())
    status = StatusLog(layout)
    status.begin("average", 2)
    assert live_summary.average_lines(tmp_path) == ["Averaging movies: 0 of 2 movies done."]


@pytest.mark.parametrize("seconds, text", [(5, "less than a minute"), (59 * 60, "59 min"), (3660, "1 h 1 min")])
def test_durations(seconds, text):
    assert live_summary.duration(seconds) == text


def convert_inputs(correction, layout, later_seconds=-9):
    """The list of converted inputs, as a start leaves it before the engine begins."""
    inputs = Path(correction._getExtraPath("inputs", "inputs.json"))
    inputs.parent.mkdir(parents=True, exist_ok=True)
    inputs.write_text("{}")
    when = layout.status.stat().st_mtime + later_seconds
    os.utime(inputs, (when, when))


def test_a_running_protocol_shows_it(correction, job):
    layout, status = job
    convert_inputs(correction, layout)
    status.begin("align", 3)
    correction._jobFolder = lambda: str(layout.folder)
    assert correction.summary()[-1] == "0 of 3 movies aligned, 0 polished."
    correction.setRunning()
    assert correction.summary()[-1] == "Following the particles: 0 of 3 movies done."


def test_a_run_that_waits_says_so(correction, job):
    layout, status = job
    status.begin("align", 3)
    correction._jobFolder = lambda: str(layout.folder)
    correction.setStatus(STATUS_SCHEDULED)
    assert correction.summary()[-1] == "Waits for its inputs."
    correction.setStatus(STATUS_LAUNCHED)
    assert correction.summary()[-1] == "Starting."
    correction._useQueue.set(True)
    assert correction.summary()[-1] == "Waits in the queue."


def test_a_run_that_is_continued_forgets_what_was_last_said(correction, job):
    layout, status = job
    status.begin("align", 3)
    correction._jobFolder = lambda: str(layout.folder)
    correction.summaryVar.set("said before")
    correction._insertAllSteps()            # perhaps all that it did stands
    assert correction.summary()[-1] == "said before"
    live_summary.forget(correction)
    correction.setRunning()
    assert correction.summary()[-1] == "Starting: reading the inputs."
    live_summary.forget(correction)         # nothing is there to be forgotten


def test_results_of_a_start_with_other_settings_are_not_told_as_those_of_this_one(correction, job):
    layout, status = job
    status.event("align", movie="a", state="done")
    correction._jobFolder = lambda: str(layout.folder)
    convert_inputs(correction, layout, later_seconds=9)
    assert correction.summary()[-1] == "No results yet."
    convert_inputs(correction, layout)
    assert correction.summary()[-1] == "1 of 3 movies aligned, 0 polished."
    live_summary.forget(correction, with_inputs=True)       # converting them stopped half-way
    assert correction.summary()[-1] == "No results yet."


def test_a_run_that_was_stopped_shows_what_it_has_and_reads_it_once(correction, job, monkeypatch):
    layout, status = job
    status.event("align", movie="a", state="done")
    convert_inputs(correction, layout)
    correction._jobFolder, read, numbers = lambda: str(layout.folder), [], run_summary.numbers
    monkeypatch.setattr(run_summary, "numbers", lambda *arguments: read.append(0) or numbers(*arguments))
    gather = run_summary.numbers
    for _ in range(3):
        assert run_summary.kept_or_gathered(correction, gather, True) == ["1 of 3 movies aligned, 0 polished."] and len(read) == 1
    correction.stopAfter.set(1)
    assert correction.summary()[-1] == "1 of 3 movies aligned."
    status.event("align", movie="b", state="done")
    assert run_summary.kept_or_gathered(correction, gather, True) == ["2 of 3 movies aligned, 0 polished."]
    layout.hyperparameters.write_text('{"velocity')
    status.event("align", movie="c", state="done")
    assert run_summary.kept_or_gathered(correction, gather, True) == ["No results yet."]


def test_no_movies_are_not_counted(tmp_path, job):
    layout, average = job[0], AverageLayout(tmp_path / "averages")
    layout.status.unlink()
    assert run_summary.numbers(layout.folder) == []
    average.folder.mkdir()
    average.job.write_text(AverageSpec.build({"inputs": {"movies": "m.star"}}).to_json())
    assert run_summary.average_numbers(average.folder) == []
    StatusLog(average).event("stopped", reason="none --no-preflight goes on regardless")
    said = run_summary.reason_of_failure(average.folder)
    assert said == "none a run with 'Check orientations first?' switched off (advanced, section Movies) goes on regardless"


def test_finished_numbers_name_prior_and_weights(job):
    layout, _ = job
    save_hyperparameters(layout.hyperparameters, DEFAULT_HYPERPARAMETERS)
    assert any(line.startswith("Hyperparameters (default)") for line in run_summary.numbers(layout.folder))


def test_methods_quote_the_strengths_that_were_given(correction):
    correction._jobFolder = lambda: "none"
    correction.outputParticles, given = correction.inputParticles.get(), MotionHyperparameters()
    for item, sigma in ((given, 0.77), (MotionHyperparameters(), 0.11)):
        item.setRecord(replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=sigma))
    correction.outputHyperparameters = item
    assert "velocity 0.11," in run_summary.methods(correction)[0]
    correction.inputHyperparameters.set(given)
    assert "velocity 0.77," in run_summary.methods(correction)[0]
