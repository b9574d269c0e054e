"""The logic of a job on stand-in stages: order, resume, faults, locks, outputs."""
import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import JobLayout, atomic_path
from refmotion_plugin.contract.results import JobResults, read_status
from refmotion_plugin.contract.star import read_particles, read_table, read_tracks_star, write_tables
from refmotion_plugin.engine.run import distribute, tasks
from refmotion_plugin.engine.run.executor import run_here
from refmotion_plugin.engine.run.inputs import read_inputs
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.engine.run.plan import open_keys, plan
from refmotion_plugin.engine.run.lock import job_lock
from refmotion_plugin.engine.run.status import Progress
from refmotion_plugin.engine.run.tasks import MovieTask

from tests.unit.job_stand_ins import BOX, PIXEL, FakeStages, write_particles_file, write_project


@pytest.fixture
def spec(tmp_path):
    return write_project(tmp_path / "project")


def go(tmp_path, spec, stage="all", **faults):
    fake = FakeStages(**faults)
    return fake, run_job(tmp_path / "OUT", spec, stage, fake.recipes())


def changed(spec, **parts):
    return spec.model_copy(update={name: getattr(spec, name).model_copy(update=values) for name, values in parts.items()})


def test_everything_leaves_in_the_order_of_the_input(tmp_path, spec):
    fake, outcome = go(tmp_path, spec)
    assert outcome == ({}, 6, 0) and not JobLayout(tmp_path / "OUT").left_out.exists()
    assert [c for c in fake.calls if c[0] == "align"] == [("align", 0), ("align", 1), ("align", 2)]
    assert fake.count("preflight") == fake.count("calibrate") == fake.count("fit_weights") == 1
    rows = read_table(tmp_path / "OUT" / "particles.star", "particles").columns
    assert rows["rlnMicrographName"] == ["M/mic_%d.mrc" % (i % 3) for i in range(6)]
    for row, name in enumerate(rows["rlnImageName"]):
        number, stack = name.split("@")
        with mrcfile.open(stack) as file:
            assert file.data.shape == (2, BOX, BOX) and float(file.voxel_size.x) == PIXEL
            assert (file.data[int(number) - 1] == 1 + row).all()
    optics = read_table(tmp_path / "OUT" / "particles.star", "optics").columns
    assert (float(optics["rlnImagePixelSize"][0]), optics["rlnImageSize"]) == (PIXEL, [str(BOX)])


def test_the_same_command_again_does_nothing(tmp_path, spec):
    go(tmp_path, spec)
    fake, outcome = go(tmp_path, spec)
    assert fake.calls == [] and outcome.particles_written == 6


def test_only_the_unfinished_movie_is_done_again(tmp_path, spec):
    go(tmp_path, spec)
    layout = JobLayout(tmp_path / "OUT")
    key = JobResults(tmp_path / "OUT").movies()[1].key
    layout.done(key, "polish").unlink()
    assert [c for c in go(tmp_path, spec)[0].calls] == [("load", 1), ("polish", 1)]
    layout.trajectories(key).unlink()
    assert ("align", 1) in go(tmp_path, spec)[0].calls


@pytest.mark.parametrize("growing, again", [(True, []), (False, ["preflight", "calibrate"])])
def test_lists_that_get_longer(tmp_path, spec, growing, again):
    """What the first run calibrated serves the later ones if the lists are said to grow; finished movies stay finished."""
    project, names = tmp_path / "project", ["M/mic_%d.mrc" % i for i in range(3)]
    spec = changed(spec, inputs={"growing": growing})
    whole = read_table(project / "movies.star", "micrographs")
    write_tables(project / "movies.star", [whole.rows([0, 1])])
    write_particles_file(project / "particles_0.star", names[:2], 2)
    assert go(tmp_path, spec)[1].particles_written == 4
    write_tables(project / "movies.star", [whole])
    write_particles_file(project / "particles_0.star", names[:2] * 2 + names[2:] * 2, 1)
    fake, outcome = go(tmp_path, spec)
    assert outcome.particles_written == 6 and [c for c in fake.calls if c in ("preflight", "calibrate")] == again
    assert [c for c in fake.calls if c[0] == "align"] == [("align", 2)]


@pytest.mark.parametrize("parts, expected", [
    ({"output": {"float16": True}}, {"polish"}),
    ({"output": {"box_px": 64}}, {"polish"}),
    ({"alignment": {"passes": 1}}, {"align", "fit_weights", "polish"}),
    ({"dose": {"normalisation": "peak"}}, {"fit_weights", "polish"}),
    ({"compute": {"threads": 2}}, set()),
    ({"output": {"tracks_star": True}}, set()),
])
def test_a_changed_parameter_redoes_what_depends_on_it(tmp_path, spec, parts, expected):
    go(tmp_path, spec)
    fake, _ = go(tmp_path, changed(spec, **parts))
    assert {n for n in ("align", "fit_weights", "polish") if fake.count(n)} == expected


def test_a_changed_movie_is_done_again(tmp_path, spec):
    go(tmp_path, spec)
    (tmp_path / "project" / "Movies" / "mic_1.tiff").write_bytes(b"another movie")
    fake, _ = go(tmp_path, spec)
    assert ("align", 1) in fake.calls and ("align", 0) not in fake.calls


def test_a_failed_movie_costs_only_itself(tmp_path, spec):
    _, outcome = go(tmp_path, spec, broken={1: MovieError("mic_1.tiff is cut off after 2 frames")})
    assert outcome.failed == {"M/mic_1.mrc": "mic_1.tiff is cut off after 2 frames"}
    assert (outcome.particles_written, outcome.particles_left_out) == (4, 2)
    left_out = JobResults(tmp_path / "OUT").left_out().columns
    assert left_out["rlnMicrographName"] == ["M/mic_1.mrc"] * 2
    assert left_out["refmotionReason"] == ["movie failed: mic_1.tiff is cut off after 2 frames"] * 2
    state = JobResults(tmp_path / "OUT").movies()[1]
    assert (state.align, state.reason) == ("failed", "mic_1.tiff is cut off after 2 frames")
    fake, outcome = go(tmp_path, spec)                   # repaired: only that movie is done, and all leave
    assert [c for c in fake.calls if c[0] == "align"] == [("align", 1)]
    assert outcome == ({}, 6, 0) and JobResults(tmp_path / "OUT").failed() == []


@pytest.mark.parametrize("where", ["load", "polish"])
def test_faults_elsewhere_and_unforeseen_ones(tmp_path, spec, where):
    _, outcome = go(tmp_path, spec, broken={2: RuntimeError("out of memory\nmore")}, broken_in=where)
    assert list(outcome.failed) == ["M/mic_2.mrc"] and outcome.particles_written == 4
    assert "unexpected RuntimeError: out of memory (the full text is in engine.log)" == outcome.failed["M/mic_2.mrc"]


def test_all_movies_failed(tmp_path, spec):
    with pytest.raises(InputError, match="no movie was aligned.*broken"):
        go(tmp_path, spec, broken={i: MovieError("broken") for i in range(3)})


def test_an_input_error_inside_a_stage_ends_the_job(tmp_path, spec):
    with pytest.raises(InputError, match="no space left"):
        go(tmp_path, spec, broken={1: InputError("no space left on disk")})
    events = [json.loads(line) for line in open(JobLayout(tmp_path / "OUT").status)]
    assert events[-1]["event"] == "stopped" and "no space left" in events[-1]["reason"]


def full_disk_until(given_up, monkeypatch, name):
    """Writing fails for want of space until the decoded frames in temporary files are given up."""
    real = getattr(tasks, name)

    def write(path, *values, **notes):
        if len(given_up) < 1:
            with atomic_path(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *values, **notes)

    monkeypatch.setattr(tasks, name, write)


@pytest.mark.parametrize("name", ["save_trajectories", "write_mrc"])
def test_a_disk_that_its_own_temporary_files_filled_stops_no_job(tmp_path, spec, monkeypatch, caplog, name):
    fake, given_up = FakeStages(), []
    full_disk_until(given_up, monkeypatch, name)
    outcome = run_job(tmp_path / "OUT", spec, recipes=replace(fake.recipes(), forget_movies=lambda: given_up.append(1)))
    assert outcome == ({}, 6, 0) and fake.count("align") + fake.count("polish") == 6        # only written once more
    assert caplog.text.count("; once more without the decoded frames in temporary files") == 1


def test_a_disk_that_is_full_nevertheless_ends_the_job(tmp_path, spec, monkeypatch):
    fake, given_up = FakeStages(), []
    full_disk_until([], monkeypatch, "save_trajectories")
    with pytest.raises(InputError, match="no space left on disk while writing"):
        run_job(tmp_path / "OUT", spec, recipes=replace(fake.recipes(), forget_movies=lambda: given_up.append(1)))
    assert fake.count("align") == 1 and len(given_up) == 2         # once for room, once at the end


def test_a_folder_for_temporary_files_that_is_not_there_is_told(tmp_path, spec, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert go(tmp_path, spec)[1] == ({}, 6, 0)
    assert "TMPDIR names %s, where nothing can be written: temporary files go to " % (tmp_path / "gone") in caplog.text
    caplog.clear()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    go(tmp_path, spec)
    assert "TMPDIR" not in caplog.text


def test_without_any_folder_for_temporary_files_a_sentence_says_so(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    with pytest.raises(InputError, match="no folder for temporary files can be written .*set TMPDIR"):
        go(tmp_path, spec)


def test_where_workers_decode_the_job_itself_keeps_no_frames(tmp_path, spec, monkeypatch):
    fake, order = FakeStages(), []

    def on_workers(tasks, crew, make, work):
        order.append("workers")
        return run_here(tasks, distribute._workplace(job), ahead=False)

    monkeypatch.setattr(distribute, "run_on_workers", on_workers)
    recipes = replace(fake.recipes(), forget_movies=lambda: order.append("given up"))
    job = SimpleNamespace(inputs=read_inputs(spec, recipes.outside_movie), recipes=recipes, prepared=recipes.prepare(spec, [], "cpu", 1).with_amplitudes([1.0]),
                          layout=JobLayout(tmp_path / "OUT"), spec=spec, weights=None, devices=["cpu"], run="r", status=SimpleNamespace(
                              event=lambda *values, **more: None, advance=lambda: None), failed={}, crew=SimpleNamespace(workers=SimpleNamespace(local=("cpu",))))
    distribute.run_tasks(job, [MovieTask(m, job.inputs.particles[m.key], "mark") for m in job.inputs.movies])
    assert order == ["given up", "workers"] and fake.count("align") == 3 and not job.failed


def test_an_unreadable_movie_file_is_a_failed_movie(tmp_path, spec):
    (tmp_path / "project" / "mic_0.star").unlink()
    _, outcome = go(tmp_path, spec)
    assert "cannot be read" in outcome.failed["M/mic_0.mrc"] and outcome.particles_left_out == 2
    assert [m.align for m in JobResults(tmp_path / "OUT").movies()] == ["done", "done", "failed"]


def test_interrupt_and_go_on(tmp_path, spec):
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, spec, broken={1: KeyboardInterrupt()})
    assert read_status(JobLayout(tmp_path / "OUT").status)[-1]["reason"] == "interrupted"
    fake, outcome = go(tmp_path, spec)
    assert [c for c in fake.calls if c[0] == "align"] == [("align", 1), ("align", 2)] and outcome.particles_written == 6


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, spec):
    layout = JobLayout(tmp_path / "OUT")
    with job_lock(layout):
        with pytest.raises(InputError, match="another run is working in .*process [0-9]+ on"):
            go(tmp_path, spec)
    assert go(tmp_path, spec)[1].particles_written == 6


def test_stages_one_by_one_give_the_same(tmp_path, spec):
    for stage in ("align", "weigh", "polish"):
        fake, outcome = go(tmp_path, spec, stage)
        assert {n for n in ("align", "fit_weights", "polish") if fake.count(n)} == {{"weigh": "fit_weights"}.get(stage, stage)}
    assert outcome.particles_written == 6
    assert go(tmp_path, spec)[0].calls == []


def test_a_failed_movie_is_remembered_by_later_stages(tmp_path, spec):
    go(tmp_path, spec, "align", broken={0: MovieError("truncated")})
    go(tmp_path, spec, "weigh")
    _, outcome = go(tmp_path, spec, "polish")
    assert outcome.failed == {"M/mic_0.mrc": "truncated"} and outcome.particles_left_out == 2


def test_polishing_before_weighing_is_refused(tmp_path, spec):
    with pytest.raises(InputError, match="no dose weights yet"):
        go(tmp_path, spec, "polish")


def test_given_weights_need_one_decode(tmp_path, spec):
    fake, outcome = go(tmp_path, changed(spec, dose={"weights_file": "earlier.npz"}))
    assert fake.count("load") == 3 and fake.count("polish") == 3 and outcome.particles_written == 6
    assert JobResults(tmp_path / "OUT").weights().source == "earlier.npz"


@pytest.mark.parametrize("last, there", [("hyperparameters", ["hyperparameters.json"]),
                                         ("dose-weights", ["hyperparameters.json", "weights.npz", "bfactors.star"])])
def test_stopping_early(tmp_path, spec, last, there):
    fake, outcome = go(tmp_path, changed(spec, output={"stop_after": last}))
    files = {p.name for p in (tmp_path / "OUT").iterdir()}
    assert set(there) <= files and "particles.star" not in files and outcome.particles_written is None
    assert fake.count("polish") == 0


def test_several_references_share_movies(tmp_path):
    spec = write_project(tmp_path / "project", references=2)
    _, outcome = go(tmp_path, spec)
    assert outcome.particles_written == 12
    for number in (1, 2):
        rows = read_table(tmp_path / "OUT" / ("particles_%d.star" % number), "particles").columns
        assert len(rows["rlnImageName"]) == 6 and all("polished_%d.mrcs" % number in name for name in rows["rlnImageName"])


def test_particles_outside_and_without_a_movie_are_listed(tmp_path, spec):
    path = tmp_path / "project" / "particles_0.star"
    text = path.read_text().replace(" 20 30 ", " 999 30 ", 1)
    lines = text.split("\n")
    last = max(i for i, line in enumerate(lines) if "M/mic_2.mrc" in line)
    lines[last] = lines[last].replace("M/mic_2.mrc", "M/mic_9.mrc")
    path.write_text("\n".join(lines))
    _, outcome = go(tmp_path, spec)
    assert (outcome.particles_written, outcome.particles_left_out, outcome.failed) == (4, 2, {})
    columns = JobResults(tmp_path / "OUT").left_out().columns
    assert columns["refmotionReason"] == ["outside the movie of 200 x 100 px", "no movie is named M/mic_9.mrc, nor agrees with it alone by base name"]
    assert columns["refmotionRow"] == ["1", "6"]


def test_movies_of_other_frame_counts(tmp_path, spec, caplog):
    """They take part, or on request are left out and listed."""
    star = tmp_path / "project" / "mic_1.star"
    star.write_text(re.sub(r"(rlnImageSizeZ\s+)4", r"\g<1>5", star.read_text()))
    assert go(tmp_path, spec)[1].failed == {}
    fake, outcome = go(tmp_path, changed(spec, inputs={"skip_other_frame_counts": True}))
    assert outcome.failed == {"M/mic_1.mrc": "left out as asked: it has 5 frames, most movies have 4"}
    assert outcome.particles_written == 4 and outcome.particles_left_out == 2
    reasons = read_table(tmp_path / "OUT" / "left_out_particles.star", "particles").columns
    assert sum("has 5 frames" in value for values in reasons.values() for value in values) == 2


def test_no_particle_finds_its_movie(tmp_path, spec):
    path = tmp_path / "project" / "particles_0.star"
    path.write_text(path.read_text().replace("M/mic_", "M/other_"))
    with pytest.raises(InputError, match="none of the 6 particles .*'M/other_0.mrc'.*'M/mic_0.mrc'"):
        go(tmp_path, spec)


def test_rejected_and_empty_images_are_listed(tmp_path, spec):
    fake = FakeStages()
    whole = fake.polish_movie

    def with_holes(movie, *args, **kwargs):
        polished = whole(movie, *args, **kwargs)
        if movie.micrograph == "M/mic_0.mrc":
            polished.images[0] = np.nan
        if movie.micrograph == "M/mic_1.mrc":
            polished.rejected.append((1, "the polished image is empty"))
        return polished

    fake.polish_movie = with_holes
    outcome = run_job(tmp_path / "OUT", spec, "all", fake.recipes())
    assert (outcome.particles_written, outcome.particles_left_out) == (4, 2)
    rows = read_table(tmp_path / "OUT" / "particles.star", "particles").columns
    assert [float(x) for x in rows["rlnCoordinateX"]] == [24, 28, 32, 40]
    for name, x in zip(rows["rlnImageName"], rows["rlnCoordinateX"]):
        number, stack = name.split("@")
        with mrcfile.open(stack) as file:
            assert (file.data[int(number) - 1] == 1 + (float(x) - 20) / 4).all()


def test_recentring_keeps_positions(tmp_path, spec):
    go(tmp_path, changed(spec, output={"recenter": True}))
    before = read_particles(spec.references[0].particles, 0, PIXEL).table
    after = read_particles(tmp_path / "OUT" / "particles.star", 0, PIXEL).table
    np.testing.assert_allclose(after.position_yx_angstrom, before.position_yx_angstrom, atol=1e-5)
    np.testing.assert_allclose(after.origin_yx_angstrom, np.tile([-0.1, 0.3], (6, 1)), atol=1e-5)


def test_tracks_and_float16(tmp_path, spec):
    go(tmp_path, changed(spec, output={"tracks_star": True, "float16": True}))
    results = JobResults(tmp_path / "OUT")
    key = results.movies()[0].key
    np.testing.assert_allclose(read_tracks_star(results.layout.tracks(key)), results.trajectories(key).displacement_yx_angstrom)
    with mrcfile.open(results.stacks()[0]) as file:
        assert file.header.mode == 12 and file.data.dtype == np.float16


def test_fcc_is_summed_over_movies(tmp_path, spec):
    go(tmp_path, spec)
    results = JobResults(tmp_path / "OUT")
    np.testing.assert_allclose(results.fcc_total().cross, 3 * 2.1)
    assert results.fcc_total().cross.dtype == np.float64


def test_plan():
    wanted = {"a": "1", "b": "1", "c": "1", "d": "1"}
    states = plan(wanted, {"a": "1", "b": "0"}, failed={"d"})
    assert states == {"a": "done", "b": "stale", "c": "todo", "d": "failed"} and open_keys(states) == ["b", "c"]


def test_progress_lines():
    assert Progress("align", 3, 10, 2.1, 14.7).line() == "align 3/10 movies, 2.1 s/movie, 15 s remaining"
    assert Progress("align", 0, 10).line() == "align 0/10 movies"
    assert Progress("polish", 1, 999, 10.0, 9980.0).line().endswith("2 h 46 min remaining")


def test_progress_is_in_a_file(tmp_path, spec):
    go(tmp_path, spec)
    assert JobResults(tmp_path / "OUT").progress()["done"] == 3


def test_results_of_a_job_that_are_damaged_are_made_anew(tmp_path, spec):
    go(tmp_path, spec)
    layout, key = JobLayout(tmp_path / "OUT"), JobResults(tmp_path / "OUT").movies()[1].key
    layout.weights.write_bytes(layout.weights.read_bytes()[:100])
    fake, outcome = go(tmp_path, spec)
    assert fake.count("fit_weights") == 1 and fake.count("align") == 0 and outcome.particles_written == 6
    layout.trajectories(key).write_bytes(b"damaged")
    layout.done(key, "polish").unlink()
    outcome = go(tmp_path, spec)[1]
    assert list(outcome.failed) == ["M/mic_1.mrc"] and "aligns the movie anew" in outcome.failed["M/mic_1.mrc"]
    fake, outcome = go(tmp_path, spec)
    assert [c for c in fake.calls if c[0] == "align"] == [("align", 1)] and outcome == ({}, 6, 0)


@pytest.mark.parametrize("text", ["[]", "{", '{"fingerprint": 3}', '{"references": [{}]}', "null", ""])
def test_a_damaged_marker_is_no_marker(tmp_path, spec, text):
    go(tmp_path, spec)
    layout, key = JobLayout(tmp_path / "OUT"), JobResults(tmp_path / "OUT").movies()[1].key
    layout.done(key, "polish").write_text(text)
    fake, outcome = go(tmp_path, spec)
    assert fake.count("polish") == 1 and fake.count("align") == 0 and outcome.particles_written == 6


def test_half_written_files_of_dead_processes_are_removed(tmp_path, spec):
    from refmotion_plugin.contract.layout import TEMPORARY, atomic_path
    go(tmp_path, spec)
    key = JobResults(tmp_path / "OUT").movies()[1].key
    folder = JobLayout(tmp_path / "OUT").movie(key)
    with atomic_path(folder / "of a living process.npz") as living:
        name = living.name
        host = name[len(TEMPORARY):].rsplit("-", 2)[0]
        ended = subprocess.Popen([sys.executable, "-c", ""])        # and not waited for until it is asked: a zombie
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        dead = [folder / (TEMPORARY + "%s-4194305-x.npz" % host), tmp_path / "OUT" / (TEMPORARY + "elsewhere-1-x.json"),
                folder / (TEMPORARY + "%s-%d-x.json" % (host, ended.pid))]
        for path in dead:
            path.write_text("half")
        go(tmp_path, spec)
        assert living.exists() and not any(path.exists() for path in dead)
        ended.wait()
