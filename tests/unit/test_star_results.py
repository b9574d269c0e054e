"""B-factors, tracks and sigmas of RELION, with their signs."""
from pathlib import Path

import numpy as np
import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.star import (read_bfactors_star, read_relion_sigmas, read_tables, read_tracks_star,
                                            write_bfactors_star, write_tracks_star)

DATA = Path(__file__).parent.parent / "data"


def test_damage_has_a_positive_b_factor():
    b_factor, scale = read_bfactors_star(DATA / "bfactors.star")
    np.testing.assert_allclose(b_factor, [5.4, 0.1, 24.0])
    np.testing.assert_allclose(scale, np.exp([0.008, -3e-4, -0.067]))


def test_b_factors_come_back(tmp_path):
    write_bfactors_star(tmp_path / "b.star", np.array([5.0, -1.0, 90.0]), np.array([0.5, 1.0, 0.2]))
    b_factor, scale = read_bfactors_star(tmp_path / "b.star")
    np.testing.assert_allclose(b_factor, [5.0, -1.0, 90.0])
    np.testing.assert_allclose(scale, [0.5, 1.0, 0.2], rtol=1e-5)
    table = read_tables(tmp_path / "b.star")["perframe_bfactors"].columns
    assert table["rlnMovieFrameNumber"] == ["0", "1", "2"] and float(table["rlnBfactorUsedForSharpening"][2]) == -90


def test_b_factors_of_missing_frames_are_refused(tmp_path):
    (tmp_path / "b.star").write_text((DATA / "bfactors.star").read_text().replace("           1     -0.1", "           3     -0.1"))
    with pytest.raises(InputError, match="one row per frame counted from 0"):
        read_bfactors_star(tmp_path / "b.star")


def test_tracks_hold_plus_the_displacement(tmp_path):
    displacement = np.arange(12.0).reshape(2, 3, 2) - 4.0
    write_tracks_star(tmp_path / "t.star", displacement)
    tables = read_tables(tmp_path / "t.star")
    assert list(tables) == ["general", "0", "1"] and tables["general"].columns == {"rlnParticleNumber": ["2"]}
    assert [float(v) for v in tables["0"].columns["rlnOriginXAngst"]] == displacement[0, :, 1].tolist()
    np.testing.assert_allclose(read_tracks_star(tmp_path / "t.star"), displacement)


def test_sigmas(tmp_path):
    (tmp_path / "opt.txt").write_text("0.4245 1605 2.61\n")
    assert read_relion_sigmas(tmp_path / "opt.txt") == (0.4245, 1605.0, 2.61)
    (tmp_path / "opt.txt").write_text("0.4245 1605\n")
    with pytest.raises(InputError, match="holds 2 numbers"):
        read_relion_sigmas(tmp_path / "opt.txt")
