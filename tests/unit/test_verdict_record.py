"""The verdict as a file and for readers."""
from dataclasses import replace

import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout, read_json, write_json
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.verdict import INPUT_MOTION, Change, Finding, Reconstruction, Verdict, b_factor_words, load_verdict, rounded, save_verdict

from tests.unit.job_stand_ins import write_project

VERDICT = Verdict("gain", "Gain: both help.", Finding("gain", 0.08, 0.01, "Trajectories help."), Finding("cannot tell", 0.01, 0.02, ""),
                  Finding("not judged", None, None, "One movie."), 12.5, 1.5, Change(3.9, 3.6, 0.05), ("The masks are odd.",), 900, 12)
MADE = Reconstruction(0, 800, "D2", INPUT_MOTION, (0.0, 0.2, 0.4), (1.0, 0.5, 0.0), (1.0, 0.6, 0.1), 4.0, 3.8, 0.05)


def test_a_verdict_comes_back(tmp_path):
    for verdict in (VERDICT, replace(VERDICT, reconstructions=(MADE, Reconstruction(1, 0, "C1", "", fault="no image")), resolution_angstrom=None, warnings=())):
        save_verdict(tmp_path / "v.json", verdict)
        assert load_verdict(tmp_path / "v.json") == verdict


@pytest.mark.parametrize("change", [lambda d: d.pop("text"), lambda d: d.update(more=1), lambda d: d.update(schema=0),
                                    lambda d: d["trajectories"].pop("gain"), lambda d: d.update(resolution_angstrom={"before": 1}), lambda d: d.update(reconstructions=[{"reference": 0}]),
                                    lambda d: d.update(reconstructions=None)])
def test_something_else_is_refused_in_a_sentence(tmp_path, change):
    save_verdict(tmp_path / "v.json", VERDICT)
    data = read_json(tmp_path / "v.json")
    change(data)
    write_json(tmp_path / "v.json", data)
    with pytest.raises(InputError, match="does not hold a verdict"):
        load_verdict(tmp_path / "v.json")


@pytest.mark.parametrize("change, words", [(3.04, "lower by 3.0 ± 2.2"), (-3.04, "higher by 3.0 ± 2.2"), (-0.04, "lower by 0.0 ± 2.2")])
def test_the_b_factor_is_lower_or_higher_and_its_number_has_no_sign(change, words):
    assert b_factor_words(change, 2.2) == "B-factor %s Å²" % words
    assert "%.0f" % rounded(-0.4) == "0" and "%+.1f" % rounded(-0.04, 1) == "+0.0" and rounded(-0.6) == -1.0


def test_readers_get_it_from_the_results(tmp_path):
    layout = JobLayout(tmp_path / "OUT")
    layout.folder.mkdir()
    layout.job.write_text(write_project(tmp_path / "project").to_json())
    results = JobResults(layout.folder)
    assert results.verdict() is None and "verdict" not in results.summary()
    save_verdict(layout.verdict, VERDICT)
    assert results.verdict() == VERDICT and results.summary()["verdict"] == "Gain: both help."
    assert VERDICT.sentences == ["Gain: both help.", "Trajectories help."]


@pytest.mark.parametrize("changed, said", [
    ({}, "4.00 Å before (input motion and standard exposure curve), 3.80 Å after: better by 0.20 ± 0.05 Å"), ({"after_angstrom": 4.2}, "worse by 0.20 ± 0.05 Å"),
    ({"error_angstrom": 0.2}, "no change of resolution beyond its error (-0.20 ± 0.20 Å)."), ({"after_angstrom": None, "error_angstrom": None}, "after finer than 2.50 Å, the finest that was looked at."),
    ({"after_angstrom": None, "error_angstrom": None, "snr_gain": 0.12, "snr_error": 0.03}, "looked at; signal-to-noise ratio +12 ± 3 %."),
    ({"before": "", "before_angstrom": None, "error_angstrom": None}, "3.80 Å; the input has no images"), ({"fault": "no image."}, "no reconstruction to compare: no image."),
    ({"snr_gain": 0.12, "snr_error": 0.03}, "by 0.20 ± 0.05 Å; signal-to-noise ratio +12 ± 3 %."), ({"reference": 1}, "of reference 2 from 800 particles (D2)")])
def test_a_reconstruction_says_what_changed_and_how_sure_that_is(changed, said):
    assert said in replace(MADE, **changed).sentence
    assert replace(VERDICT, reconstructions=(replace(MADE, **changed),)).sentences[-1] == replace(MADE, **changed).sentence
