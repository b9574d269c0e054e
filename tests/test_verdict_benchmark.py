"""The benchmark of the verdict on two of its cases, smaller: one that gains and one whose maps are noise."""
import dataclasses
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import verdict  # noqa: E402


def test_only_the_folder_of_a_path_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = f"all/data is smaller, see {tmp_path}/all/job and small/x, 'all/y' and z/all/w"
    assert verdict.without_folder(text, Path("all")) == "OUT/data is smaller, see OUT/job and small/x, 'OUT/y' and z/all/w"
    assert verdict.without_folder(text, tmp_path / "all") == text.replace(str(tmp_path / "all"), "OUT")


@pytest.mark.parametrize("name, word", [("strong", "gain"), ("noise-maps", "stopped")])
def test_cases(tmp_path, monkeypatch, name, word):
    monkeypatch.setattr(verdict, "BASE", dataclasses.replace(verdict.BASE, movies=2, particles=16, frames=14, contrast_scale=1.5, seed=5))
    found = verdict.judge_case(tmp_path, name)
    assert found["verdict"] == word and found["right"] and found["text"]
    assert len(verdict.CASES) >= 10
