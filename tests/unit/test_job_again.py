"""Runs in one folder with other parameters in between: nothing that another run left is taken for this one's."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from refmotion_plugin.contract import store
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import JobLayout, read_object, write_json
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.contract.star import read_table, write_tables
from refmotion_plugin.contract.verdict import Reconstruction, load_verdict, save_verdict
from refmotion_plugin.engine.run import tasks
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.engine.stages.calibrate import _add

from tests.unit.job_stand_ins import FakeStages, write_particles_file, write_project
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


def test_weights_of_another_run_are_not_polished_with(tmp_path, spec):
    """Neither those that were given to it, nor those of movies that are aligned otherwise now."""
    def refused(given):
        fake = FakeStages()
        with pytest.raises(InputError, match="has dose weights of other runs or trajectories: run the stage weigh first"):
            run_job(tmp_path / "OUT", given, "polish", fake.recipes())
        assert fake.count("polish") == 0

    go(tmp_path, changed(spec, dose={"weights_file": "given.npz"}))
    refused(spec)
    other = changed(spec, alignment={"passes": 1})
    for given in (spec, other):
        go(tmp_path, given, "align")
        refused(given)
        go(tmp_path, given, "weigh")
        assert go(tmp_path, given, "polish")[1] == ({}, 6, 0)
    marker = JobLayout(tmp_path / "OUT").fit_done
    for leaders in ([[]], ["gone"], None):          # damaged, of movies that are not in the list any more
        write_json(marker, dict(read_object(marker), leaders=leaders))
        refused(other)


@pytest.mark.parametrize("growing", [True, False])
def test_movies_that_came_after_the_weights_do_not_keep_the_others_from_being_polished(tmp_path, spec, growing):
    project, names = tmp_path / "project", ["M/mic_%d.mrc" % i for i in range(3)]
    spec = changed(spec, inputs={"growing": growing})
    whole = read_table(project / "movies.star", "micrographs")
    write_tables(project / "movies.star", [whole.rows([0, 1])])
    write_particles_file(project / "particles_0.star", names[:2], 2)
    go(tmp_path, spec, "align", broken={1: MovieError("truncated")})
    go(tmp_path, spec, "weigh")
    write_tables(project / "movies.star", [whole])
    write_particles_file(project / "particles_0.star", names[:2] * 2 + names[2:] * 2, 1)
    fake, outcome = go(tmp_path, spec, "polish")
    assert [c for c in fake.calls if c[0] == "polish"] == [("polish", 0)] and outcome.particles_written == 2
    assert outcome.failed == {"M/mic_1.mrc": "truncated", "M/mic_2.mrc": "it was not aligned"}


def test_other_weights_have_another_verdict(tmp_path, spec):
    go(tmp_path, changed(spec, dose={"weights_file": "one.npz"}))
    assert go(tmp_path, changed(spec, dose={"weights_file": "one.npz"}))[0].count("reach_verdict") == 0
    assert go(tmp_path, changed(spec, dose={"weights_file": "other.npz"}))[0].count("reach_verdict") == 1


def test_weights_of_other_optics_groups_are_refused_before_the_first_movie(tmp_path, spec):
    spec = changed(spec, dose={"weights_file": "given.npz"}, output={"stop_after": "dose-weights"})
    fake = FakeStages()
    recipes = fake.recipes()

    def two_groups(*of):
        weights = recipes.load_weights(*of)
        return replace(weights, weight=np.repeat(weights.weight, 2, 0))

    with pytest.raises(InputError, match="given.npz have 2 optics groups, the particles 1"):
        run_job(tmp_path / "OUT", spec, "all", replace(recipes, load_weights=two_groups))
    assert fake.count("calibrate") == fake.count("align") == 0


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


@pytest.mark.parametrize("growing, again", [(False, 1), (True, 0)])
def test_a_movie_of_which_other_things_are_said_is_looked_at_anew(tmp_path, spec, growing, again):
    """Its dose, pixels, motion: what the calibration is made with as much as the frames."""
    spec = changed(spec, inputs={"growing": growing})
    go(tmp_path, spec)
    star = tmp_path / "project" / "mic_1.star"
    star.write_text(star.read_text().replace("1.2", "1.3"))
    fake, _ = go(tmp_path, spec)
    assert (fake.count("preflight"), fake.count("calibrate"), fake.count("align")) == (again, again, 1)


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


def test_sums_of_movies_whose_band_ends_elsewhere_reach_as_far_as_the_one_that_reaches_farther():
    """Twice the pixels in half the pixel size: the same step, but another number of shells."""
    k = np.arange(6) / 100.0
    short = {"frequency": k[:4], "cross": np.ones((1, 4)), "power": np.ones((1, 4))}
    long = {"frequency": k, "cross": np.full((1, 6), 2.0), "power": np.ones((1, 6))}
    for both in (_add(short, long), _add(long, short)):
        assert both["cross"].tolist() == [[3.0] * 4 + [2.0] * 2] and both["power"].tolist() == [[2.0] * 4 + [1.0] * 2]
        assert both["frequency"].tolist() == k.tolist()


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


@pytest.mark.parametrize("file", ["fcc", "judged"])
def test_a_movie_whose_sums_are_damaged_is_aligned_anew_by_the_same_command(tmp_path, spec, file):
    go(tmp_path, spec)
    layout = JobLayout(tmp_path / "OUT")
    getattr(layout, file)(JobResults(tmp_path / "OUT").movies()[1].key).write_bytes(b"damaged")
    layout.weigh_done.unlink()
    with pytest.raises(InputError, match="%s.npz.* aligns this movie anew" % file):
        go(tmp_path, spec)
    fake, outcome = go(tmp_path, spec)
    assert [c for c in fake.calls if c[0] == "align"] == [("align", 1)] and outcome.particles_written == 6


@pytest.mark.parametrize("damaged", [False, True])
def test_a_run_that_reaches_no_verdict_tells_none(tmp_path, caplog, damaged):
    """One of an earlier run in the folder is not this one's, and whether it can be read does not matter."""
    out = tmp_path / "out"
    caplog.set_level("INFO")
    run(out, job_spec(tmp_path, search={"thoroughness": "none"}))
    assert "verdict: 3 movies." in caplog.text and JobResults(out).verdict() is not None
    caplog.clear()
    if damaged:
        JobLayout(out).verdict.write_text("{")
    run(out, job_spec(tmp_path, output={"stop_after": "hyperparameters"}))
    assert "verdict:" not in caplog.text and JobResults(out).verdict() is None and "verdict" not in JobResults(out).summary()


def test_a_verdict_is_told_after_each_stage_that_leaves_it_true(tmp_path, spec, caplog):
    caplog.set_level("INFO")
    go(tmp_path, spec)
    for stage, given, told in (("polish", spec, 1), ("align", spec, 1), ("align", changed(spec, alignment={"passes": 1}), 0)):
        caplog.clear()
        go(tmp_path, given, stage)
        assert caplog.text.count("verdict: 3 movies.") == told
        assert ("verdict" in JobResults(tmp_path / "OUT").summary()) == bool(told)


def test_a_verdict_of_other_trajectories_is_not_told_while_movies_are_aligned_anew(tmp_path, spec):
    """That of the same ones is, and costs nothing to keep: a run that was stopped goes on, a movie that failed is tried again."""
    results = lambda: JobResults(tmp_path / "OUT")
    go(tmp_path, spec, broken={1: MovieError("cut off")})
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, spec, broken={1: KeyboardInterrupt()})
    assert results().verdict().text == "2 movies."
    assert go(tmp_path, spec, broken={1: MovieError("cut off")})[0].count("reach_verdict") == 0
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, changed(spec, alignment={"passes": 1}), broken={0: KeyboardInterrupt()})
    assert results().verdict() is None
    fake, _ = go(tmp_path, spec)
    assert [c for c in fake.calls if c[0] == "align"] == [("align", 1)] and results().verdict().text == "3 movies."


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


def test_nobody_is_given_particles_while_their_images_are_replaced(tmp_path, spec):
    """Box, trajectories or weights changed, and the run ended half-way: some stacks are of one kind, some of the other."""
    layout = JobLayout(tmp_path / "OUT")
    for other in (changed(spec, output={"box_px": 64}), changed(spec, alignment={"passes": 1}), changed(spec, dose={"normalisation": "peak"})):
        go(tmp_path, spec)
        assert layout.particles().exists() and JobResults(layout.folder).summary()["movies_polished"] == 3
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, other, broken={1: KeyboardInterrupt()}, broken_in="polish")
        summary = JobResults(layout.folder).summary()
        assert not layout.particles().exists() and "particles_written" not in summary and summary["movies_polished"] == 1
    go(tmp_path, spec)
    go(tmp_path, changed(spec, alignment={"passes": 1}, output={"stop_after": "dose-weights"}))
    summary = JobResults(layout.folder).summary()
    assert layout.particles().exists() and summary["movies_polished"] == 0 and "particles_written" not in summary


def test_particles_stay_while_a_movie_that_failed_is_tried_again(tmp_path, spec):
    go(tmp_path, spec, broken={1: MovieError("truncated")})
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, changed(spec, output={"tracks_star": True}), broken={1: KeyboardInterrupt()})
    assert len(read_table(JobLayout(tmp_path / "OUT").particles(), "particles")) == 4


def test_files_of_another_number_of_references_and_tracks_of_other_trajectories_go(tmp_path):
    layout = JobLayout(tmp_path / "OUT")
    two = write_project(tmp_path / "project", references=2)
    one = two.model_copy(update={"references": two.references[:1]})
    images = lambda: sorted(p.name for p in layout.folder.rglob("p*.mrcs")) + sorted(p.name for p in layout.folder.glob("particles*.star") if "7" not in p.name)
    layout.folder.mkdir()
    (layout.folder / "particles_7.star").write_text("a subset of the user's\n")
    go(tmp_path, changed(one, output={"tracks_star": True}))
    assert len(list(layout.folder.rglob("*_tracks.star"))) == 3 and set(images()) == {"polished.mrcs", "particles.star"}
    go(tmp_path, two)
    assert set(images()) == {"polished_1.mrcs", "polished_2.mrcs", "particles_1.star", "particles_2.star"}
    assert not list(layout.folder.rglob("*_tracks.star"))
    go(tmp_path, one)
    assert set(images()) == {"polished.mrcs", "particles.star"}
    assert (layout.folder / "particles_7.star").exists()
