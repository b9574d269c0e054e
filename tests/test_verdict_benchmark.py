"""The benchmark of the verdict on two of its cases, smaller: one that gains and one whose maps are noise."""
import dataclasses
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import verdict  # noqa: E402


@pytest.mark.parametrize("name, word", [("strong", "gain"), ("noise-maps", "stopped")])
def test_cases(tmp_path, monkeypatch, name, word):
    monkeypatch.setattr(verdict, "BASE", dataclasses.replace(verdict.BASE, movies=2, particles=16, frames=14, contrast_scale=1.5, seed=5))
    found = verdict.judge_case(tmp_path, name)
    assert found["verdict"] == word and found["right"] and found["text"]
    assert len(verdict.CASES) >= 10
