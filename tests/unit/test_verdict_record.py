"""The verdict as a file and for readers."""
from dataclasses import replace

import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout, read_json, write_json
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.verdict import Change, Finding, Verdict, load_verdict, save_verdict

from tests.unit.job_stand_ins import write_project

VERDICT = Verdict("gain", "Gain: both help.", Finding("gain", 0.08, 0.01, "Trajectories help."), Finding("cannot tell", 0.01, 0.02, ""),
                  Finding("not judged", None, None, "One movie."), 12.5, 1.5, Change(3.9, 3.6, 0.05), None, ("The masks are odd.",), 900, 12)


def test_a_verdict_comes_back(tmp_path):
    for verdict in (VERDICT, replace(VERDICT, reconstruction_angstrom=Change(4.0, 3.8, 0.1), resolution_angstrom=None, warnings=())):
        save_verdict(tmp_path / "v.json", verdict)
        assert load_verdict(tmp_path / "v.json") == verdict


@pytest.mark.parametrize("change", [lambda d: d.pop("text"), lambda d: d.update(more=1), lambda d: d.update(schema=0),
                                    lambda d: d["trajectories"].pop("gain"), lambda d: d.update(resolution_angstrom={"before": 1})])
def test_something_else_is_refused_in_a_sentence(tmp_path, change):
    save_verdict(tmp_path / "v.json", VERDICT)
    data = read_json(tmp_path / "v.json")
    change(data)
    write_json(tmp_path / "v.json", data)
    with pytest.raises(InputError, match="does not hold a verdict"):
        load_verdict(tmp_path / "v.json")


def test_readers_get_it_from_the_results(tmp_path):
    layout = JobLayout(tmp_path / "OUT")
    layout.folder.mkdir()
    layout.job.write_text(write_project(tmp_path / "project").to_json())
    results = JobResults(layout.folder)
    assert results.verdict() is None and "verdict" not in results.summary()
    save_verdict(layout.verdict, VERDICT)
    assert results.verdict() == VERDICT and results.summary()["verdict"] == "Gain: both help."
    assert VERDICT.sentences == ["Gain: both help.", "Trajectories help."]
