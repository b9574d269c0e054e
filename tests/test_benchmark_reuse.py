"""What the benchmarks take again of earlier runs: only what was done on the same data with the same settings."""
import json
import shutil
import sys
from dataclasses import asdict, replace

import pytest

from refmotion_plugin.engine.simulate import SimulationSpec

from tests.test_benchmarks import TINY, data  # noqa: F401  a fixture; the benchmarks are on the path since

import against_relion  # noqa: E402
import averages  # noqa: E402
import beside_relion_protocol as beside  # noqa: E402
import install_check  # noqa: E402
import search  # noqa: E402
import weights  # noqa: E402
from comparison import compare, cost, engine, extras, gpu_case, mosaic, project, relion, scoring  # noqa: E402
from searching import data as searching_data  # noqa: E402

USED = {"wall_s": 1.0, "cpu_s": 1.0, "peak_GiB": 1.0}


class Used:
    """What a run of a program returns."""

    def numbers(self):
        return dict(USED)


@pytest.fixture
def runs(monkeypatch):
    """Programs that do nothing; (name, what was given) of each run."""
    done = []
    monkeypatch.setattr(relion, "motion_refine", lambda project, reference, particles, out, sigmas, threads, combine:
                        done.append(("relion", tuple(sigmas))) or Used())
    monkeypatch.setattr(engine, "run_engine", lambda project, references, out, threads, extra=(): done.append(("ours", extra)) or Used())
    monkeypatch.setattr(engine, "movies_wall_s", lambda job: 1.0)
    monkeypatch.setattr(scoring, "score_tracks", lambda project, folder, movies, suffix="":
                        {"all": 0.5 if folder.endswith("1.5_10000_4") else 1.0, "early": 1.0})
    monkeypatch.setattr(scoring, "score_maps", lambda *arguments: {"resolution_printed_angstrom": 3.0, "resolution_angstrom": 3.0, "true_fsc_5_3": 0.5})
    for module in (compare, extras):
        monkeypatch.setattr(module, "prepare_reference", lambda project, halves, symmetry: {"kind": halves, "mask": "mask.mrc"})
    return done


@pytest.fixture
def comparison(data, tmp_path):
    """A comparison in the same folder, begun anew, with other settings if given."""
    def make(redo=(), **settings):
        work = project.Project.make(tmp_path / "project", data)
        return compare.Comparison(project=work, journal=project.Journal(tmp_path / "steps.json", redo).belongs_to(work), say=lambda text: None, **settings)
    return make


def test_a_full_run_is_taken_again_only_with_its_sigmas_and_options(comparison, runs):
    comparison().runs()
    done = len(runs)
    comparison().runs()
    comparison(sigmas=(1.5, 10000.0, 4.0)).runs()          # the grid's best
    assert len(runs) == done and ("relion", (1.5, 10000, 4)) in runs
    with pytest.raises(SystemExit, match=r"'relion regularised 2 threads 1' was done with other settings than sigmas 0.5 5000 2: .*--redo relion"):
        comparison(sigmas=(0.5, 5000, 2)).runs()
    with pytest.raises(SystemExit, match=r"'ours .* than options --passes 1: .*--redo ours"):
        comparison(extra=("--passes", "1")).runs()
    comparison(redo=("relion", "ours"), sigmas=(0.5, 5000, 2), extra=("--passes", "1")).runs()
    assert runs[-2:] == [("relion", (0.5, 5000, 2)), ("ours", ("--passes", "1"))]
    comparison(sigmas=(0.5, 5000, 2), extra=("--passes", "1")).runs()
    with pytest.raises(SystemExit, match="other settings"):
        comparison().runs()


def test_maps_are_those_of_the_runs_at_hand(comparison, runs, monkeypatch):
    monkeypatch.setattr(engine, "polish_along_truth", lambda *arguments: "particles.star")
    comparison().maps()
    comparison().maps()
    with pytest.raises(SystemExit, match="'maps relion regularised'.*--redo maps"):
        comparison(sigmas=(0.5, 5000, 2)).maps()
    with pytest.raises(SystemExit, match="'maps ours regularised'.*--redo maps"):
        comparison(extra=("--passes", "1")).maps()


def test_a_journal_without_settings_is_taken_for_the_usual_ones(comparison, runs, tmp_path):
    comparison().runs()
    known = json.loads((tmp_path / "steps.json").read_text())
    del known["settings of steps"]
    (tmp_path / "steps.json").write_text(json.dumps(known))
    done = len(runs)
    comparison().runs()
    assert len(runs) == done
    for settings in ({"sigmas": (0.5, 5000, 2)}, {"extra": ("--passes", "1")}, {"grid_movies": 1}):
        with pytest.raises(SystemExit, match="other settings"):
            comparison(**settings).runs()


def test_the_smaller_cases_tell_their_settings_apart(data, tmp_path, runs, monkeypatch):
    monkeypatch.setattr(extras.NoMotion, "_ours", lambda self: 0.1)

    def no_motion(halves="regularised", threads=2, extra=()):
        work = project.Project.make(tmp_path / "project", data)
        return extras.NoMotion(work, project.Journal(tmp_path / "steps.json"), threads, halves, extra, lambda text: None).sections()

    def memory(threads=2, extra=(), counts=(1, 2)):
        work = project.Project.make(tmp_path / "project", data)
        return extras.Memory(work, project.Journal(tmp_path / "memory.json"), threads, counts, True, extra, lambda text: None).sections()

    no_motion(), memory(), no_motion(), memory()
    for step, again in (("reference", lambda: no_motion("raw")), ("ours", lambda: no_motion(threads=1)), ("ours", lambda: no_motion(extra=("--x",))),
                        ("ours memory 1", lambda: memory(1)), ("ours memory 1", lambda: memory(2, ("--x",)))):
        with pytest.raises(SystemExit, match=f"the step '{step}' was done with other settings"):
            again()
    with pytest.raises(SystemExit, match="has 2 movies and 5 were asked for"):
        memory(counts=(1, 5))


def test_movies_and_seed_that_differ_from_the_data_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(relion, "require_relion", lambda: None)
    for option, value in (("--movies", "24"), ("--seed", "4")):
        with pytest.raises(SystemExit, match=f"was simulated with {option} "):
            against_relion.main(["memory", str(tmp_path), "--data", str(data), option, value])
    options = against_relion._parser().parse_args(["memory", str(tmp_path), "--data", str(data), "--movies", "2", "--seed", "3"])
    assert against_relion._project(options, {}).spec == TINY


def test_memory_simulates_as_many_movies_as_its_largest_run(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(against_relion.extras, "simulate_data", lambda folder, values, say: asked.update(values))
    with pytest.raises(SystemExit, match="holds no simulated data set"):
        against_relion.main(["memory", str(tmp_path), "--counts", "3", "24"])
    assert asked["movies"] == 24 and asked["seed"] == 7


def test_parts_have_a_file_of_their_own_and_unknown_ones_are_refused_at_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr(relion, "require_relion", lambda: None)
    monkeypatch.setattr(compare, "everything", lambda comparison, say, parts: [("Parts", ", ".join(parts))])
    monkeypatch.setattr(compare, "all_results", lambda comparison, parts: {})
    arguments = ["compare", str(tmp_path), "--data", str(data), "--results", str(tmp_path / "results")]
    with pytest.raises(SystemExit, match="--parts: map is none of grid, speed"):
        against_relion.main([*arguments, "--parts", "speed,map"])
    for extra in ([], ["--parts", "grid,tracks"], ["--parts", "grid", "--name", "mine"]):
        against_relion.main(arguments + extra)
    assert sorted(path.stem for path in (tmp_path / "results").glob("*.md")) == ["compare", "compare-grid-tracks", "mine"]


def test_runs_on_more_movies_than_there_are_are_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cost, "simulate", lambda folder, spec, say: asked.append(spec) or (folder / "truth").mkdir(parents=True)
                        or spec.write(folder / "truth" / "spec.json"))

    def project_for(relion_counts):
        return cost.Cost(folder=tmp_path, journal=None, threads=(1,), frames=16, counts=(4, 8), relion_counts=relion_counts, cases=(cost.PLAIN,),
                         say=lambda text: None).project(cost.PLAIN)

    assert project_for((2, 12)).spec.movies == asked[0].movies == 12 and project_for((2, 8)).spec.movies == 12
    with pytest.raises(SystemExit, match="has 12 movies and 20 were asked for"):
        project_for((2, 20))


def test_the_search_refuses_data_of_another_draw_and_options_that_would_do_nothing(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(searching_data.CASES, "tiny", asdict(TINY))
    (tmp_path / "tiny").symlink_to(data)
    assert searching_data.data_set(tmp_path, "tiny") == tmp_path / "tiny"
    with pytest.raises(SystemExit, match="holds another data set .* give another OUT"):
        searching_data.data_set(tmp_path, "tiny", seed=103)
    for arguments in (["grid", "OUT", "--draw", "100"], ["seeds", "OUT", "--only", "jitter"], ["kinds", "OUT", "--only", "jiter"]):
        with pytest.raises(SystemExit):
            search.main(arguments)
    assert "--draw and --only go with kinds alone" in capsys.readouterr().err


def test_some_kinds_have_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "require_relion", lambda: None)
    monkeypatch.setattr(search.kinds, "run", lambda *arguments: ("table", {}))
    for extra in ([], ["--only", "jitter", "gentle", "--draw", "100"]):
        search.main(["kinds", str(tmp_path), "--results", str(tmp_path), *extra])
    assert sorted(path.stem for path in tmp_path.glob("*.md")) == ["search-kinds", "search-kinds-jitter-gentle-draw-100"]


def test_a_mosaic_is_made_anew_for_other_particles_or_another_compression(tmp_path, monkeypatch):
    monkeypatch.setitem(mosaic.CAMERAS, "dot", mosaic.Camera((160, 160), (2, 2), 2, 2.0, 64))
    made = lambda *how: mosaic.make_mosaic(tmp_path, "dot", 1, *how)
    file = tmp_path / "Movies" / "large_001.tiff"
    kept = (made(3), file.stat())[1]
    made(3)
    assert file.stat().st_mtime_ns == kept.st_mtime_ns
    made(3, None)
    assert file.stat().st_size > kept.st_size >= 1
    tile = made(4, None).tile
    assert SimulationSpec.read(tile / "truth" / "spec.json").particles == 4 and file.stat().st_mtime_ns > (tile / "particles.star").stat().st_mtime_ns


def test_a_second_command_on_the_gpu_is_measured_anew(tmp_path, monkeypatch):
    """A finished job in the folder would be found done, and its old times printed."""
    left = tmp_path / "job_24_0"
    left.mkdir()
    monkeypatch.setattr(gpu_case, "save_weights", lambda path, values: None)
    monkeypatch.setattr(gpu_case, "exposure_weights", lambda movie: None)

    def run(command, check, stdout, stderr):
        assert not left.exists()
        left.mkdir()
        (left / "status.jsonl").write_text("".join(json.dumps({"event": "polish", "state": "done", "time": t}) + "\n" for t in (1.0, 2.0)))

    monkeypatch.setattr(gpu_case.subprocess, "run", run)
    camera = object.__new__(gpu_case.Camera)
    camera.movie, camera.device, camera.threads, camera.decode_s = None, "cpu", 1, 0.5
    camera.mosaic = type("Movies", (), {"command": lambda self, count: []})()
    assert camera.command(24, tmp_path, 0)["movies"] == 2


def test_dose_weights_are_those_of_a_new_job_on_the_data_asked_for(data, tmp_path, monkeypatch):
    class Reached(Exception):
        pass

    def run_job(folder, spec):
        assert not folder.exists()
        raise Reached

    simulated = []
    monkeypatch.setattr("refmotion_plugin.engine.run.job.run_job", run_job)
    monkeypatch.setattr(weights, "simulate", lambda folder, spec: simulated.append(spec.seed))
    shutil.copytree(data, tmp_path / "data")
    for seed in (TINY.seed, TINY.seed + 1):
        monkeypatch.setattr(weights, "SIMULATED", replace(TINY, seed=seed, threads=2))
        (tmp_path / "job").mkdir()
        with pytest.raises(Reached):
            weights.movies(tmp_path)
    assert simulated == [TINY.seed + 1]


def test_both_protocols_on_other_data_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "what_is_missing", lambda: None)
    monkeypatch.setattr(beside, "both_protocols", lambda out, project: {})
    monkeypatch.setattr(beside, "compared", lambda run, project: ([], {}))
    arguments = [str(tmp_path / "out"), "--results", str(tmp_path), "--data"]
    other = tmp_path / "other"
    (other / "truth").mkdir(parents=True)
    replace(TINY, seed=4).write(other / "truth" / "spec.json")
    assert beside.main([*arguments, str(data)]) == 0
    with pytest.raises(SystemExit, match="another data set"):
        beside.main([*arguments, str(other)])


@pytest.mark.parametrize("place", [".", "out", ".."])
def test_an_installation_is_not_checked_inside_the_checkout(place, monkeypatch, capsys):
    for name in ("glob", "mkdir"):
        monkeypatch.setattr(install_check.Path, name, lambda *arguments, **keywords: pytest.fail("it would have been worked in"))
    monkeypatch.setattr(sys, "argv", ["install_check.py", str(install_check.ROOT / place)])
    with pytest.raises(SystemExit):
        install_check.main()
    assert "OUT must lie beside" in capsys.readouterr().err


def test_averages_need_a_local_motion(capsys):
    with pytest.raises(SystemExit):
        averages.main(["OUT", "--patches", "1"])
    assert "--patches must be at least 2" in capsys.readouterr().err
