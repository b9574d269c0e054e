"""Sets with the attributes that other plugins write become the files they mean. Names as in scipion-em-relion, -motioncorr, -xmipp, -cryosparc2."""
import json
import os
import shutil

import numpy as np
import pytest
from pwem.emlib.image import ImageHandler
from pwem.objects import Image, Movie, MovieAlignment
from pyworkflow.object import CsvList, Float, Integer, String

from refmotion_plugin import convert
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.star import read_corrected_micrographs, read_movie_metadata, read_particles
from refmotion_plugin.headless import new_protocol

from .relion_files import FRAMES, PARTICLE_PIXEL, PIXEL, SIZE_XY, write_map

SHIFT = np.array([[0.0, 0.0], [1.5, -0.5], [2.75, -1.25], [3.5, -1.75], [4.0, -2.0]])
MIDDLE = SHIFT - SHIFT[2]                     # of a program that aligns to the frame in the middle
OPTICS = ("\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographOriginalPixelSize #3\n_rlnVoltage #4\n"
          "_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n_rlnImageSize #7\n_rlnImageDimensionality #8\n_rlnMicrographPixelSize #9\n"
          "_rlnMicrographStartFrame #10\n%sopticsGroup1 1 1.1 300.0 2.7 0.1 96 2 1.1 1 %s\n")


@pytest.fixture
def movie_set(in_project):
    """Function that makes a set of one movie; ``marks`` are attributes of the movie."""
    count = iter(range(100))

    def make(shift=SHIFT, first=1, file_name="Runs/x/extra/m0.mrcs", roi=(0, 0, 0, 0), optics=None, frames_range=None, gain=None, **marks):
        source = in_project[1].outputMovies
        movies = in_project[1]._createSetOfMovies("_chained%d" % next(count))
        movies.copyInfo(source)
        movies.setGain(gain)
        movies.getAcquisition().opticsGroupInfo.set(optics)
        movie = Movie(location=file_name)
        movie.setMicName(os.path.basename(file_name))
        movie.setFramesRange(frames_range or [1, FRAMES, 1])
        alignment = MovieAlignment(first=first, last=first + len(shift) - 1, xshifts=shift[:, 0].tolist(), yshifts=shift[:, 1].tolist())
        alignment.setRoi(list(roi))
        movie.setAlignment(alignment)
        for name, value in marks.items():
            setattr(movie, name, value)
        movies.append(movie)
        movies.setDim(SIZE_XY + (FRAMES,))
        movies.write()
        return movies
    return make


def written(movies, folder):
    """What the job is told of the movie."""
    star, _, without = convert.write_movies(movies, str(folder))
    item = read_corrected_micrographs(star)[0][0]
    assert not without
    return read_movie_metadata(item.metadata_star, item.name)


def csv(values):
    found = CsvList()
    found.set(list(values))
    return found


def flexalign_marks(shift):
    """As XmippProtFlexAlign leaves them on its movies."""
    return {"plotCart": Image(location="plot.png"), "psdCorr": Image(location="corrected.psd"), "_xmipp_ShiftX": csv(shift[:, 0]),
            "_xmipp_ShiftY": csv(shift[:, 1])}


# ---- movies -----------------------------------------------------------------------------------------------------------------

def test_relion_motioncor_with_local_motion_hot_pixels_and_a_transformed_gain(movie_set, tmp_path):
    coefficients = np.linspace(-0.4, 0.5, 36)
    movies = movie_set(optics=OPTICS % ("_rlnMicrographGainName #11\n_rlnMicrographDefectFile #12\n", "turned.mrc defects.txt"), gain="as_imported.mrc",
                       _rlnMotionModelCoeff=String(json.dumps(["%.6f" % c for c in coefficients])),       # texts in some versions
                       _rlnHotPixels=String(json.dumps([[3, 7], [40.0, 11.0]])))
    found = written(movies, tmp_path)
    np.testing.assert_allclose(found.global_shift_xy_px, SHIFT)
    np.testing.assert_allclose(found.local_coefficients, coefficients, atol=1e-6)
    np.testing.assert_array_equal(found.hot_pixels_xy, [[3, 7], [40, 11]])
    assert (found.gain_file, found.defect_file) == ("turned.mrc", "defects.txt")


def test_relion_motioncor_without_patches_or_optics(movie_set, tmp_path):
    found = written(movie_set(gain="gain.mrc", _rlnHotPixels=String("[]")), tmp_path)
    assert found.local_coefficients is None and found.hot_pixels_xy is None and found.gain_file == "gain.mrc"


def test_motioncor_keeps_the_frame_it_aligned_to(movie_set, tmp_path):
    """Its set is relative to the first frame, its micrograph shows the one in the middle: the log beside the set says which."""
    movies = movie_set(optics=OPTICS % ("", ""))
    extra = os.path.join(os.path.dirname(movies.getFileName()), "extra")
    log = os.path.join(extra, "m0-Patch-Full.log")
    os.makedirs(extra, exist_ok=True)
    lines = ["# Patch based alignment", "# Initial alignment based upon full frames", ""]
    try:
        for applied, expected in ((MIDDLE, MIDDLE), (MIDDLE * [1.0, -1.0], SHIFT), (MIDDLE[:4], SHIFT)):     # the others are not of this motion
            with open(log, "w", encoding="utf-8") as file:
                file.write("\n".join(lines + ["%4d  %8.2f  %8.2f" % ((i,) + tuple(s)) for i, s in enumerate(applied, 1)]) + "\n")
            np.testing.assert_allclose(written(movies, tmp_path).global_shift_xy_px, expected)
    finally:
        os.unlink(log)
    np.testing.assert_allclose(written(movies, tmp_path).global_shift_xy_px, SHIFT)
    run = os.path.join(os.path.dirname(os.path.dirname(movies.getFileName())), "000999_ProtMotionCorr")
    os.makedirs(os.path.join(run, "extra"))
    try:                # a subset, or what another protocol made of the set
        with open(os.path.join(run, "extra", "m0-Full.log"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines + ["%4d  %8.2f  %8.2f" % ((i,) + tuple(s)) for i, s in enumerate(MIDDLE, 1)]) + "\n")
        np.testing.assert_allclose(written(movies, tmp_path).global_shift_xy_px, MIDDLE)
    finally:
        shutil.rmtree(run)


def test_flexalign_shifts_keep_their_origin(movie_set, tmp_path):
    found = written(movie_set(MIDDLE, **flexalign_marks(MIDDLE)), tmp_path)
    np.testing.assert_allclose(found.global_shift_xy_px, MIDDLE)
    assert found.local_coefficients is None                 # its B-splines stay in its own files


@pytest.mark.parametrize("file_name, flexalign, given, expected", [
    ("a.tif", True, {}, {"movie_flip_y": False, "gain_flip": 1}), ("a.tif", False, {}, {}), ("a.mrcs", True, {}, {}),
    ("a.tiff", True, {"movieFlip": 2}, {"movie_flip_y": True, "gain_flip": 1}), ("a.tif", True, {"gainRotation": 1}, {"movie_flip_y": False,
                                                                                                                 "gain_rotation": 1})])
def test_flexalign_reads_tiff_the_other_way_up(movie_set, in_project, file_name, flexalign, given, expected):
    movies = movie_set(file_name=file_name, **(flexalign_marks(SHIFT) if flexalign else {}))
    for name in ("ProtAverageMovies", "ProtReferenceMotionCorrection"):
        protocol = new_protocol(in_project[0], name, **given)
        protocol.inputMovies.set(movies)
        arguments = ("m.star",) if name == "ProtAverageMovies" else ({"movies": "m.star", "references": []},)
        found = protocol._jobData(*arguments)["inputs"]
        assert {k: v for k, v in found.items() if k != "movies"} == expected


def test_a_stack_written_from_a_later_frame_on(movie_set, tmp_path):
    """doSaveMovie with frames 3 to 5: the file's first image is frame 3, so two frames' dose came before."""
    found = written(movie_set(SHIFT[:3], first=3, frames_range=[3, 5, 1]), tmp_path)
    assert (found.start_frame, found.n_frames, found.pre_exposure_e_per_A2) == (1, 3, 0.5 + 2 * 1.25)
    found = written(movie_set(SHIFT[:3], first=3, frames_range=[3, 5, 3]), tmp_path)
    assert (found.start_frame, found.n_frames, found.pre_exposure_e_per_A2) == (3, 3, 0.5)


def test_eer(movie_set, tmp_path):
    """RELION and MotionCor say how they cut the file; FlexAlign's number of shifts says it; from elsewhere it is refused."""
    movies = movie_set(file_name="m0.eer", optics=OPTICS % ("_rlnEERGrouping #11\n_rlnEERUpsampling #12\n", "32 2"))
    movies.setDim(SIZE_XY + (163,))
    found = written(movies, tmp_path)
    assert (found.eer_grouping, found.eer_upsampling, found.dose_per_frame_e_per_A2) == (32, 2, 32 * 1.25)
    movies = movie_set(file_name="m0.eer", **flexalign_marks(SHIFT))
    movies.setDim(SIZE_XY + (163,))
    found = written(movies, tmp_path)
    assert (found.eer_grouping, found.eer_upsampling, found.size_yx) == (32, 1, SIZE_XY[::-1])
    with pytest.raises(InputError, match="does not say how many of its frames make one fraction"):
        written(movie_set(file_name="m0.eer"), tmp_path)


def test_cropped_micrographs_are_refused(correction, movie_set):
    correction.inputMovies.set(movie_set(roi=(100, 50, 64, 64)))
    assert "cropped the micrographs (x 100, y 50, 64 x 64 px)" in "".join(correction.validate())


# ---- particles --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def particle_set(in_project):
    """Function that makes a set from the imported particles: ``change(particle)`` edits each one."""
    count = iter(range(100))

    def make(change, optics=None):
        source = in_project[1].outputParticles
        particles = in_project[1]._createSetOfParticles("_chained%d" % next(count))
        particles.copyInfo(source)
        if optics is not None:
            particles.getAcquisition().opticsGroupInfo.set(optics or None)
        for item in source.iterItems():
            particle = item.clone()
            change(particle)
            particles.append(particle)
        particles.write()
        return particles
    return make


def without(particle, *names):
    for name in names:
        if particle.hasAttribute(name):
            delattr(particle, name)


def as_xmipp(particle):
    """No half-sets, no optics groups, its own attributes."""
    without(particle, "_rlnRandomSubset", "_rlnOpticsGroup", "_rlnCtfBfactor", "_rlnCtfScalefactor")
    particle._xmipp_zScore, particle._xmipp_cost, particle._xmipp_weight = Float(1.0), Float(0.3), Float(1.0)


def as_cryosparc(particle):
    """Half-sets of the refinement, and micrographs under cryoSPARC's names."""
    without(particle, "_rlnOpticsGroup", "_rlnCtfBfactor", "_rlnCtfScalefactor")
    particle._rlnRandomSubset = Integer(particle._rlnRandomSubset.get())
    name = os.path.splitext(particle.getCoordinate().getMicName())[0]
    particle.getCoordinate().setMicName("012345678901234567890_%s_patch_aligned_doseweighted.mrc" % name)


def write(particles, movies, folder, coordinate_pixel=None, **options):
    names = {movie.getObjId(): movie.getMicName() for movie in movies}
    match = convert.match_movies(names, convert.micrograph_counts(particles))
    _, micrographs, _ = convert.write_movies(movies, str(folder), set(match.movie_of.values()))
    convert.write_particles(particles, str(folder / "p.star"), match, micrographs, coordinate_pixel or particles.getSamplingRate(), PIXEL)
    return read_particles(folder / "p.star", **options), match


def test_xmipp_particles_are_refused_unless_half_sets_may_be_made_up(correction, in_project, particle_set, tmp_path):
    particles = particle_set(as_xmipp, optics="")
    correction.inputParticles.set(particles)
    assert "no half-sets" in "".join(correction.validate())
    correction.halfSetsFromOrder.set(True)
    assert correction.validate() == [] and "not independent" in "".join(correction._warnings())
    found, _ = write(particles, in_project[1].outputMovies, tmp_path, half_sets_from_order=True)
    assert found.table.half.tolist() == [1, 2] * 6 and set(found.table.optics_group) == {1}
    with pytest.raises(InputError, match="no half-sets"):
        write(particles, in_project[1].outputMovies, tmp_path)


def test_cryosparc_particles_find_their_movies_under_cryosparcs_names(correction, in_project, particle_set, tmp_path):
    particles = particle_set(as_cryosparc, optics="")
    correction.inputParticles.set(particles)
    assert correction.validate() == []
    found, match = write(particles, in_project[1].outputMovies, tmp_path)
    assert (match.matched, match.by["similar name"]) == (12, 12)
    before = {p.getObjId(): p._rlnRandomSubset.get() for p in in_project[1].outputParticles}
    assert found.table.half.tolist() == [before[i] for i in range(1, 13)]
    assert found.optics[1].voltage_kilovolt == 300.0 and found.optics[1].image_pixel_angstrom == PARTICLE_PIXEL


def test_half_sets_of_some_particles_only_are_refused(particle_set, in_project, tmp_path):
    with pytest.raises(InputError, match="6 of 12 particles have no half-set"):
        write(particle_set(lambda p: p._rlnRandomSubset.set(None if p.getObjId() % 2 else 1)), in_project[1].outputMovies, tmp_path)


def test_coordinates_of_binned_images_and_of_micrographs(in_project, particle_set, tmp_path):
    """Extraction stores px of the particle image; an import from a STAR file keeps px of the micrograph."""
    expected, _ = write(in_project[1].outputParticles, in_project[1].outputMovies, tmp_path)

    def in_micrograph_px(particle):
        x, y = particle.getCoordinate().getPosition()
        particle.getCoordinate().setPosition(int(x * PARTICLE_PIXEL / PIXEL), int(y * PARTICLE_PIXEL / PIXEL))
    found, _ = write(particle_set(in_micrograph_px), in_project[1].outputMovies, tmp_path, coordinate_pixel=PIXEL)
    np.testing.assert_allclose(found.table.coordinate_yx_angstrom, expected.table.coordinate_yx_angstrom)


# ---- maps -------------------------------------------------------------------------------------------------------------------

def test_maps_and_masks_in_xmipps_format(correction, tmp_path):
    path, volume = write_map(tmp_path / "a.mrc", seed=3), str(tmp_path / "a.vol")
    ImageHandler().convert(path, volume)
    assert convert.read_header(volume).shape_zyx == (16, 16, 16)
    copy = convert.with_voxel_size(volume, 2.2, str(tmp_path / "b.mrc"))
    assert convert.read_header(copy).voxel_angstrom == pytest.approx(2.2)
    np.testing.assert_array_equal(ImageHandler().read(copy).getData(), ImageHandler().read(path).getData())
    with open(volume, "w", encoding="utf-8") as file:
        file.write("no map")
    with pytest.raises(ValueError):
        convert.read_header(volume)
