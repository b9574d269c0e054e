"""The benchmarks of the search on a tiny data set: what they print is held against its truth."""
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import search as benchmark  # noqa: E402
from refmotion_plugin.engine.stages import calibrate  # noqa: E402
from searching import data, errors, grid, relion_side, seeds, shakes  # noqa: E402


@pytest.fixture
def out(tiny, tmp_path, monkeypatch):
    """A folder whose only data set is the tiny one."""
    (tmp_path / "tiny").symlink_to(tiny.folder)
    monkeypatch.setattr(seeds, "CASES", {"tiny": 12})
    monkeypatch.setattr(grid, "CASES", ("tiny",))
    monkeypatch.setattr(grid, "VELOCITY", (0.1, 0.5))
    monkeypatch.setattr(grid, "ACCELERATION", (0.03,))
    monkeypatch.setattr(grid, "DISTANCE", (1500.0,))
    monkeypatch.setattr(grid, "WALKED", ("velocity_sigma",))
    return tmp_path


def results_of(out, case):
    assert benchmark.main([case, str(out), "--movies", "2", "--results", str(out)]) == 0
    return json.loads((out / f"search-{case}.json").read_text()), (out / f"search-{case}.md").read_text()


def test_the_best_of_the_grid_is_at_least_as_good_as_what_was_found(out):
    numbers, text = results_of(out, "grid")
    case = numbers["tiny"]
    assert case["best"][0] <= min(case["found"][0], case["default"][0]) and case["points"] >= 5
    assert "found / best" in text and str(out) not in text


def test_seeds_are_held_against_each_other(out):
    numbers, text = results_of(out, "seeds")
    case = numbers["tiny"]
    assert case["searches"]["seed 0"]["particles"] == 12 and set(case["errors"]) == {"default", "seed 0", "seed 1"}
    assert "apart, all" in text and "12 (" in text


def test_kept_maps_give_the_errors_of_the_alignment(out):
    folder = data.data_set(out, "tiny")
    movies, of, job = data.open_project(folder)
    job = calibrate.calibrate(movies, of, job)
    kept = errors.kept_error(errors.kept_movies(folder, movies, of, job), job.hyperparameters)
    whole = errors.aligned_errors(folder, movies, of, job, {"rigid": None, "default": job.hyperparameters})
    assert kept == pytest.approx(whole["default"], rel=0.1) and kept[0] < 0.6 * whole["rigid"][0]


def test_the_last_sigmas_of_a_training_are_read():
    log = " + Reading\n1: \t 0.60000 \t 10000.00000 \t 3.00000 \t 0.0088\n12: \t 1.89644 \t 18157.51890 \t 1.98218 \t 0.008811570357\n"
    assert relion_side.read_training(log) == {"sigmas": [1.89644, 18157.5189, 1.98218], "evaluations": 12}
    with pytest.raises(SystemExit, match="named no sigmas"):
        relion_side.read_training("nothing")


def test_shakes_are_added_to_the_input_and_to_the_truth_alike(out, monkeypatch):
    monkeypatch.setattr(shakes, "CASES", ("tiny",))
    numbers, text = results_of(out, "shakes")
    still, shaken = numbers["tiny, none"], numbers["tiny, white, 1 Å"]
    assert shaken["as it is"] == pytest.approx(still["as it is"], rel=1e-3) and shaken["measured"] != pytest.approx(still["measured"], rel=1e-3)
    assert "one jump" in text
