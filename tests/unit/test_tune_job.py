"""The search as a part of a job: when it runs, what it leaves behind, who reads it."""
import json
import math
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec
from refmotion_plugin.engine import cli, report
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.engine.run.status import Progress
from refmotion_plugin.engine.stages.prepared import choose_hyperparameters
from refmotion_plugin.engine.stages.tune import Tuning
from refmotion_plugin.figures.search import search_figure
from tests.unit.job_stand_ins import FakeStages, write_project

FOUND = replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=0.9)


def journal():
    rows = [dict(kind="rigid", family="rigid motion", score=0.0, gain=0.0, gain_error=0.0, activity_angstrom=0.0, hyperparameters={})]
    for ray, (theta, z) in enumerate(((15.0, 700.0), (75.0, 700.0), (15.0, 1500.0))):
        for i in range(4):
            rows.append(dict(kind="ray", family="rays", score=-1.0, gain=50.0 - (i - 1.5) ** 2 - ray, gain_error=3.0,
                             activity_angstrom=10.0 / 3 ** i, hyperparameters={}, iteration=i, ray=ray, theta_degree=theta,
                             correlation_distance_angstrom=z, strength=0.2 * 2.5 ** i))
    return rows + [dict(rows[0], kind="most probable", score=None, gain=None, gain_error=None)]


def tuning(gain=52.0, movies=("M/mic_0.mrc", "M/mic_1.mrc")):
    margins = {"default prior": (4.0, 1.5), "smooth field": (0.0, 0.0), "rough field": (-1.0, 2.0)}
    evidence = {"default prior": 12.0, "smooth field": 0.0, "rough field": 3.0}
    return Tuning(FOUND, "smooth field", margins, evidence, {"velocity_sigma": 0.1}, gain, 6.0, math.inf if len(movies) == 1 else 11.0, len(movies), 4, list(movies), 0.02,
                  journal())


class Searching(FakeStages):
    """Stages with a search that finds something."""

    def __init__(self, found=None):
        super().__init__()
        self.found = found or tuning()

    def tune(self, movies, particles_of, prepared, progress=None):
        self._call("tune")
        assert prepared.amplitudes == (1.0,)
        for sentence in ("correlation maps", "rays", "refinement"):
            progress(0, 2, sentence)
            progress(2, 2, sentence)
        return self.found


def job_spec(folder, **parts):
    if not (folder / "job.json").exists():
        (folder / "job.json").write_text(write_project(folder).to_json())
    spec = JobSpec.read(folder / "job.json").model_dump()
    for section, values in dict(dict(search={"thoroughness": "fast"}), **parts).items():
        spec[section].update(values)
    return JobSpec.build(spec)


def run(folder, spec, stages=None, **options):
    stages = stages or Searching()
    run_job(folder, spec, recipes=stages.recipes(), **options)
    return stages


def test_what_is_found_is_used_and_kept(tmp_path):
    used, out = [], tmp_path / "out"

    class Watching(Searching):
        def align_movie(self, movie, particles, prepared, stack=None):
            used.append(prepared.hyperparameters)
            return super().align_movie(movie, particles, prepared, stack)

    run(out, job_spec(tmp_path), Watching())
    results = JobResults(out)
    assert used == [FOUND] * 3 and results.hyperparameters() == FOUND
    found = results.search()
    assert found.worth_it and found.gain == 52.0 and found.gain_error == 6.0 and found.gain_error_over_movies == 11.0
    assert found.family == "smooth field" and found.margins["rough field"] == (-1.0, 2.0) and found.trials == journal()
    assert found.text == tuning().text and found.movies == ["M/mic_0.mrc", "M/mic_1.mrc"] and found.movies_with_gain == 2


def test_the_finding_is_told_in_log_status_and_summary(tmp_path, caplog, capsys):
    with caplog.at_level("INFO"):
        run(tmp_path / "out", job_spec(tmp_path))
    assert tuning().text in caplog.text and "search: rays 2/2 steps" in caplog.text and "search: correlation maps 2/2 particles" in caplog.text
    assert JobResults(tmp_path / "out").summary()["hyperparameter_search"] == tuning().text
    assert cli.main(["status", str(tmp_path / "out")]) == 0 and tuning().text in capsys.readouterr().out
    assert Progress("search: refinement", 1, 3, 2.0, 4.0, "family").line() == "search: refinement 1/3 families, 2.0 s/family, 4 s remaining"


def test_the_same_job_again_does_not_search_again(tmp_path):
    spec = job_spec(tmp_path)
    assert run(tmp_path / "out", spec).count("tune") == 1
    again = run(tmp_path / "out", spec)
    assert again.count("tune") == 0 and again.count("align") == 0 and again.count("polish") == 0
    assert JobResults(tmp_path / "out").hyperparameters() == FOUND


@pytest.mark.parametrize("change, searches", [
    (dict(search={"thoroughness": "balanced"}), 1), (dict(search={"thoroughness": "fast", "fourier_fraction": 0.5}), 1),
    (dict(search={"thoroughness": "fast", "cache_gib": 1.0}), 0), (dict(output={"float16": True}), 0),
    (dict(alignment={"search_radius_angstrom": 7.0}), 1)])
def test_the_search_is_done_again_only_for_what_decides_it(tmp_path, change, searches):
    run(tmp_path / "out", job_spec(tmp_path))
    assert run(tmp_path / "out", job_spec(tmp_path, **change)).count("tune") == searches


@pytest.mark.parametrize("growing, searches", [(False, 1), (True, 0)])
@pytest.mark.parametrize("file", ["particles_0.star", "Movies/mic_1.tiff"])
def test_other_particles_and_movies_are_searched_anew_unless_the_lists_grow(tmp_path, file, growing, searches):
    """Even where the amplitude, made anew, comes out the same."""
    spec = job_spec(tmp_path, inputs={"growing": growing})
    assert run(tmp_path / "out", spec).count("tune") == 1
    path = tmp_path / file
    path.write_bytes(b"another movie" if path.suffix == ".tiff" else path.read_bytes().replace(b"9000", b"9100", 1))
    assert run(tmp_path / "out", spec).count("tune") == searches


def test_a_lost_result_is_searched_again(tmp_path):
    spec = job_spec(tmp_path)
    run(tmp_path / "out", spec)
    JobLayout(tmp_path / "out").hyperparameters.unlink()
    assert run(tmp_path / "out", spec).count("tune") == 1


@pytest.mark.parametrize("given", [dict(velocity_sigma=0.3, correlation_distance_angstrom=900.0, acceleration_sigma=0.02),
                                   dict(relion_sigmas=(0.6, 10000.0, 2.4)), dict(rigid=True)])
def test_given_strengths_skip_the_search(tmp_path, given):
    run(tmp_path / "out", job_spec(tmp_path))
    spec = job_spec(tmp_path, motion_prior=given, output={"stop_after": "hyperparameters"})
    assert not spec.wants_search and run(tmp_path / "out", spec).count("tune") == 0
    results = JobResults(tmp_path / "out")
    assert results.search() is None and "hyperparameter_search" not in results.summary()       # that of the earlier run is not this one's


def test_without_a_search_the_default_is_used(tmp_path):
    assert run(tmp_path / "out", job_spec(tmp_path, search={"thoroughness": "none"})).count("tune") == 0
    assert JobResults(tmp_path / "out").search() is None


def test_the_job_may_end_after_the_search(tmp_path):
    stages = run(tmp_path / "out", job_spec(tmp_path, output={"stop_after": "hyperparameters"}))
    assert stages.count("tune") == 1 and stages.count("align") == 0 and JobResults(tmp_path / "out").hyperparameters() == FOUND
    on = run(tmp_path / "out", job_spec(tmp_path))
    assert on.count("tune") == 0 and on.count("align") == 3


def test_another_job_takes_what_one_found(tmp_path):
    run(tmp_path / "first", job_spec(tmp_path, output={"stop_after": "hyperparameters"}))
    spec = job_spec(tmp_path, motion_prior={"hyperparameters_file": str(tmp_path / "first" / "hyperparameters.json")})
    assert not spec.wants_search and run(tmp_path / "second", spec).count("tune") == 0
    assert choose_hyperparameters(spec) == FOUND


@pytest.mark.parametrize("values, named", [(dict(thoroughness="thorough"), "thoroughness"), (dict(fourier_fraction=1.0), "fourier_fraction"),
                                           (dict(max_prior_strength=0.5), "max_prior_strength"), (dict(target_particles=0), "target_particles")])
def test_wrong_values_are_refused_in_one_sentence(tmp_path, values, named, capsys):
    with pytest.raises(InputError, match=r"search\.%s" % named) as error:
        job_spec(tmp_path, search=values)
    assert "\n" not in str(error.value)
    if named == "thoroughness":
        assert cli.main(["run", str(tmp_path / "out"), "--movies", "m", "--particles", "p", "--half1", "a", "--half2", "b", "--search", "thorough"]) == 2
        said = capsys.readouterr().err
        assert said == "refmotion: the options: --search: 'thorough' is none of none, fast, balanced, extensive\n"


def test_with_one_movie_the_files_hold_no_infinity(tmp_path):
    run(tmp_path / "out", job_spec(tmp_path), Searching(tuning(movies=("M/mic_0.mrc",))))
    text = JobLayout(tmp_path / "out").search.read_text()
    assert "Infinity" not in text and "NaN" not in text and json.loads(text)["gain_error_over_movies"] is None
    assert JobResults(tmp_path / "out").search().gain_error == 6.0


# ---- report and figure ------------------------------------------------------------------------------------------------------------

def test_the_report_says_whether_local_motion_helps(tmp_path):
    run(tmp_path / "out", job_spec(tmp_path))
    page = report.write_report(JobResults(tmp_path / "out")).read_text()
    assert "<h2>Search for hyperparameters</h2>" in page and "<p>Yes. " in page and "52 ± 6" in page and "2 of 2 movies gain" in page
    assert "“default prior” is less probable by e^12 and predicts worse by 4 ± 2" in page and "predicts better by 1 ± 2" in page
    assert "velocity_sigma × 1.11" in page
    assert (tmp_path / "out" / "figures" / "search.png").stat().st_size > 10000


def test_the_report_says_that_there_is_no_gain(tmp_path):
    run(tmp_path / "out", job_spec(tmp_path), Searching(tuning(gain=9.0)))
    page = report.write_report(JobResults(tmp_path / "out")).read_text()
    assert "<p>No gain. " in page and "9 ± 6" in page and "<p>Yes. " not in page
    assert JobResults(tmp_path / "out").summary()["hyperparameter_search"].startswith("no gain from local motion")


def test_a_gain_that_cannot_be_told_is_not_called_none(tmp_path, caplog):
    unseen = replace(tuning(gain=0.0), gain_error=0.0, unseen="the movies show nothing beyond 9.0 A")
    run(tmp_path / "out", job_spec(tmp_path), Searching(unseen))
    results, said = JobResults(tmp_path / "out"), "hether local motion helps cannot be told: the movies show nothing beyond 9.0 A; prior: smooth field"
    page = report.write_report(results).read_text()
    assert "<p>W%s.</p>" % said in page and "No gain" not in page and "“default prior” is less probable by e^12; “rough" in page
    assert results.search().worth_it is None and results.summary()["hyperparameter_search"] == "w" + said
    assert [r.levelname for r in caplog.records if said in r.message] == ["WARNING"]
    assert "cannot be told" in search_figure(results.search()).get_suptitle()


def test_without_a_search_the_report_does_not_speak_of_it(tmp_path):
    run(tmp_path / "out", job_spec(tmp_path, search={"thoroughness": "none"}))
    page = report.write_report(JobResults(tmp_path / "out")).read_text()
    assert "Search for hyperparameters" not in page and not (tmp_path / "out" / "figures" / "search.png").exists()


def test_the_figure_draws_every_ray_and_marks_the_choice(tmp_path):
    run(tmp_path / "out", job_spec(tmp_path))
    figure = search_figure(JobResults(tmp_path / "out").search())
    FigureCanvasAgg(figure).draw()          # the canvas that a figure comes with draws nothing
    gain, activity, families, order = figure.axes
    assert gain.get_xscale() == "log" and activity.get_xscale() == "log" and "2 movies" in figure.get_suptitle() and "52 ± 6" in figure.get_suptitle()
    labels = activity.get_legend_handles_labels()[1]
    assert gain.get_legend() is None and "★ best" in gain.get_title(loc="left")         # a legend would lie on the line of the chosen
    assert sum(0 < tick < activity.get_ylim()[1] for tick in activity.get_yticks()) >= 4
    assert order.lines[0].get_ydata()[-1] == 49.75 and len(figure.tables["trials"]["gain"]) == len(journal())
    assert labels[:3] == ["700 Å, 15°", "700 Å, 75°", "1500 Å, 15°"]
    star = next(line for line in gain.lines if line.get_marker() == "*")
    assert list(star.get_ydata()) == [49.75] and list(star.get_xdata()) == [0.5]
    assert any(line.get_linestyle() == "--" and set(line.get_ydata()) == {52.0} for line in gain.lines)
    assert [t.get_text().replace("\n", " ") for t in families.get_yticklabels()] == [
        "default prior", "smooth field (chosen)", "rough field"]


def test_the_figure_is_drawn_of_a_search_without_rays_or_gain():
    from refmotion_plugin.contract.results import SearchFinding
    empty = SearchFinding("default prior", "", False, 0.0, 0.0, None, 0, 1, ["m"], {"default prior": (0.0, 0.0)}, {}, {}, 0.0, [])
    nothing = empty._replace(trials=[dict(t, gain=-5.0) for t in journal() if t["kind"] == "ray"])
    for found in (empty, nothing):
        figure = search_figure(found)
        FigureCanvasAgg(figure).draw()
        assert figure.get_suptitle() and len(figure.axes) >= 1
    assert "no certain gain: 0 ± 0 log-likelihood" in search_figure(empty._replace(gain=-0.3)).get_suptitle()
