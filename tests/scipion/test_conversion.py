"""Scipion -> files -> Scipion loses nothing, and signs, units and index bases are the stated ones."""
import numpy as np
import pytest
from pwem.convert import transformations
from pwem.objects import Transform

from refmotion_plugin import convert
from refmotion_plugin.contract.layout import file_stamp
from refmotion_plugin.contract.particle_pairs import image_pixel
from refmotion_plugin.contract.star import read_corrected_micrographs, read_movie_metadata, read_particles, read_tables

from . import relion_files as given


def scipion_matrix(rot, tilt, psi, origin_px):
    """Scipion's matrix by the host's own library: an independent witness of the conversion."""
    inverse = transformations.euler_matrix(*(-np.deg2rad([rot, tilt, psi])), "szyz")
    inverse[:2, 3] = -np.asarray(origin_px)
    return np.linalg.inv(inverse)


@pytest.mark.parametrize("angles", [(30.0, 50.0, -70.0), (-170.0, 120.0, 15.0), (0.0, 90.0, 179.0)])
def test_angles_and_origins_are_those_of_the_host(angles):
    rotation, origin = convert.angles_and_origins([scipion_matrix(*angles, (1.5, -2.5))])
    np.testing.assert_allclose(rotation[0], angles, atol=1e-9)
    np.testing.assert_allclose(origin[0], (1.5, -2.5), atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_poles_give_the_same_matrix_back(tilt):
    matrix = scipion_matrix(25.0, tilt, 40.0, (0.5, 2.0))
    rotation, origin = convert.angles_and_origins([matrix])
    np.testing.assert_allclose(scipion_matrix(*rotation[0], origin[0]), matrix, atol=1e-9)


def test_set_origin_keeps_the_rotation():
    transform = Transform(matrix=scipion_matrix(10, 20, 30, (1.0, 2.0)))
    convert.set_origin(transform, (-3.0, 0.25))
    rotation, origin = convert.angles_and_origins([transform.getMatrix()])
    np.testing.assert_allclose(rotation[0], (10, 20, 30), atol=1e-9)
    np.testing.assert_allclose(origin[0], (-3.0, 0.25), atol=1e-12)


@pytest.fixture
def written(in_project, tmp_path):
    """Movies and particles of the imported sets, written as files of a job."""
    movies, particles = in_project[1].outputMovies, in_project[1].outputParticles
    names = {movie.getObjId(): movie.getMicName() for movie in movies}
    match = convert.match_movies(names, convert.micrograph_counts(particles))
    star, micrographs, without = convert.write_movies(movies, str(tmp_path), set(match.movie_of.values()))
    convert.write_particles(particles, str(tmp_path / "particles.star"), match, micrographs, particles.getSamplingRate(),
                            movies.getSamplingRate())
    return star, tmp_path / "particles.star", match, without


def test_all_particles_find_their_movie_by_name(written):
    assert (written[2].matched, written[2].unmatched, written[2].by["name"]) == (12, 0, 12)
    assert written[3] == []


def test_movies_come_back_with_shifts_local_motion_hot_pixels_and_dose(written):
    micrographs, _ = read_corrected_micrographs(written[0])
    for movie, item in enumerate(micrographs):
        metadata = read_movie_metadata(item.metadata_star, item.name)
        np.testing.assert_allclose(metadata.global_shift_xy_px, given.shifts_xy_px(movie), atol=1e-5)
        assert metadata.size_yx == given.SIZE_XY[::-1] and metadata.n_frames == given.FRAMES
        assert (metadata.original_pixel_angstrom, metadata.dose_per_frame_e_per_A2) == (given.PIXEL, 1.25)
        assert (metadata.pre_exposure_e_per_A2, metadata.voltage_kilovolt) == (0.5, 300.0)
        assert item.optics_group == movie + 1
    first = read_movie_metadata(micrographs[0].metadata_star, micrographs[0].name)
    np.testing.assert_allclose(first.local_coefficients, np.linspace(-0.5, 0.6, 36), atol=1e-8)
    np.testing.assert_array_equal(first.hot_pixels_xy, [[3, 7], [40, 11]])
    assert read_movie_metadata(micrographs[1].metadata_star, "m1").local_coefficients is None


def test_particles_come_back_with_every_number(written, relion_folder):
    columns, table = relion_folder[1], read_tables(written[1])["particles"]
    for name in ("rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst",
                 "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor",
                 "rlnCtfScalefactor", "rlnRandomSubset", "rlnOpticsGroup"):
        np.testing.assert_allclose(table.numbers(name), columns[name], atol=2e-4, err_msg=name)
    assert table.integers("rlnParticleId").tolist() == list(range(1, 13))
    assert table.text("rlnMicrographName").tolist() == ["m%d.mrc" % (i % 2) for i in range(12)]


def test_optics_groups_and_aberrations_come_back(written, relion_folder):
    before, after = read_particles(relion_folder[0] / "particles.star"), read_particles(written[1])
    assert before.optics == after.optics
    assert after.optics[2].beam_tilt_xy_milliradian == (-0.5, 0.75)
    assert len(after.optics[1].even_zernike) == 9 and after.optics[1].magnification_matrix[1] == 0.0015


def test_output_set_keeps_everything_but_the_images(written, in_project, tmp_path):
    """The written file as if a job had polished it: half the pixel size, one particle missing."""
    source = in_project[1].outputParticles
    star = polished_star(written[1], tmp_path, keep=[i for i in range(12) if i != 4])
    output = in_project[1]._createSetOfParticles("_polished")
    assert convert.fill_particles(output, source, str(star), given.PIXEL) == 11
    output.write()
    before = {p.getObjId(): p.clone() for p in source}
    assert output.getSamplingRate() == given.PIXEL and sorted(output.getIdSet()) == [i for i in range(1, 13) if i != 5]
    for particle in output:
        assert_same_particle(particle, before[particle.getObjId()])


def assert_same_particle(after, before):
    rotation, origin = convert.angles_and_origins([after.getTransform().getMatrix(), before.getTransform().getMatrix()])
    np.testing.assert_allclose(rotation[0], rotation[1], atol=1e-9)
    np.testing.assert_allclose(origin[0] * given.PIXEL, origin[1] * given.PARTICLE_PIXEL, atol=1e-6)
    assert after.getCoordinate().getPosition() == tuple(2 * v for v in before.getCoordinate().getPosition())
    assert after.getCTF().getDefocus() == before.getCTF().getDefocus()
    assert after.getCTF().getPhaseShift() == before.getCTF().getPhaseShift()
    for name in ("_rlnRandomSubset", "_rlnOpticsGroup", "_rlnCtfScalefactor", "_rlnCtfBfactor"):
        assert after.getAttributeValue(name) == before.getAttributeValue(name), name
    assert after.getCoordinate().getMicName() == before.getCoordinate().getMicName()
    assert after.getIndex() > 0 and after.getFileName().endswith("polished.mrcs")


def polished_star(path, folder, keep, pixel="1.1", box=32):
    """A particle file as a finished job writes it, with real images."""
    import mrcfile

    from refmotion_plugin.contract.star import write_tables
    stack = folder / "polished.mrcs"
    with mrcfile.new(stack, overwrite=True) as file:
        file.set_data(np.ones((len(keep), box, box), np.float32))
    tables = read_tables(path)
    optics = tables["optics"].with_columns(rlnImagePixelSize=[pixel] * 2, rlnImageSize=[str(box)] * 2)
    body = tables["particles"].rows(keep).with_columns(rlnImageName=["%06d@%s" % (i + 1, stack) for i in range(len(keep))])
    write_tables(folder / "polished.star", [optics, body])
    return folder / "polished.star"


@pytest.mark.parametrize("fill", [convert.fill_particles, convert.add_particles])
def test_half_sets_that_were_made_up_are_those_of_the_output(written, in_project, tmp_path, fill):
    """A second correction would make up others: by their order, from which some particles are missing."""
    source = in_project[1]._createSetOfParticles("_without_half_sets")
    source.copyInfo(in_project[1].outputParticles)
    for particle in in_project[1].outputParticles:
        item = particle.clone()
        delattr(item, "_rlnRandomSubset")
        source.append(item)
    source.write()
    star = polished_star(written[1], tmp_path, keep=range(1, 12))
    output = in_project[1]._createSetOfParticles("_with_half_sets")
    assert fill(output, source, str(star), given.PIXEL) == 11
    output.write()
    rows = read_tables(star)["particles"]
    made_up = dict(zip(rows.integers("rlnParticleId").tolist(), rows.integers("rlnRandomSubset").tolist()))
    assert {p.getObjId(): p.getAttributeValue("_rlnRandomSubset") for p in output} == made_up and set(made_up.values()) == {1, 2}


def test_coordinates_of_cropped_images_are_in_their_own_pixels(written, in_project, tmp_path):
    source = in_project[1].outputParticles
    output = in_project[1]._createSetOfParticles("_cropped")
    convert.fill_particles(output, source, str(polished_star(written[1], tmp_path, range(12), "4.4", 8)), given.PIXEL)
    before = {p.getObjId(): p.getCoordinate().getPosition() for p in source}
    assert output.getSamplingRate() == 4.4
    for particle in output:
        np.testing.assert_allclose(particle.getCoordinate().getPosition(), np.array(before[particle.getObjId()]) / 2, atol=0.5)


def test_the_pixel_is_that_of_the_optics_group_whose_particles_left(written, in_project, tmp_path):
    """The other group's row keeps the pixel of the images that went in."""
    from refmotion_plugin.contract.star import write_tables
    star = polished_star(written[1], tmp_path, keep=range(1, 12, 2))
    tables = read_tables(star)
    tables["optics"] = tables["optics"].with_columns(rlnImagePixelSize=["2.2", "1.1"])
    write_tables(star, list(tables.values()))
    output = in_project[1]._createSetOfParticles("_second")
    assert convert.fill_particles(output, in_project[1].outputParticles, str(star), given.PIXEL) == 6
    before = {p.getObjId(): p.clone() for p in in_project[1].outputParticles}
    assert output.getSamplingRate() == given.PIXEL
    for particle in output:
        assert_same_particle(particle, before[particle.getObjId()])
    assert image_pixel(tables["optics"], tables["particles"].rows([])) == 2.2       # no particle says which


def test_output_optics_text_has_the_new_pixel_size_and_all_aberrations(written, in_project, tmp_path):
    output = in_project[1]._createSetOfParticles("_optics")
    convert.fill_particles(output, in_project[1].outputParticles, str(polished_star(written[1], tmp_path, range(12))), given.PIXEL)
    rows = convert.optics_rows(output.getAcquisition())
    assert [row["rlnImagePixelSize"] for row in rows] == ["1.1", "1.1"] and rows[0]["rlnImageSize"] == "32"
    assert rows[1]["rlnEvenZernike"] == given.OPTICS["rlnEvenZernike"][1]


def test_particles_are_added_to_a_file_without_any(written, in_project, tmp_path):
    """What attributes an empty set's particles have is not known yet."""
    from refmotion_plugin.contract.star import StarTable, write_tables
    tables, path = read_tables(written[1]), tmp_path / "empty.star"
    names = [name for name in tables["particles"].columns if name != "rlnRandomSubset"]
    write_tables(path, [tables["optics"], StarTable("particles", {name: [] for name in names})])
    source, movies = in_project[1].outputParticles, in_project[1].outputMovies
    match = convert.matches_of(movies, [source])[0]
    assert convert.write_particles(source, str(path), match, {1: "m0.mrc", 2: "m1.mrc"}, 2.2, 1.1, add=True) == 12
    assert "rlnRandomSubset" in read_tables(path)["particles"]


def test_a_changed_set_is_not_filled_in_silence(written, in_project, tmp_path):
    from refmotion_plugin.contract.errors import InputError
    star = polished_star(written[1], tmp_path, range(12))
    source = in_project[1]._createSetOfParticles("_fewer")
    source.copyInfo(in_project[1].outputParticles)
    for particle in in_project[1].outputParticles.iterItems(limit=10):
        source.append(particle)
    source.write()
    with pytest.raises(InputError, match="12 particles of which 10"):
        convert.fill_particles(in_project[1]._createSetOfParticles("_none"), source, str(star), given.PIXEL)


def test_shifts_of_a_frame_range_keep_their_frame_numbers(in_project, tmp_path):
    from pwem.objects import Movie, MovieAlignment
    movies = in_project[1]._createSetOfMovies("_range")
    movies.copyInfo(in_project[1].outputMovies)
    movie = Movie(location="late.mrcs")
    movie.setMicName("late.mrcs")
    movie.setAlignment(MovieAlignment(first=3, last=5, xshifts=[1.0, 2.0, 4.0], yshifts=[0.0, -1.0, -3.0]))
    movies.append(movie)
    star, _, _ = convert.write_movies(movies, str(tmp_path))
    metadata = read_movie_metadata(read_corrected_micrographs(star)[0][0].metadata_star, "late")
    assert metadata.start_frame == 3 and metadata.n_frames == 3
    np.testing.assert_array_equal(metadata.global_shift_xy_px, [[1, 0], [2, -1], [4, -3]])


def test_eer_settings_travel(in_project, tmp_path):
    from pwem.objects import Movie, MovieAlignment
    movies = in_project[1]._createSetOfMovies("_eer")
    movies.copyInfo(in_project[1].outputMovies)
    movies.getAcquisition().setDosePerFrame(0.05)
    movies.getAcquisition().opticsGroupInfo.set("data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnEERGrouping #2\n_rlnEERUpsampling #3\n"
                                                "_rlnMicrographGainName #4\n1 20 2 gain.gain\n")
    movie = Movie(location="a.eer")
    movie.setMicName("a.eer")
    movie.setAlignment(MovieAlignment(first=1, last=3, xshifts=[0.0, 1.0, 2.0], yshifts=[0.0, 0.5, 1.0]))
    movies.append(movie)
    star, _, _ = convert.write_movies(movies, str(tmp_path))
    metadata = read_movie_metadata(read_corrected_micrographs(star)[0][0].metadata_star, "a")
    assert (metadata.eer_grouping, metadata.eer_upsampling, metadata.n_frames) == (20, 2, 3)
    assert metadata.size_yx == (2 * given.SIZE_XY[1], 2 * given.SIZE_XY[0]) and metadata.gain_file == "gain.gain"
    assert metadata.dose_per_frame_e_per_A2 == pytest.approx(1.0)


def test_a_map_without_voxel_size_is_copied_with_it(tmp_path):
    path = given.write_map(tmp_path / "a.mrc", pixel=0.0)
    copy = convert.with_voxel_size(path + ":mrc", 1.5, str(tmp_path / "copy.mrc"))
    assert copy.endswith("copy.mrc") and convert.read_header(copy).voxel_angstrom == pytest.approx(1.5)
    assert convert.with_voxel_size(copy, 1.5, str(tmp_path / "again.mrc")) == copy


def test_a_copy_of_a_map_that_is_made_again_is_the_same_file_for_the_engine(tmp_path):
    path, copy, stamps = given.write_map(tmp_path / "a.mrc", pixel=0.0), str(tmp_path / "copy.mrc"), []
    for voxel in (1.5, 1.5, 1.501):
        convert.with_voxel_size(path, voxel, copy)
        stamps.append(file_stamp(copy))
    assert stamps[0] == stamps[1] != stamps[2]          # another voxel size is another map
