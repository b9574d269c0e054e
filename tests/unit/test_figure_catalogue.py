"""The list of figures of a job: what there is at each stage, for several references, optics groups and failures; and the report made of it."""
import json
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from refmotion_plugin.contract import store
from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.star import StarTable, read_tables, write_tables
from refmotion_plugin.engine import cli
from refmotion_plugin.engine.report import write_report
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.figures import catalogue
from tests.unit.job_stand_ins import FakeStages, write_project

ALWAYS = {"verdict", "fcc", "weights", "motion", "movies", "states", "prior", "particles", "power"}


def names(results):
    return [entry.name for entry in catalogue.job_figures(results)]


def drawn(results):
    """Draw everything; {name: figure}, without those that could not be drawn."""
    figures = {entry.name: entry.draw() for entry in catalogue.job_figures(results)}
    for figure in figures.values():
        if figure is not None:
            FigureCanvasAgg(figure).draw()          # the canvas that a figure comes with draws nothing
    return figures


def test_a_finished_job(tmp_path):
    run_job(tmp_path / "out", write_project(tmp_path), recipes=FakeStages().recipes())
    results = JobResults(tmp_path / "out")
    figures = drawn(results)
    assert set(figures) == ALWAYS | {"trajectories_M_mic_0", "trajectories_M_mic_2"} and all(figures.values())
    assert names(results)[0] == "verdict"
    assert [label.get_text() for label in figures["particles"].axes[0].get_yticklabels()] == ["after"]     # the input's stack is not there


def test_particles_are_beside_those_they_were_made_from(tmp_path):
    spec = write_project(tmp_path)
    with mrcfile.new(str(tmp_path / "old.mrcs")) as file:
        file.set_data(np.arange(6, dtype=np.float32)[:, None, None] + np.zeros((6, 16, 16), np.float32))
    particles = tmp_path / "particles_0.star"
    tables = read_tables(particles)
    tables["optics"] = StarTable("optics", {name: [{"rlnOpticsGroup": "2", "rlnImagePixelSize": "9.9"}.get(name, values[0])] + values
                                            for name, values in tables["optics"].columns.items()})     # a group without particles
    write_tables(particles, list(tables.values()))
    run_job(tmp_path / "out", spec, recipes=FakeStages().recipes())
    pairs = JobResults(tmp_path / "out").particle_pairs(0, 100)
    from refmotion_plugin.figures.images import read_particles
    before, after = read_particles(pairs.before), read_particles(pairs.after)
    assert len(before) == 6 and np.allclose(after[:, 0, 0], before[:, 0, 0] + 1)       # the stand-in writes row + 1
    assert (pairs.before_pixel_angstrom, pairs.after_pixel_angstrom) == (3.0, 1.5)
    few = JobResults(tmp_path / "out").particle_pairs(0, 2)
    assert len(few.after) == 2 and few.micrographs[0] != few.micrographs[1]             # spread over the job


def test_several_references(tmp_path):
    run_job(tmp_path / "out", write_project(tmp_path, references=2), recipes=FakeStages().recipes())
    figures = drawn(JobResults(tmp_path / "out"))
    assert {"particles", "particles_2", "power", "power_2"} <= set(figures) and figures["particles_2"] is not None


def test_several_optics_groups(tmp_path):
    run_job(tmp_path / "out", write_project(tmp_path), recipes=FakeStages().recipes())
    results = JobResults(tmp_path / "out")
    table, weights = results.fcc_total(), results.weights()
    twice = {name: np.repeat(getattr(table, name), 2, axis=0) for name in ("cross", "power_movie", "power_reference", "components")}
    store.save_fcc(results.layout.fcc_total, replace(table, **twice))
    store.save_weights(results.layout.weights, replace(weights, **{name: np.repeat(getattr(weights, name), 2, axis=0) for name in (
        "weight", "b_factor_A2", "scale", "b_factor_error_A2", "scale_error")}))
    titles = {entry.name: entry.title for entry in catalogue.job_figures(results)}
    assert titles["fcc_2"].endswith("of optics group 2") and titles["weights"].endswith("of optics group 1") and drawn(results)["weights_2"] is not None


def test_a_job_whose_movies_all_failed(tmp_path):
    stages = FakeStages(broken={i: MovieError("movie %d is flat: check its gain" % i) for i in range(3)})
    with pytest.raises(ValueError, match="is flat"):
        run_job(tmp_path / "out", write_project(tmp_path), recipes=stages.recipes())
    results = JobResults(tmp_path / "out")
    assert names(results) == ["movies", "states", "prior"] and all(drawn(results).values())
    assert "3 failed" in drawn(results)["states"].get_suptitle()


def test_a_job_that_is_still_running(tmp_path):
    spec = write_project(tmp_path)
    run_job(tmp_path / "out", spec, "align", recipes=FakeStages().recipes())
    results = JobResults(tmp_path / "out")
    lines = results.layout.status.read_text().splitlines()
    first_done = next(i for i, line in enumerate(lines) if json.loads(line)["event"] == "align")
    results.layout.status.write_text("\n".join(lines[:first_done + 1]) + "\n")
    figures = drawn(results)
    assert "weights" not in figures and "1 of 3 movies aligned" in figures["movies"].get_suptitle() and "2 to do" in figures["states"].get_suptitle()


def test_rigid_jobs_have_no_prior_to_show(tmp_path):
    spec = write_project(tmp_path)
    rigid = type(spec).build(dict(spec.model_dump(mode="json"), motion_prior={"rigid": True}))
    run_job(tmp_path / "out", rigid, recipes=FakeStages().recipes() if not rigid.motion_prior.rigid else replace(
        FakeStages().recipes(), prepare=lambda spec, sets, device, threads: _calibrated(spec)))
    assert "prior" not in names(JobResults(tmp_path / "out"))


def _calibrated(spec):
    from tests.unit.job_stand_ins import FakePrepared
    return FakePrepared(spec, amplitudes=(1.0,))


# ---- report -----------------------------------------------------------------------------------------------------------------------

def test_the_report_holds_every_figure_and_says_what_cannot_be_read(tmp_path):
    run_job(tmp_path / "out", write_project(tmp_path), recipes=FakeStages().recipes())
    results = JobResults(tmp_path / "out")
    results.layout.trajectories("M_mic_2").write_bytes(b"not whole")
    page = write_report(results).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(names(results)) - 2             # trajectories of that movie, and the motion of all
    assert page.count("cannot be read as Trajectories") == 3                           # and the numbers above
    results.layout.fcc_total.write_bytes(b"not whole")
    assert "cannot be read as FccTable" in write_report(results).read_text(encoding="utf-8")
    assert (results.layout.figures / "verdict.png").exists() and not list(results.layout.figures.glob("*.csv"))


def test_what_a_figure_meets_makes_no_failure_of_the_job(tmp_path, monkeypatch, caplog):
    """Particles' images of another format, say: none is an error of ours, and the particles are there."""
    run_job(tmp_path / "out", write_project(tmp_path), recipes=FakeStages().recipes())
    monkeypatch.setattr(catalogue, "draw_spectra", lambda *args: {}["spectra"])
    page = write_report(JobResults(tmp_path / "out")).read_text(encoding="utf-8")
    assert "This figure cannot be drawn (KeyError" in page and "figure power cannot be drawn" in caplog.text


def test_figures_in_other_formats_with_their_numbers_from_the_command_line(tmp_path):
    run_job(tmp_path / "out", write_project(tmp_path), recipes=FakeStages().recipes())
    assert cli.main(["report", str(tmp_path / "out"), "--format", "svg", "--data"]) == 0
    figures = JobResults(tmp_path / "out").layout.figures
    assert {"fcc.svg", "fcc.png", "fcc.csv", "weights_frames.csv", "movies.csv"} <= {path.name for path in figures.iterdir()}
    assert "M_mic_1" in (figures / "movies.csv").read_text(encoding="utf-8")
