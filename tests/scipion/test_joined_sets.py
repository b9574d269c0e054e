"""Movies of several sessions that Scipion joined to one set: each keeps its dose, as its own Acquisition says it."""
import mrcfile
import numpy as np
import pytest
from pwem.objects import SetOfMicrographs, SetOfMovies

from refmotion_plugin import convert
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.star import read_corrected_micrographs, read_movie_metadata
from refmotion_plugin.protocols import input_checks

from .relion_files import PIXEL, shifts_xy_px


@pytest.fixture
def joined(in_project):
    """Function that makes the imported movies (1.25 e/A^2 per frame after 0.5, 300 kV), the second with values of its own, as ``DosePerFrame=3.0``."""
    def make(**own):
        source, movies = in_project[1].outputMovies, SetOfMovies(filename=":memory:")
        movies.copyInfo(source)
        for movie in source.iterItems():
            item = movie.clone()
            for name, value in own.items() if item.getObjId() == 2 else ():
                getattr(item.getAcquisition(), "set" + name)(value)
            movies.append(item)
        return movies
    return make


def written(movies, folder):
    """(dose per frame, dose before, voltage) of each movie as the engine reads it."""
    star, _, _ = convert.write_movies(movies, str(folder))
    found = [read_movie_metadata(item.metadata_star, item.name) for item in read_corrected_micrographs(star)[0]]
    return [(m.dose_per_frame_e_per_A2, m.pre_exposure_e_per_A2, m.voltage_kilovolt) for m in found]


@pytest.mark.parametrize("own, expected", [
    (dict(DosePerFrame=3.0, DoseInitial=0.0), (3.0, 0.0, 300.0)),
    (dict(DosePerFrame=0.0, DoseInitial=None, Voltage=None), (1.25, 0.5, 300.0)),           # a program that leaves them out
    (dict(DosePerFrame=None, DoseInitial=0.0), (1.25, 0.5, 300.0))])
def test_each_movie_has_its_own_dose_or_that_of_the_set(joined, tmp_path, own, expected):
    movies = joined(**own)
    assert input_checks.movie_errors(movies) == [] and written(movies, tmp_path) == [(1.25, 0.5, 300.0), expected]


def test_averages_keep_the_doses(joined, tmp_path):
    paths = {1: str(tmp_path / "1.mrc"), 2: str(tmp_path / "2.mrc")}
    for path in paths.values():
        with mrcfile.new(path) as file:
            file.set_data(np.zeros((4, 4), np.float32))
    output = SetOfMicrographs(filename=":memory:")
    convert.fill_micrographs(output, joined(DosePerFrame=3.0, DoseInitial=0.0), paths, PIXEL)
    found = [m.clone() for m in output.iterItems()]
    assert [(m.getAcquisition().getDosePerFrame(), m.getAcquisition().getDoseInitial()) for m in found] == [(1.25, 0.5), (3.0, 0.0)]
    first_step = np.linalg.norm(np.diff(shifts_xy_px(0), axis=0), axis=1)[0] * PIXEL        # 0.5 + 2 x 1.25 is below 4 e/A^2, 2 x 3.0 is not
    assert [m.getAttributeValue("_rlnAccumMotionEarly") for m in found] == pytest.approx([first_step, 0.0], rel=1e-4)


def test_frames_of_several_doses_have_no_dose_in_common(joined):
    assert convert.frame_dose(joined()) == 1.25
    with pytest.raises(InputError, match="several doses per frame: give the dose"):
        convert.frame_dose(joined(DosePerFrame=3.0))
    summary = convert.frame_summary(joined(DosePerFrame=3.0))
    assert (summary.movies, summary.other, summary.dose_per_frame) == (1, 1, 1.25)


def test_several_voltages_need_optics_groups_that_say_so(joined, tmp_path):
    movies = joined(Voltage=200.0)
    assert "taken at 200 and 300 kV" in input_checks.movie_errors(movies)[0]
    with pytest.raises(InputError, match="200 and 300 kV"):
        convert.write_movies(movies, str(tmp_path))
    optics = movies.getAcquisition().opticsGroupInfo
    head, second = optics.get().split("second", 1)
    optics.set(head + "second" + second.replace("300.0", "200.0"))
    assert input_checks.movie_errors(movies) == [] and [kilovolt for _, _, kilovolt in written(movies, tmp_path)] == [300.0, 200.0]
