"""Runs in one folder with other parameters in between: nothing that another run left is taken for this one's."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from refmotion_plugin.contract import store
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.contract.verdict import Reconstruction, load_verdict, save_verdict
from refmotion_plugin.engine.run import tasks
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.engine.stages.calibrate import _add

from tests.unit.job_stand_ins import FakeStages, write_project
from tests.unit.test_job import changed, go
from tests.unit.test_tune_job import FOUND, job_spec, run


@pytest.fixture
def spec(tmp_path):
    return write_project(tmp_path / "project")


def test_weights_that_were_given_once_are_not_those_of_the_job_itself(tmp_path, spec):
    go(tmp_path, spec)
    own = store.load_weights(JobLayout(tmp_path / "OUT").weights)
    go(tmp_path, changed(spec, dose={"weights_file": "given.npz"}))
    fake, _ = go(tmp_path, spec)
    again = store.load_weights(JobLayout(tmp_path / "OUT").weights)
    assert fake.count("fit_weights") == 1 and fake.count("polish") == 3
    assert again.source == own.source and (again.weight == own.weight).all()


def test_other_weights_have_another_verdict(tmp_path, spec):
    go(tmp_path, changed(spec, dose={"weights_file": "one.npz"}))
    assert go(tmp_path, changed(spec, dose={"weights_file": "one.npz"}))[0].count("reach_verdict") == 0
    assert go(tmp_path, changed(spec, dose={"weights_file": "other.npz"}))[0].count("reach_verdict") == 1


def test_strengths_of_a_run_without_a_search_are_not_what_was_found(tmp_path):
    out = tmp_path / "out"
    run(out, job_spec(tmp_path))
    run(out, job_spec(tmp_path, motion_prior=dict(relion_sigmas=(0.6, 10000.0, 2.4))))
    assert JobResults(out).hyperparameters() != FOUND
    assert run(out, job_spec(tmp_path)).count("tune") == 1 and JobResults(out).hyperparameters() == FOUND


def test_the_amplitude_is_that_of_the_hyperparameters(tmp_path, spec):
    def with_strength(value):
        prior = replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=value)
        fake = FakeStages()
        recipes = fake.recipes()
        prepare = lambda *inputs: replace(recipes.prepare(*inputs), hyperparameters=prior)
        run_job(tmp_path / "OUT", spec, "all", replace(recipes, prepare=prepare))
        return fake.count("calibrate")

    assert [with_strength(v) for v in (0.4, 0.4, 0.5)] == [1, 0, 1]


def test_what_a_movie_showed_of_motion_is_gone_when_the_input_motion_is_kept(tmp_path, spec):
    go(tmp_path, spec)
    fake = FakeStages()
    recipes = fake.recipes()

    def align(movie, particles, prepared, stack=None):
        aligned = recipes.align_movie(movie, particles, prepared.with_amplitudes([1.0]), stack=stack)
        aligned.judged = None
        return aligned

    run_job(tmp_path / "OUT", changed(spec, motion_prior={"rigid": True}), "all", replace(recipes, align_movie=align))
    assert fake.count("align") == 3 and fake.evidence.judged == []


def test_a_detector_file_that_changed_is_noticed(tmp_path, spec):
    star, mtf = tmp_path / "project" / "particles_0.star", tmp_path / "mtf.star"
    text = star.read_text()
    star.write_text(text.replace("_rlnImageSize #7", "_rlnImageSize #7\n_rlnMtfFileName #8").replace(" 16\n", " 16 %s\n" % mtf, 1))
    mtf.write_text("one")
    assert go(tmp_path, spec)[0].count("align") == 3 and go(tmp_path, spec)[0].count("align") == 0
    mtf.write_text("another")
    assert go(tmp_path, spec)[0].count("align") == 3


@pytest.mark.parametrize("stage, file", [("align", "save_fcc"), ("polish", "write_mrc")])
def test_a_marker_does_not_outlive_the_first_file_that_is_replaced(tmp_path, spec, monkeypatch, stage, file):
    """Stopped while files of other parameters are written; the next run has the first parameters again."""
    go(tmp_path, spec)
    key = JobResults(tmp_path / "OUT").movies()[0].key
    monkeypatch.setattr(tasks, file, lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, changed(spec, alignment={"passes": 1}, output={"box_px": 64}))
    monkeypatch.undo()
    assert not JobLayout(tmp_path / "OUT").done(key, stage).exists()
    assert (stage, 0) in go(tmp_path, spec)[0].calls


def test_a_reconstruction_of_other_images_is_not_told_any_more(tmp_path, spec):
    go(tmp_path, spec)
    path = JobLayout(tmp_path / "OUT").verdict
    save_verdict(path, replace(load_verdict(path), reconstructions=(Reconstruction(0, 6, "C1", "", fault="none"),)))
    go(tmp_path, spec)
    assert load_verdict(path).reconstructions
    go(tmp_path, changed(spec, output={"box_px": 64}))
    assert not load_verdict(path).reconstructions


def test_images_that_cannot_be_made_as_asked_are_refused_before_the_first_movie(tmp_path, spec):
    def refused(geometry, words):
        fake = FakeStages()
        with pytest.raises(InputError, match=words):
            run_job(tmp_path / "OUT", spec, "all", replace(fake.recipes(), output_geometry=geometry))
        assert fake.calls == []

    star = tmp_path / "project" / "mic_1.star"
    star.write_text(star.read_text().replace("1.5", "1.6"))
    refused(lambda prepared, reference, pixel: (pixel, 8), "different pixel size.*own optics group")

    def too_large(prepared, reference, pixel):
        raise InputError("crop box 400 px is larger")
    refused(too_large, "crop box 400")


def test_sums_of_movies_whose_band_ends_elsewhere_are_added_where_both_have_them():
    """Twice the pixels in half the pixel size: the same step, but another number of shells."""
    k = np.arange(6) / 100.0
    short = {"frequency": k[:4], "cross": np.ones((1, 4)), "power": np.ones((1, 4))}
    long = {"frequency": k, "cross": np.full((1, 6), 2.0), "power": np.ones((1, 6))}
    assert _add(short, long)["cross"].tolist() == [[3.0] * 4]
    assert _add(long, short)["cross"].tolist() == [[3.0] * 4 + [2.0] * 2]


def test_warnings_are_those_of_the_inputs_as_they_are(tmp_path, spec):
    """What the first look found odd counts for the inputs it looked at, and a verdict knows all of it."""
    def told(given, words):
        fake = FakeStages()
        looked = lambda *inputs: SimpleNamespace(text="", warnings=words)
        run_job(tmp_path / "OUT", given, "all", replace(fake.recipes(), preflight=looked))
        return load_verdict(JobLayout(tmp_path / "OUT").verdict).warnings

    silent = changed(spec, inputs={"preflight": False})
    assert told(silent, ("odd",)) == ()
    assert told(spec, ("odd",)) == ("odd",) == told(silent, ())          # nothing was corrected
    (tmp_path / "project" / "half1.mrc").write_bytes(b"another map")
    assert told(silent, ()) == ()


def test_a_verdict_that_cannot_be_read_is_reached_anew(tmp_path, spec):
    go(tmp_path, spec)
    path = JobLayout(tmp_path / "OUT").verdict
    path.write_text("{")
    fake, outcome = go(tmp_path, changed(spec, output={"box_px": 64}))
    assert outcome.particles_written == 6 and fake.count("reach_verdict") == 1 and load_verdict(path).text


def test_sums_of_another_run_that_was_stopped_are_not_left_beside_this_ones_verdict(tmp_path, spec):
    go(tmp_path, spec)
    fake = FakeStages()
    stopped = replace(fake.recipes(), reach_verdict=lambda *of: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_job(tmp_path / "OUT", changed(spec, alignment={"passes": 1}), "all", stopped)
    assert go(tmp_path, spec)[0].count("reach_verdict") == 1


def test_amplitudes_that_were_replaced_are_made_anew(tmp_path, spec):
    go(tmp_path, spec)
    JobLayout(tmp_path / "OUT").amplitudes.write_text("another run's")
    assert go(tmp_path, spec)[0].count("calibrate") == 1
