"""Particles in and out: fields, signs, half-sets, matching, and nothing lost on the way."""
from pathlib import Path

import numpy as np
import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.star import match_micrographs, read_particles, read_tables, write_left_out, write_particles

DATA = Path(__file__).parent.parent / "data"
FIRST, SECOND = "MotionCorr/job002/Movies/first.mrc", "MotionCorr/job002/Movies/second.mrc"


def changed(tmp_path, old, new, count=-1):
    path = tmp_path / "p.star"
    path.write_text((DATA / "particles.star").read_text().replace(old, new, count))
    return path


def test_fields_and_units():
    particles = read_particles(DATA / "particles.star", 2, 0.885)
    table = particles.table
    assert len(table) == 3 and table.row.tolist() == [0, 1, 2] and set(table.reference) == {2}
    np.testing.assert_allclose(table.coordinate_yx_angstrom[0], [135.7 * 0.885, 675.5 * 0.885])
    np.testing.assert_allclose(table.origin_yx_angstrom[0], [2.757095, -0.9765])
    np.testing.assert_allclose(table.position_yx_angstrom[0], [135.7 * 0.885 - 2.757095, 675.5 * 0.885 + 0.9765])
    np.testing.assert_allclose(table.rotation_zyz_degree[0], [164.955298, 8.034979, -157.02317])
    assert table.half.tolist() == [2, 1, 1] and table.optics_group.tolist() == [1, 1, 2]
    assert table.ctf_scale.tolist() == [1.0, 0.9, 1.0] and table.phase_shift_degree[2] == 45 and table.ctf_bfactor_A2[2] == 5
    assert table.micrograph.tolist() == [FIRST, FIRST, SECOND]


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    path = tmp_path / "p.star"
    text = (DATA / "particles.star").read_text()
    path.write_text(text[text.index("data_optics"):], encoding="utf-8-sig")
    assert len(read_particles(path)) == 3


def test_optics_with_all_aberrations():
    optics = read_particles(DATA / "particles.star").optics
    first, second = optics[1], optics[2]
    assert (first.name, first.voltage_kilovolt, first.spherical_aberration_millimetre, first.amplitude_contrast) == ("opticsGroup1", 200, 1.4, 0.1)
    assert (first.image_pixel_angstrom, first.image_size_px, first.micrograph_original_pixel_angstrom) == (1.244, 256, 0.4425)
    assert first.beam_tilt_xy_milliradian == (0.03, -0.21) and first.mtf_file.endswith("mtf_k2_200kV.star")
    assert first.odd_zernike == (-0.23, 0.09, 1.41, 0, 0, -2.16) and len(first.even_zernike) == 9
    assert first.magnification_matrix == (1.002, 0.0015, 0.0014, 0.999) and not first.ctf_premultiplied
    assert second.mtf_file is None and second.odd_zernike == () and second.ctf_premultiplied


def test_coordinate_pixels_may_differ_by_movie():
    table = read_particles(DATA / "particles.star", 0, lambda names: np.where(names == FIRST, 1.0, 2.0)).table
    np.testing.assert_allclose(table.coordinate_yx_angstrom[:, 1], [675.5, 1244.0, 2 * 1623.217657])


def test_origins_in_pixels_of_the_images(tmp_path):
    path = changed(tmp_path, "Angst", "")
    np.testing.assert_allclose(read_particles(path).table.origin_yx_angstrom[0], np.array([2.757095, -0.9765]) * 1.244)


def test_missing_half_sets(tmp_path):
    path = changed(tmp_path, "rlnRandomSubset", "rlnOther")
    with pytest.raises(InputError, match="no half-sets"):
        read_particles(path)
    assert read_particles(path, half_sets_from_order=True).table.half.tolist() == [1, 2, 1]


@pytest.mark.parametrize("old, new, part", [
    ("data_optics", "data_else", "no optics table.*relion_convert_star"),
    ("rlnAngleRot", "rlnOther", "no orientations"),
    ("rlnDefocusU", "rlnOther", "no column rlnDefocusU"),
    ("10757.672355", "nan", "rlnDefocusU of row 1.*'nan'"),
    ("2.757095            2 ", "2.757095            3 ", "rlnRandomSubset of row 1 is 3"),
    ("secondGroup            2", "secondGroup            7", "optics group 2.*only 1, 7"),
    ("[-0.23,0.09", "[-0.23;0.09", "rlnOddZernike"),
])
def test_faults_are_named(tmp_path, old, new, part):
    with pytest.raises(InputError, match=part):
        read_particles(changed(tmp_path, old, new))


def test_matching_by_name_then_by_base_name():
    movies = ["A/one.mrc", "B/two.mrc", "C/two.mrc", "D/three.mrc", "E/four.mrc"]
    names = ["X/one.tif", "X/one_.mrc", "X/one.tif", "B/two.mrc", "X/two.mrc", "three.mrcs", "E/four.mrc"]
    assert match_micrographs(names, movies).tolist() == [0, -1, 0, 1, -1, 3, 4]


def test_particles_of_a_micrograph_without_a_movie_do_not_go_to_another_of_the_same_base_name():
    """Two sessions count alike, and one movie of the first was left out."""
    names = ["day1/img_1.mrc", "day2/img_1.mrc", "day1/img_2.mrc"]
    assert match_micrographs(names, ["day2/img_1.mrc", "day1/img_2.mrc"]).tolist() == [-1, 0, 1]
    assert match_micrographs(names[:2], ["Movies/img_1.tif"]).tolist() == [-1, -1]


def written(tmp_path, rows=(0, 2), moved=None):
    particles = read_particles(DATA / "particles.star", 0, 0.885)
    path = tmp_path / "out.star"
    write_particles(path, particles, rows, ["%06d@OUT/a.mrcs" % (i + 1) for i in range(len(rows))], {1: (0.885, 360), 2: (0.885, 360)}, moved)
    return particles, path


def test_writing_keeps_everything_else(tmp_path):
    particles, path = written(tmp_path)
    before, after = particles.tables, read_tables(path)
    assert list(after) == ["optics", "particles"]
    assert after["particles"].columns["rlnImageName"] == ["000001@OUT/a.mrcs", "000002@OUT/a.mrcs"]
    for name, values in before["particles"].columns.items():
        if name != "rlnImageName":
            assert after["particles"].columns[name] == [values[0], values[2]], name
    assert list(after["particles"].columns) == list(before["particles"].columns)
    changed_columns = {"rlnImagePixelSize": ["0.885000"] * 2, "rlnImageSize": ["360"] * 2, "rlnCtfDataAreCtfPremultiplied": ["0", "0"]}
    assert after["optics"].columns == {**before["optics"].columns, **changed_columns}


def test_half_sets_that_were_given_by_order_leave_with_the_particles(tmp_path):
    particles = read_particles(changed(tmp_path, "rlnRandomSubset", "rlnOther"), 0, 0.885, half_sets_from_order=True)
    write_particles(tmp_path / "out.star", particles, [0, 2], ["1@a.mrcs", "2@a.mrcs"], {1: (0.885, 360), 2: (0.885, 360)})
    assert particles.table.half.tolist() == [1, 2, 1]
    assert read_particles(tmp_path / "out.star").table.half.tolist() == [1, 1]         # not 1, 2 as their order is now
    assert read_tables(tmp_path / "out.star")["particles"].columns["rlnRandomSubset"] == ["1", "1"]


def test_recentring_moves_origins_into_coordinates_and_keeps_the_position(tmp_path):
    moved_px = np.array([[2.0, -1.0], [3.0, 0.0]])
    particles, path = written(tmp_path, moved=(moved_px, moved_px * 0.885))
    again = read_particles(path, 0, 0.885).table
    np.testing.assert_allclose(again.position_yx_angstrom, particles.table.position_yx_angstrom[[0, 2]], atol=2e-6)
    np.testing.assert_allclose(again.origin_yx_angstrom[0], particles.table.origin_yx_angstrom[0] - [2 * 0.885, -0.885], atol=1e-6)


def test_origins_in_pixels_leave_in_angstrom(tmp_path):
    """For the images that leave may have other pixels."""
    particles = read_particles(changed(tmp_path, "Angst", ""), 0, 0.885)
    write_particles(tmp_path / "out.star", particles, [0, 2], ["1@a.mrcs", "2@a.mrcs"], {1: (0.885, 360), 2: (0.885, 360)})
    np.testing.assert_allclose(read_particles(tmp_path / "out.star").table.origin_yx_angstrom, particles.table.origin_yx_angstrom[[0, 2]], atol=1e-6)
    columns = read_tables(tmp_path / "out.star")["particles"].columns
    assert "rlnOriginX" not in columns and "rlnOriginY" not in columns


def test_left_out_particles_are_listed_with_reasons(tmp_path):
    particles = read_particles(DATA / "particles.star", 1)
    write_left_out(tmp_path / "l.star", [(particles, 1, 'movie failed: it is "cut off" after 3 frames')])
    columns = read_tables(tmp_path / "l.star")["particles"].columns
    assert columns["refmotionReason"] == ["movie failed: it is 'cut off' after 3 frames"]
    assert (columns["refmotionRow"], columns["refmotionReference"], columns["rlnMicrographName"]) == (["2"], ["2"], [FIRST])
