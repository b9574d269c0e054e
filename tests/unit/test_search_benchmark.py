"""The benchmarks of the search on a tiny data set: what they print is held against its truth."""
import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import search as benchmark  # noqa: E402
from comparison.measure import ProgramFailed  # noqa: E402
from refmotion_plugin.engine.stages import calibrate  # noqa: E402
from refmotion_plugin.engine.simulate import SimulationSpec  # noqa: E402
from searching import cost, data, errors, grid, kinds, relion_side, seeds, shakes  # noqa: E402


@pytest.fixture
def out(tiny, tmp_path, monkeypatch):
    """A folder whose only data set is the tiny one."""
    (tmp_path / "tiny").symlink_to(tiny.folder)
    monkeypatch.setitem(data.CASES, "tiny", asdict(SimulationSpec.read(tiny.folder / "truth" / "spec.json")))
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


@pytest.mark.parametrize("code, converged", [("pass", True), ("while True: pass", False)])
def test_a_training_that_meets_its_limit_has_not_converged(tmp_path, code, converged):
    usage, ended = relion_side.limited([sys.executable, "-S", "-c", shlex.quote(code)], 1, tmp_path, tmp_path / "log")
    assert ended is converged and (converged or 0.9 < usage.cpu_s < 1.9)


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
                                  "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_training_that_fails_is_no_limit_met(tmp_path, code):
    with pytest.raises(ProgramFailed):
        relion_side.limited([sys.executable, "-S", "-c", shlex.quote(code)], 30, tmp_path, tmp_path / "log")


def test_our_seconds_beside_relions_are_those_of_the_whole(monkeypatch, tmp_path):
    """RELION's training reads, estimates and searches: beside it inputs and calibration count, too."""
    training = {"sigmas": [1.0, 10000.0, 4.0], "evaluations": 9, "converged": True, "cpu_s": 100.0}
    case = {"relion": training, "particles": 20, "cpu_seconds": 2.0, "whole_cpu_seconds": 5.0, "gain": {"ours": 2.0, "RELION": 1.0},
            "errors": {"ours": (0.5, 0.5), "RELION": (1.0, 1.0)}}
    found = SimpleNamespace(particles=20, hyperparameters=None)
    monkeypatch.setattr(cost, "data_set", lambda *a: tmp_path)
    monkeypatch.setattr(cost, "searched", lambda *a: ([], None, None, found, 2.0))
    monkeypatch.setattr(cost, "replace", lambda job, **changes: job)
    monkeypatch.setattr(cost, "polishing_seconds", lambda *a: 1.0)
    monkeypatch.setattr(cost, "as_numbers", lambda found: {})
    monkeypatch.setattr(cost, "against_training", lambda *a: case)
    row = next(line for line in cost.run(tmp_path, 6, 3600, lambda text: None)[0].splitlines() if "--params3" in line).split("|")
    assert "calibration" in row[1] and [float(x) for x in row[2:5]] == [5.0, 100.0, 20.0]


class Side(relion_side.RelionSide):
    """RELION whose error is least at a triple far outside the grid, or falls for ever."""

    def __init__(self, best):
        self.best, self.runs = best, 0

    def _row(self, sigmas, movies):
        self.runs += 1
        return {"sigmas": list(sigmas), "all": 1 + sum(abs(np.log(s / b)) for s, b in zip(sigmas, self.best)), "early": 1.0}


def test_relions_sigmas_are_walked_from_the_edge_of_the_grid():
    side = Side((0.05, 10000, 0.5))
    rows, ended = side.grid(3)
    assert ended and min(rows, key=lambda row: row["all"])["sigmas"] == pytest.approx([0.05, 10000, 0.5])
    side = Side((1e-9, 10000, 1))
    rows, ended = side.grid(3)
    assert not ended and side.runs == len(rows) == len(relion_side.SIGMA_GRID) + relion_side.MOST_FURTHER


def test_a_best_that_was_not_reached_is_marked(monkeypatch, tmp_path):
    pair = (1.0, 1.0)
    case = {"errors": dict.fromkeys(("rigid", "constant", "default", "found"), pair), "search": {"family": "constant"}}
    for ended in (True, False):
        monkeypatch.setattr(kinds, "one_kind", lambda *a: {**case, "relion": {"best_all": pair, "least": pair, "walked_to_the_end": ended}})
        assert ("1.000, 1.000 (further on it may be less)" in kinds.run(tmp_path, 3, lambda text: None, ("drift",))[0]) is not ended


def test_the_best_constant_prior_is_walked_until_nothing_is_gained(monkeypatch):
    """Its parameters depend on each other: one walk along each is not the end; and none goes on for ever where a limit is neared."""
    def kept_error(kept, hyper):
        v, a = np.log(hyper.velocity_sigma), np.log(hyper.acceleration_sigma)
        return (1 + 0.05 * (v - a) ** 2 + 0.05 * (v + 6) ** 2 + 1 / hyper.correlation_distance_angstrom,) * 2

    for module in (kinds, grid):
        monkeypatch.setattr(module, "kept_error", kept_error)
    found = kinds.best_constant(None)
    around = [replace(found, **{name: factor * getattr(found, name)}) for name in kinds.WALKED for factor in grid.STEPS]
    assert min(kept_error(None, h)[0] for h in around) >= (1 - 2 * grid.LEAST_GAIN) * kept_error(None, found)[0]
    assert found.velocity_sigma == pytest.approx(np.exp(-6), rel=0.5)


def test_shakes_are_added_to_the_input_and_to_the_truth_alike(out, monkeypatch):
    monkeypatch.setattr(shakes, "CASES", ("tiny",))
    numbers, text = results_of(out, "shakes")
    still, shaken = numbers["tiny, none"], numbers["tiny, white, 1 Å"]
    assert shaken["as it is"] == pytest.approx(still["as it is"], rel=1e-3) and shaken["measured"] != pytest.approx(still["measured"], rel=1e-3)
    assert "one jump" in text
