"""What a RELION project may hold that a set of Scipion says in another way, or cannot say: EER, files of each optics group, several kinds."""
import os
import re
import shutil

import pytest

from refmotion_plugin import convert
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.star import read_corrected_micrographs, read_movie_metadata
from refmotion_plugin.convert import producers
from refmotion_plugin.headless import new_protocol, run_protocol
from refmotion_plugin.protocols.protocol_exchange import _exposure

from .relion_files import SIZE_XY, write_project

LIST = "MotionCorr/corrected_micrographs.star"


@pytest.fixture
def relion(tmp_path):
    """A RELION project of its own, to be changed."""
    write_project(tmp_path / "relion")
    return tmp_path / "relion"


def edit(path, *changes):
    text = path.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


def add_to_general(star, **values):
    edit(star, ("_rlnVoltage", "".join("_%s %s\n" % item for item in values.items()) + "_rlnVoltage"))


def brought_in(in_project, folder, there):
    """The movies imported, written as files of a job, and read as the engine does; and the set."""
    project = convert.RelionProject(str(folder), str(folder / LIST))
    links, name = str(there / "links"), "_kinds%s" % there.name
    os.makedirs(links, exist_ok=True)
    movies = in_project[1]._createSetOfMovies(name)
    convert.fill_movies(movies, project, links)
    star, _, _ = convert.write_movies(movies, str(there))
    return [read_movie_metadata(item.metadata_star, item.name) for item in read_corrected_micrographs(star)[0]], movies


def test_continue_notices_changed_files_and_what_is_not_asked_for_any_more(in_project, relion):
    project, star = in_project[0], relion / "particles.star"
    protocol = run_protocol(project, "ProtImportRelionMovies", projectFolder=str(relion), moviesStar=LIST, particlesStar="particles.star particles.star")
    protocol.makePathsAndClean()
    assert [name for name, _ in protocol.iterOutputAttributes()] == ["outputMovies", "outputParticles", "outputParticles2"]
    protocol.particlesStar.set("particles.star")
    lines = star.read_text().rstrip().split("\n")
    star.write_text("\n".join(lines[:-1]) + "\n")
    project.launchProtocol(protocol, wait=True)
    assert [name for name, _ in protocol.iterOutputAttributes()] == ["outputMovies", "outputParticles"] and protocol.outputParticles.getSize() == 11
    star.write_text("\n".join(lines[:-2]) + "\n")
    protocol.makePathsAndClean()
    assert list(protocol.iterOutputAttributes()) == []


@pytest.mark.parametrize("text, names", [
    ("a b.star", ["a b.star"]), ('"a b.star", c.star', ["a b.star", "c.star"]), ("c.star,d.star\te.star", ["c.star", "d.star", "e.star"]), ("'a b.star", ["'a b.star"]), ("", []), (" c#1.star ", ["c#1.star"])])
def test_names_of_particle_files_may_have_spaces(in_project, tmp_path, text, names):
    folder = tmp_path / "rel on"
    folder.mkdir()
    (folder / "a b.star").write_text("")
    protocol = new_protocol(in_project[0], "ProtImportRelionMovies", projectFolder=str(folder), particlesStar=text)
    assert protocol._particleStars() == [str(folder / name) for name in names]
    if names == ["a b.star"]:
        protocol.particlesStar.set(str(folder / "a b.star"))
        assert protocol._particleStars() == [str(folder / "a b.star")]


def test_a_gain_that_relion_turned_is_not_asked_for(in_project, relion, correction):
    (relion / "gain.mrc").write_bytes(b"gain")
    for m in range(2):
        add_to_general(relion / "MotionCorr" / ("m%d.star" % m), rlnMicrographGainName="gain.mrc")
    protocol = run_protocol(in_project[0], "ProtImportRelionMovies", projectFolder=str(relion), moviesStar=LIST)
    correction.inputMovies.set(protocol)
    correction.inputMovies.setExtended("outputMovies")
    assert correction.inputMovies.get().getGain() and correction._warnings() == []


@pytest.mark.parametrize("number, times", [(1, 1), (2, 2), (3, 4)])
def test_eer_movies_keep_their_fractions_dose_and_size(in_project, relion, tmp_path, number, times):
    for m in range(2):
        star = relion / "MotionCorr" / ("m%d.star" % m)
        shutil.move(relion / "Movies" / ("m%d.mrcs" % m), relion / "Movies" / ("m%d.eer" % m))
        edit(star, ("m%d.mrcs" % m, "m%d.eer" % m))
        add_to_general(star, rlnEERGrouping=25, rlnEERUpsampling=number)
    found, movies = brought_in(in_project, relion, tmp_path)
    for movie in found:
        assert (movie.eer_grouping, movie.eer_upsampling, movie.size_yx) == (25, times, SIZE_XY[::-1])
        assert movie.dose_per_frame_e_per_A2 == pytest.approx(1.25) and movie.pre_exposure_e_per_A2 == pytest.approx(0.5)
        assert len(movie.global_shift_xy_px) == 5
        assert re.search(r"rlnEERUpsampling\s+%d\s" % number, (tmp_path / "movies" / ("%s.star" % movie.key)).read_text())
    assert {row["rlnEERUpsampling"] for row in convert.optics_rows(movies.getAcquisition())} == {str(number)} and convert.grid_size(movies) == SIZE_XY
    assert movies.getDim()[:2] == (SIZE_XY[0] // times, SIZE_XY[1] // times) and movies.getAcquisition().getDosePerFrame() == pytest.approx(0.05)
    protocol = new_protocol(in_project[0], "ProtImportDoseWeights")
    protocol.inputMovies.set(movies)
    assert _exposure(protocol).dose_per_frame_e_per_A2 == pytest.approx(1.25)           # of a fraction, which weights know


def test_optics_groups_without_movies_say_nothing_of_eer(in_project, relion, tmp_path):
    for m in range(2):
        add_to_general(relion / "MotionCorr" / ("m%d.star" % m), rlnEERGrouping=25, rlnEERUpsampling=2)
    edit(relion / LIST, ("MotionCorr/m1.star 2", "MotionCorr/m1.star 1"))
    _, movies = brought_in(in_project, relion, tmp_path)
    rows = convert.optics_rows(movies.getAcquisition())
    assert [row["rlnEERUpsampling"] for row in rows] == ["2", "None"] and convert.grid_size(movies) == SIZE_XY
    movie = movies.getFirstItem()
    movie.setFileName("a.eer")
    with pytest.raises(InputError, match="does not say how many of its frames"):
        producers.eer_of(movie, rows[1], movies.getDim(), 5)


def test_eer_movies_without_an_alignment_do_not_say_the_dose_of_a_fraction(in_project):
    from pwem.objects import Movie
    movies = in_project[1]._createSetOfMovies("_unaligned")
    movies.copyInfo(in_project[1].outputMovies)
    movies.setDim(SIZE_XY + (100,))
    movie = Movie(location="a.eer")
    movies.append(movie)
    movies.write()
    with pytest.raises(InputError, match="a.eer is an EER movie without an alignment.*give the dose per frame"):
        convert.frame_dose(movies)


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b"), ("a", None)])
def test_each_optics_group_keeps_its_gain_and_its_defects(in_project, relion, tmp_path, names):
    for name in ("a", "b"):
        (relion / (name + ".mrc")).write_bytes(b"gain " + name.encode())
        (relion / (name + ".txt")).write_text("1 1 1 1\n")
    for m, name in enumerate(names):
        if name:
            add_to_general(relion / "MotionCorr" / ("m%d.star" % m), rlnMicrographGainName=name + ".mrc", rlnMicrographDefectFile=name + ".txt")
    found, movies = brought_in(in_project, relion, tmp_path)
    for movie, name in zip(found, names):
        for path, ending in ((movie.gain_file, ".mrc"), (movie.defect_file, ".txt")):
            assert path is None if name is None else os.path.realpath(path) == os.path.realpath(relion / (name + ending))
    assert bool(movies.getGain()) == (names == ("a", "a"))


@pytest.mark.parametrize("old, new, what", [
    ("rlnMicrographOriginalPixelSize 1.1", "rlnMicrographOriginalPixelSize 1.06", "pixel size.*1.06 and 1.1"), ("rlnMicrographDoseRate 1.25", "rlnMicrographDoseRate 1.5", "dose per frame"),
    ("rlnMicrographPreExposure 0.5", "rlnMicrographPreExposure 0.0", "dose before"), ("rlnImageSizeX 96", "rlnImageSizeX 98", "frame size")])
def test_movies_of_several_kinds_are_refused(relion, old, new, what):
    star = relion / "MotionCorr" / "m1.star"
    star.write_text("\n".join(" ".join(line.split()) if line.startswith("_rln") and len(line.split()) == 2 else line for line in star.read_text().splitlines()) + "\n")
    edit(star, (old, new))
    with pytest.raises(InputError, match="movies differ.*%s.*refmotion run" % what):
        convert.RelionProject(str(relion), str(relion / LIST))


def test_movies_of_one_group_with_several_gains_are_refused(in_project, relion, tmp_path):
    (relion / "a.mrc").write_bytes(b"gain")
    add_to_general(relion / "MotionCorr" / "m1.star", rlnMicrographGainName="a.mrc")
    edit(relion / LIST, ("MotionCorr/m1.star 2", "MotionCorr/m1.star 1"))
    with pytest.raises(InputError, match="optics group 1 differ in their gain"):
        brought_in(in_project, relion, tmp_path)


def test_particles_of_several_pixel_sizes_are_refused(in_project, relion, tmp_path):
    star = relion / "particles.star"
    star.write_text(re.sub(r"(second .*?)2\.2(\s+16)", r"\g<1>2.4\2", star.read_text(), count=1))
    project = convert.RelionProject(str(relion), str(relion / LIST))
    with pytest.raises(InputError, match="particles differ.*pixel size.*2.2 and 2.4"):
        convert.fill_particles_from_star(in_project[1]._createSetOfParticles("_kinds"), project, str(relion / "particles.star"), str(tmp_path))


def test_particles_without_a_name_of_their_micrograph_are_counted(in_project):
    source = in_project[1].outputParticles
    particles = in_project[1]._createSetOfParticles("_nameless")
    particles.copyInfo(source)
    for particle in source.iterItems():
        particle.getCoordinate().setMicName(None)
        particles.append(particle)
    particles.write()
    counts = convert.micrograph_counts(particles)
    assert sorted(counts.values()) == [6, 6] and {name for name, _ in counts} == {""}
    movies = {movie.getObjId(): movie.getMicName() for movie in in_project[1].outputMovies}
    assert convert.match_movies(movies, counts).matched == 12


def test_names_with_spaces_stay_whole_in_the_optics_table(in_project):
    from pwem.objects import Acquisition
    from refmotion_plugin.contract.startable import StarTable
    from refmotion_plugin.convert.outputs import _update_optics
    acquisition = Acquisition()
    acquisition.opticsGroupInfo.set("data_optics")
    _update_optics(acquisition, StarTable("optics", {"rlnOpticsGroup": ["1"], "rlnMtfFileName": ["/data/my mtf.star"], "rlnBeamTiltX": ["0.5"]}))
    row, = convert.optics_rows(acquisition)
    assert (row["rlnMtfFileName"].strip('"'), row["rlnBeamTiltX"]) == ("/data/my mtf.star", "0.5")
