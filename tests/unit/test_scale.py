"""A wrong voxel size of the reference is told before the long run, and by how much it is wrong."""
from dataclasses import replace

import numpy as np
import pytest

from refmotion_plugin.contract.layout import JobLayout, mark_done
from refmotion_plugin.engine.run.verdict import early_warnings
from refmotion_plugin.engine.stages import preflight
from refmotion_plugin.engine.stages.scale import NOTICED, WIDEST, ScaleScan, tried_scales


def scan(best=1.0, width=0.04, z=100.0, scales=tried_scales(70.0)):
    agreement = z * np.exp(-0.5 * ((scales - best) / width) ** 2)
    return ScaleScan(1, 2.0, scales, 4.0 * agreement, np.full(len(scales), 16.0))


@pytest.mark.parametrize("radius, step", [(20.0, 0.03), (100.0, 0.02), (400.0, 0.005)])
def test_steps_are_as_fine_as_the_particle_is_large(radius, step):
    scales = tried_scales(radius)
    assert np.allclose(np.diff(scales), step) and scales[len(scales) // 2] == 1.0 and scales[0] <= 1 - WIDEST and scales[-1] >= 1 + WIDEST


@pytest.mark.parametrize("best", [1.0, 0.97, 1.045, 1.1])
def test_the_top_is_found_between_the_steps(best):
    found, error = scan(best).best
    assert found == pytest.approx(best, abs=0.003) and error == pytest.approx(0.04 / 100.0, rel=0.3)
    assert bool(scan(best).warnings) == (best != 1.0)


def test_the_error_is_the_scatter_of_the_top():
    """Noise of neighbouring scales is nearly the same, as it is in the movies: drawn as data of which the scales are templates."""
    scales, x, rng = tried_scales(70.0), np.linspace(-1, 1, 400), np.random.default_rng(0)
    templates = np.array([np.sin(70.0 * x * s) * np.exp(-0.5 * (x / 0.45) ** 2) for s in scales])
    tops, errors = [], []
    for _ in range(200):
        data = 3.0 * templates[len(scales) // 2] + rng.normal(size=len(x))
        found = ScaleScan(0, 2.0, scales, templates @ data, (templates ** 2).sum(1)).best
        tops.append(found[0])
        errors.append(found[1])
    assert 0.6 < np.std(tops) / np.mean(errors) < 1.5


def test_what_is_too_small_too_weak_or_at_the_end_is_not_said():
    assert scan(1 + 0.8 * NOTICED).warnings == () and scan(1.04, z=5.0).warnings == () and scan(1.04, width=0.3, z=15.0).warnings == ()
    assert scan(1.5).best is None and "does not tell" in scan(1.5).text
    assert scan(z=41.0).enough and not scan(z=39.0).enough


def test_the_sentence_says_what_is_given_and_what_fits():
    text, = scan(0.96).warnings
    assert "3.9 ± 0.0 % smaller" in text and "2.0000 Å and looks like 1.921" in text
    assert "larger" in scan(1.04).warnings[0] and "reference 2" in scan().text
    assert (scan(0.96) + scan(0.96)).z.max() == pytest.approx(2 ** 0.5 * scan(0.96).z.max())


@pytest.mark.parametrize("factor", [1.0, 1.04, 0.97])
def test_a_header_that_is_wrong_is_told_by_the_movies(tiny, factor, caplog):
    reference = tiny.prepared.references[0]
    job = replace(tiny.prepared, references=(replace(reference, pixel_angstrom=factor * reference.pixel_angstrom),))
    report = preflight.preflight(tiny.movies, tiny.of, job)
    found, error = report.scales[0].best
    assert found * factor == pytest.approx(1.0, abs=max(5 * error, 0.006)) and len(report.warnings) == (factor != 1.0)
    assert all(text in caplog.text for text in report.warnings)


def test_movies_after_one_that_tells_enough_are_not_scanned(tiny, monkeypatch):
    calls = []
    monkeypatch.setattr(preflight, "tried_scales", lambda radius: (calls.append(radius), tried_scales(radius))[1])
    one = preflight.preflight(tiny.movies, tiny.of, tiny.prepared)
    assert len(calls) == 1 and one.scales[0].enough
    monkeypatch.setattr(ScaleScan, "enough", False)
    both = preflight.preflight(tiny.movies, tiny.of, tiny.prepared)
    assert len(calls) == 3 and both.scales[0].best[1] < 0.9 * one.scales[0].best[1]


def test_the_verdict_hears_of_it(tmp_path):
    layout = JobLayout(tmp_path)
    mark_done(layout.preflight_done, "a", warnings=["the voxel size"])
    mark_done(layout.calibrate_done, "a", warnings=["the half-sets"])
    assert early_warnings(layout, "a") == ("the voxel size", "the half-sets") and early_warnings(layout, "b") == ()
