"""Which movie a particle came from."""
import pytest

from refmotion_plugin.convert import bare_name, match_movies

MOVIES = {1: "grid_001.tif", 2: "grid_002.tif"}


@pytest.mark.parametrize("name", ["a/b/grid_001.tif", "grid_001_aligned_mic.mrc", "grid_001_aligned_mic_DW.mrc", "grid_001.mrc",
                                  "012345678901234567890_grid_001_patch_aligned_doseweighted.mrc", "grid_001.mrc.bz2"])
def test_names_of_motion_correction_programs_lead_to_the_movie(name):
    assert bare_name(name) == "grid_001"
    match = match_movies(MOVIES, {(name, None): 7})
    assert match.movie_of == {(name, None): 1} and match.matched == 7


def test_the_id_helps_only_particles_without_a_name():
    match = match_movies(MOVIES, {("", 2): 3, ("grid_001.tif", 2): 4, ("other.tif", 1): 5})
    assert match.movie_of == {("", 2): 2, ("grid_001.tif", 2): 1}
    assert (match.matched, match.unmatched) == (7, 5)
    assert "5 do not, for example of micrograph 'other.tif'" in match.sentence()


def test_ids_decide_when_no_name_is_known_at_all():
    match = match_movies(MOVIES, {("x1", 1): 3, ("x2", 2): 4})
    assert match.movie_of == {("x1", 1): 1, ("x2", 2): 2} and match.by["id"] == 7


def test_a_name_that_two_movies_share_decides_nothing():
    match = match_movies({1: "a/x.tif", 2: "b/x.mrc"}, {("x.eer", 9): 2})
    assert match.unmatched == 2 and match.movie_of == {}


def test_numbers_at_the_start_are_kept_unless_they_are_long_enough():
    assert bare_name("20170629_00021_frameImage.tiff") == "20170629_00021_frameImage"
