"""Motion correction files of RELION: every field, and faults as sentences of the movie."""
import re
from pathlib import Path

import numpy as np
import pytest

from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.star import read_corrected_micrographs, read_movie_metadata

DATA = Path(__file__).parent.parent / "data"


def without(tmp_path, *words):
    """The example without the lines that hold one of the words."""
    lines = (DATA / "movie_motion.star").read_text().split("\n")
    path = tmp_path / "movie.star"
    path.write_text("\n".join(line for line in lines if not any(w in line for w in words)))
    return path


def test_the_list_of_micrographs():
    micrographs, optics = read_corrected_micrographs(DATA / "corrected_micrographs.star")
    assert [m.name for m in micrographs] == ["MotionCorr/job002/Movies/first.mrc", "MotionCorr/job002/Movies/second.mrc"]
    assert Path(micrographs[0].metadata_star).exists()          # found beside the list, from whatever folder
    assert micrographs[1].metadata_star == "absent.star"
    assert optics.number("rlnVoltage") == 200


def test_all_fields_of_a_movie():
    movie = read_movie_metadata(DATA / "movie_motion.star", "M/first.mrc")
    assert movie.micrograph == "M/first.mrc" and movie.key == "M_first"
    assert movie.movie_file == "Movies/first.tiff" and movie.gain_file == "Movies/gain.mrc"
    assert movie.size_yx == (3838, 3710) and movie.n_frames == 4 and movie.start_frame == 1
    assert (movie.original_pixel_angstrom, movie.binning) == (0.4425, 2.0)
    assert (movie.dose_per_frame_e_per_A2, movie.pre_exposure_e_per_A2, movie.voltage_kilovolt) == (1.25, 0.5, 200)
    np.testing.assert_allclose(movie.global_shift_xy_px, [[0, 0], [0.9, -0.8], [1.9, -1.5], [2.5, -2.1]])
    assert movie.local_coefficients.shape == (36,)
    assert movie.local_coefficients[2] == -1.2e-4 and movie.local_coefficients[18] == 0.18
    assert movie.hot_pixels_xy.tolist() == [[1020, 17], [2923, 26]]
    assert movie.eer_grouping is None and movie.defect_file is None


def test_without_global_shift_the_motion_starts_at_zero(tmp_path):
    text = (DATA / "movie_motion.star").read_text()
    (tmp_path / "m.star").write_text(text[:text.index("data_global_shift")])
    movie = read_movie_metadata(tmp_path / "m.star", "m")
    assert not movie.global_shift_xy_px.any() and movie.global_shift_xy_px.shape == (4, 2)
    assert movie.local_coefficients is None and movie.hot_pixels_xy is None


def test_frames_without_a_shift_keep_the_last_one(tmp_path):
    movie = read_movie_metadata(without(tmp_path, " 3     1.900000"), "m")
    np.testing.assert_allclose(movie.global_shift_xy_px, [[0, 0], [0.9, -0.8], [0.9, -0.8], [2.5, -2.1]])


def test_frames_that_were_not_used_are_not_aligned(tmp_path):
    """RELION lists all frames of the file and marks those outside its range with -9999."""
    text = (DATA / "movie_motion.star").read_text()
    text = re.sub(r"(StartFrame +)1", r"\g<1>2", text)
    rows = text[text.index("_rlnMicrographShiftY"):].split("\n")[1:5]
    for number in (1, 4):
        text = text.replace(rows[number - 1], "           %d  -9999.00000  -9999.00000 " % number)
    (tmp_path / "m.star").write_text(text)
    movie = read_movie_metadata(tmp_path / "m.star", "m")
    assert (movie.start_frame, movie.n_frames) == (2, 2)
    np.testing.assert_allclose(movie.global_shift_xy_px, [[0.9, -0.8], [1.9, -1.5]])


def test_a_movie_is_not_taken_for_the_micrograph_of_its_name(tmp_path):
    """An MRC movie of a project seen from elsewhere: Movies/first.mrc is below the project and below the job."""
    job = tmp_path / "MotionCorr" / "job002" / "Movies"
    for folder in (tmp_path / "Movies", job):
        folder.mkdir(parents=True)
        (folder / "first.mrc").write_bytes(b"")
    (job / "first.star").write_text((DATA / "movie_motion.star").read_text().replace("Movies/first.tiff", "Movies/first.mrc"))
    assert read_movie_metadata(job / "first.star", "m").movie_file == str(tmp_path / "Movies" / "first.mrc")


def test_old_files_without_some_columns(tmp_path):
    movie = read_movie_metadata(without(tmp_path, "rlnVoltage", "Binning", "PreExposure", "StartFrame"), "m", 300.0)
    assert (movie.voltage_kilovolt, movie.binning, movie.pre_exposure_e_per_A2, movie.start_frame) == (300.0, 1.0, 0.0, 1)


@pytest.mark.parametrize("written, upsampling", [(1, 1), (2, 2), (3, 4), (4, 4)])
def test_upsampling_as_relion_numbers_it(tmp_path, written, upsampling):
    """3 stands for 16K: its third kind."""
    text = (DATA / "movie_motion.star").read_text()
    (tmp_path / "m.star").write_text(text.replace("_rlnImageSizeZ", "_rlnEERUpsampling %d\n_rlnImageSizeZ" % written))
    assert read_movie_metadata(tmp_path / "m.star", "m").eer_upsampling == upsampling


@pytest.mark.parametrize("gone, part", [
    ("rlnMicrographOriginalPixelSize", "no column rlnMicrographOriginalPixelSize"),
    ("rlnImageSizeZ", "no column rlnImageSizeZ"),
    ("rlnMicrographDoseRate", "no column rlnMicrographDoseRate"),
    ("rlnVoltage", "no column rlnVoltage"),
    ("          35     0.35", "35 local motion coefficients where 36 were expected"),
])
def test_what_is_missing_is_named(tmp_path, gone, part):
    with pytest.raises(MovieError, match=part):
        read_movie_metadata(without(tmp_path, gone), "m")


def test_more_shifts_than_frames(tmp_path):
    path = tmp_path / "m.star"
    path.write_text((DATA / "movie_motion.star").read_text().replace("SizeZ                                        4", "SizeZ 3"))
    with pytest.raises(MovieError, match="shift for frame 4 but says the movie has 3 frames"):
        read_movie_metadata(path, "m")


def test_lists_that_are_none(tmp_path):
    with pytest.raises(MovieError, match="cannot be read"):
        read_movie_metadata(tmp_path / "absent.star", "m")
    with pytest.raises(InputError, match="lists no micrographs"):
        read_corrected_micrographs(DATA / "particles.star")
    text = (DATA / "corrected_micrographs.star").read_text()
    (tmp_path / "c.star").write_text(text.replace("rlnMicrographMetadata", "rlnOther"))
    with pytest.raises(InputError, match="no column rlnMicrographMetadata"):
        read_corrected_micrographs(tmp_path / "c.star")
    (tmp_path / "d.star").write_text(text.replace("Movies/second.mrc", "Movies/first.mrc"))
    with pytest.raises(InputError, match="more than once"):
        read_corrected_micrographs(tmp_path / "d.star")
