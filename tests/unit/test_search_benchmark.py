"""The benchmark of the search: one data set, searched and held against its truth."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import search as benchmark  # noqa: E402


def test_the_benchmark_prints_errors_against_the_truth(tiny, tmp_path, capsys):
    assert benchmark.main([str(tiny.folder), "--thoroughness", "fast", "--seeds", "0", "--results", str(tmp_path)]) == 0
    case = json.loads((tmp_path / "search.json").read_text())
    case = case.get("results", case)
    case = next(part[tiny.folder.name] for part in (case, *[v for v in case.values() if isinstance(v, dict)]) if tiny.folder.name in part)
    errors = case["errors_angstrom"]
    assert errors["seed 0"][0] < 0.6 * errors["rigid"][0] and errors["default"][0] < 0.6 * errors["rigid"][0]
    one = case["seeds"]["0"]
    assert one["worth_it"] and one["particles"] == 24 and one["family"] in one["margins"]
    said = capsys.readouterr().out
    assert "| %s" % tiny.folder.name in said and "found / default" in said and str(tiny.folder.parent) not in (tmp_path / "search.md").read_text()


def test_movies_may_be_fewer(tiny, tmp_path):
    benchmark.main([str(tiny.folder), "--thoroughness", "fast", "--seeds", "0", "--movies", "1", "--results", str(tmp_path), "--name", "one"])
    assert '"particles": 12' in (tmp_path / "one.json").read_text()
