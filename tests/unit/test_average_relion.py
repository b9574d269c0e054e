"""Averages against those of RELION's motion correction of the same movie, along RELION's own motion."""
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import averages  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which(averages.PROGRAM) is None, reason="RELION's motion correction is not installed")


@pytest.fixture(scope="module")
def texture(tmp_path_factory):
    """A small movie of a texture that moves, and the texture."""
    folder = tmp_path_factory.mktemp("texture") / "texture"
    return folder, averages.texture_movie(folder, 512)


def test_rigid_motion_gives_relions_average(texture):
    pair, _ = averages.both_averages(texture[0], 1)
    for kind in ("weighted", "unweighted"):
        correlation, frc, power = averages.compared(*pair[kind])
        assert float(correlation) > 0.9995 and float(frc) > 0.9995 and power == pytest.approx(1, abs=0.01)
        assert pair[kind][0].mean() == pytest.approx(pair[kind][1].mean(), rel=1e-3)         # the same scale, too


def test_local_motion_agrees_at_low_frequency_and_keeps_more_at_high(texture):
    folder, scene = texture
    pair, _ = averages.both_averages(folder, 3)
    for kind in ("weighted", "unweighted"):
        _, frc, power = averages.compared(*pair[kind])
        assert float(frc) > 0.99 and power > 1.2
    ours, theirs = (np.array(averages.signal_kept(image, scene)) for image in pair["unweighted"])
    assert (ours > theirs + 0.03)[:2].all()         # in so small a movie RELION finds the motion no better than that


def test_along_the_true_motion_nearly_all_signal_is_kept(texture):
    folder, scene = texture
    if not (folder / "relion_1" / "movie.star").exists():
        averages.both_averages(folder, 1)
    assert (np.array(averages.signal_kept(averages.true_average(folder), scene)) > [0.98, 0.96, 0.93]).all()
