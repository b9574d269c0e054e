"""The simulator's own conventions: each test fails when a sign or an axis is turned round."""
import dataclasses
import filecmp
import subprocess
import sys
import time

import mrcfile
import numpy as np
import psutil
import pytest
import scipy.ndimage
import scipy.stats
import tifffile
from emtable import Table

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.engine.simulate import SimulationSpec, simulate
from refmotion_plugin.engine.simulate.catalogue import draw_scene
from refmotion_plugin.engine.simulate.counting import poisson_counts
from refmotion_plugin.engine.simulate.ctf import Optics, transfer
from refmotion_plugin.engine.simulate.damage import critical_dose, frame_amplitude
from refmotion_plugin.engine.simulate.motion import RandomField, draw_motion
from refmotion_plugin.engine.simulate.projection import (density_map, euler_zyz, point_spectrum, projection_spectrum,
                                                         rotation_zyz)
from refmotion_plugin.engine.simulate.reference import half_maps, soft_mask
from refmotion_plugin.engine.simulate.structure import octahedral_cage, octahedral_rotations
from refmotion_plugin.engine.simulate.tables import Names
from refmotion_plugin.engine.simulate.write import MovieWriter

SMALL = SimulationSpec(movies=2, particles=5, frames=4, size_yx=(224, 256), box=64, pixel_angstrom=2.0, seed=3,
                       dose_per_frame=2.0)
CLEAR = dataclasses.replace(SMALL, movies=1, particles=1, contrast_scale=40.0, defocus_angstrom=(20000.0, 20001.0),
                            size_yx=(200, 280), pose_error_degree=0.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """One particle of such contrast that its place can be seen in every frame."""
    return simulate(tmp_path_factory.mktemp("clear"), CLEAR)


def star_columns(path, block):
    table = Table(fileName=str(path), tableName=block)
    return {name: np.array([getattr(row, name) for row in table]) for name in table.getColumnNames()}


def truth_of(paths, movie="movie_001"):
    with np.load(paths.truth / f"{movie}.npz") as file:
        return {key: file[key] for key in file}


def dark_centre_px(image):
    """Centre of mass (y, x) of the dark particle."""
    dark = np.median(image) - scipy.ndimage.gaussian_filter(image.astype(float), 3)
    return bright_centre_px(dark)


def bright_centre_px(image):
    """Centre of mass (y, x) of what is above half the maximum; background at zero."""
    return np.array(scipy.ndimage.center_of_mass(np.where(image < 0.5 * image.max(), 0, image)))


# --- places: rows, signs -------------------------------------------------------------------------------------------

def test_rows_of_a_tiff_count_from_the_bottom_and_those_of_an_mrc_from_the_top(tmp_path):
    frame = np.zeros((12, 16), np.uint8)
    frame[2, 5] = 9
    for name, file_format in (("a.tiff", "tiff-lzw"), ("b.tiff", "tiff-deflate"), ("c.mrcs", "mrc"),
                              ("d.mrcs", "mrc-uint16"), ("e.mrcs", "mrc-float")):
        writer = MovieWriter(tmp_path / name, file_format, (3, 12, 16), 1.1)
        for factor in (1, 2, 3):
            writer.add(frame * factor)
        writer.close()
        stored = tifffile.imread(tmp_path / name) if name.endswith("tiff") else mrcfile.read(tmp_path / name)
        assert stored.shape == (3, 12, 16)
        assert np.argwhere(stored[1]).tolist() == ([[9, 5]] if name.endswith("tiff") else [[2, 5]])
        assert stored.max() == 27


def test_a_4bit_movie_holds_two_pixels_a_byte_low_nibble_first(tmp_path):
    writer = MovieWriter(tmp_path / "m.mrcs", "mrc-4bit", (1, 2, 4), 1.1)
    writer.add(np.array([[1, 2, 3, 4], [5, 6, 7, 20]]))
    writer.close()
    header = np.fromfile(tmp_path / "m.mrcs", "<i4", 4)
    assert header.tolist() == [4, 2, 1, 101]
    assert np.fromfile(tmp_path / "m.mrcs", np.uint8)[1024:].tolist() == [0x21, 0x43, 0x65, 0xF7]


def test_the_particle_is_seen_at_the_catalogue_place_plus_displacement(clear):
    """Reads the files as RELION does: TIFF turned over, coordinate - origin, + displacement."""
    frames = tifffile.imread(clear.folder / "Movies" / "movie_001.tiff")[:, ::-1]
    table, truth = star_columns(clear.particles[0], "particles"), truth_of(clear)
    pixel = CLEAR.pixel_angstrom
    catalogue = np.array([table["rlnCoordinateY"][0] - table["rlnOriginYAngst"][0] / pixel,
                          table["rlnCoordinateX"][0] - table["rlnOriginXAngst"][0] / pixel])
    displacement = truth["displacement_yx_angstrom"][0] / pixel
    assert np.abs(displacement[-1] - displacement[0]).max() > 1.0
    for frame, moved in zip(frames, displacement):
        assert dark_centre_px(frame) == pytest.approx(catalogue + moved, abs=0.4)


def test_a_feature_at_q_of_the_average_is_at_q_minus_shift_in_the_frame(tmp_path):
    simulate(tmp_path, dataclasses.replace(CLEAR, motion="drift", jitter_angstrom=0.0, rigid_shift_error_px=0.0,
                                           stage_drift_angstrom_per_e_per_A2=0.6))
    frames = tifffile.imread(tmp_path / "Movies" / "movie_001.tiff")[:, ::-1]
    shift = star_columns(tmp_path / "MotionCorr" / "movie_001.star", "global_shift")
    shift_yx = np.stack([shift["rlnMicrographShiftY"], shift["rlnMicrographShiftX"]], axis=1)
    assert shift_yx[0] == pytest.approx([0, 0]) and np.linalg.norm(shift_yx[-1]) > 4.0
    place = dark_centre_px(mrcfile.read(tmp_path / "MotionCorr" / "movie_001.mrc"))
    for frame, step in zip(frames, shift_yx):
        assert dark_centre_px(frame) == pytest.approx(place - step, abs=0.6)


def test_the_particle_image_is_bright_normalised_and_off_centre_by_minus_the_origin(clear):
    image, truth = np.squeeze(mrcfile.read(clear.folder / "Particles" / "movie_001.mrcs")), truth_of(clear)
    expected = CLEAR.box // 2 - truth["origin_yx_angstrom"][0] / CLEAR.pixel_angstrom
    smooth = scipy.ndimage.gaussian_filter(image, 3)
    assert bright_centre_px(smooth) == pytest.approx(expected, abs=0.7)
    y, x = np.indices(image.shape) - CLEAR.box // 2
    outside = image[np.hypot(y, x) > 0.375 * CLEAR.box]
    assert outside.mean() == pytest.approx(0, abs=1e-4) and outside.std() == pytest.approx(1, abs=1e-3)


def test_displacement_has_the_sign_of_the_drift():
    spec = dataclasses.replace(SMALL, motion="drift", jitter_angstrom=0.0)
    scene = draw_scene(spec, 0, (30.0,))
    displacement = scene.catalogues[0].displacement_yx_angstrom(spec.pixel_angstrom).mean(axis=2)
    step = np.diff(displacement, axis=1)
    assert step == pytest.approx(np.broadcast_to(np.diff(scene.rigid_yx_angstrom, axis=0), step.shape))
    speed = 3 * spec.stage_drift_angstrom_per_e_per_A2 * spec.dose_per_frame
    assert np.linalg.norm(step, axis=2) == pytest.approx(speed)


def test_no_motion_means_none():
    scene = draw_scene(dataclasses.replace(SMALL, motion="none", rigid_shift_error_px=0.0), 0, (30.0,))
    assert np.all(scene.shift_yx_px == 0)
    assert np.ptp(scene.catalogues[0].path_yx_angstrom) == 0


# --- formulas ------------------------------------------------------------------------------------------------------

def test_counts_are_poisson():
    for mean in (0.3, 1.45, 20.0):
        expected = np.full((1000, 1000), mean, np.float32)
        expected[:, 500:] *= 1.013  # between two levels
        counts = poisson_counts(np.random.default_rng(1), expected)
        for half, true in ((counts[:, :500], mean), (counts[:, 500:], 1.013 * mean)):
            assert half.mean() == pytest.approx(true, abs=4 * np.sqrt(true / half.size))
            assert half.var() == pytest.approx(true, rel=0.01)
            share = np.bincount(half.ravel(), minlength=8)[:8] / half.size
            assert share == pytest.approx(scipy.stats.poisson.pmf(np.arange(8), true), abs=3e-3)


def test_point_spectrum_is_the_sum_over_points():
    rng = np.random.default_rng(0)
    points = rng.uniform(-9, 9, size=(20, 2))
    ky, kx = np.fft.fftfreq(32)[:, None, None], np.fft.rfftfreq(32)[None, :, None]
    exact = np.exp(-2j * np.pi * (ky * points[:, 0] + kx * points[:, 1])).sum(axis=2)
    assert np.abs(point_spectrum(points, 32) - exact).max() < 5e-3 * np.sqrt(20)


def test_a_point_of_the_map_projects_to_A_r():
    """One atom off centre, turned by (90, 0, 0): Rz(90) carries x to -y in RELION's sense, checked by hand."""
    atom = np.array([[4.0, 0.0, 1.0]])
    spectrum = projection_spectrum(atom, rotation_zyz([[90.0, 0.0, 0.0]])[0], 32, 1.0)
    image = np.fft.irfft2(spectrum, s=(32, 32))
    assert np.unravel_index(image.argmax(), image.shape) == (28, 0)
    turned = rotation_zyz([[0.0, 90.0, 0.0]])[0] @ [1.0, 0.0, 0.0]
    assert turned == pytest.approx([0, 0, 1])


def test_euler_angles_return():
    degree = np.array([[10.0, 20.0, 30.0], [-100.0, 150.0, -60.0]])
    assert euler_zyz(rotation_zyz(degree)) == pytest.approx(degree)


def test_projection_is_the_sum_of_the_map():
    atoms = np.random.default_rng(1).normal(scale=6, size=(50, 3))
    density = density_map(atoms, 48, 1.5, 300, 60.0)
    from refmotion_plugin.engine.simulate.projection import atom_contrast, frequencies_per_angstrom

    k = np.hypot(*frequencies_per_angstrom(48, 1.5))
    spectrum = projection_spectrum(atoms, np.eye(3), 48, 1.5) * atom_contrast(k, 300, 60.0) / 1.5**2
    image = np.roll(np.fft.irfft2(spectrum, s=(48, 48)), (24, 24), (0, 1))
    assert density.sum(axis=0) == pytest.approx(image, abs=2e-3 * image.max())


def test_ctf_is_positive_first_and_astigmatism_turns_from_x_to_y():
    optics = Optics(voltage=300, cs_mm=2.7, amplitude_contrast=0.1)
    ctf = transfer(optics, np.array([20000.0, 10000.0, 90.0]), 128, 2.0)
    assert ctf[0, 0] == pytest.approx(0.1) and ctf[0, 4] > 0.1
    along_y, along_x = ctf[:30, 0], ctf[0, :30]
    assert (along_y < 0).argmax() < (along_x < 0).argmax()


def test_damage_follows_grant_and_grigorieff():
    assert critical_dose(0.1, 300) == pytest.approx(0.245 * 0.1**-1.665 + 2.81)
    assert critical_dose(0.1, 200) == pytest.approx(0.8 * critical_dose(0.1, 300))
    amplitude = frame_amplitude(np.array([0.0, 0.2]), 5, 1.2, 0.0, 300)
    assert amplitude[:, 0] == pytest.approx(1, abs=1e-3)
    assert amplitude[2, 1] == pytest.approx(np.exp(-1.2 * 2.5 / (2 * critical_dose(0.2, 300))), rel=1e-3)


def test_the_cage_is_exactly_octahedral():
    atoms = octahedral_cage(np.random.default_rng(0), 30.0).xyz_angstrom
    reference = np.sort(np.round(atoms, 6).view("f8,f8,f8").ravel())
    for rotation in octahedral_rotations():
        turned = np.ascontiguousarray(np.round(atoms @ rotation.T, 6) + 0.0)
        assert np.allclose(np.sort(np.round(reference.view("f8"), 6)), np.sort(turned.ravel()))
        nearest = np.linalg.norm(turned[0] - atoms, axis=1).min()
        assert nearest < 1e-5


def test_random_field_has_the_matern_kernel():
    place = np.array([[0.0, 0.0], [0.0, 1000.0], [3000.0, 0.0]])
    drawn = np.array([RandomField.draw(np.random.default_rng(i), 1500.0, 1.5)(place) for i in range(1500)])
    covariance = np.einsum("spa,sqa->pq", drawn, drawn) / drawn.shape[0] / 2
    distance = np.sqrt(3) * np.linalg.norm(place[:, None] - place[None], axis=-1) / 1500.0
    assert covariance == pytest.approx((1 + distance) * np.exp(-distance), abs=0.08)


# --- files ---------------------------------------------------------------------------------------------------------

def test_counts_have_the_dose(small):
    movie = tifffile.imread(small.folder / "Movies" / "movie_002.tiff")
    assert movie.dtype == np.uint8 and movie.shape == (4, 224, 256)
    assert movie.mean() == pytest.approx(SMALL.mean_count_per_px, rel=0.02)
    assert movie.var() == pytest.approx(movie.mean(), rel=0.03)


def test_star_files_hold_what_was_written(small):
    table, truth = star_columns(small.particles[0], "particles"), truth_of(small)
    assert len(table["rlnCoordinateX"]) == 10 and set(table["rlnRandomSubset"]) == {1, 2}
    for axis, name in enumerate("YX"):
        assert table[f"rlnCoordinate{name}"][:5] == pytest.approx(truth["coordinate_yx_px"][:, axis])
        assert table[f"rlnOrigin{name}Angst"][:5] == pytest.approx(truth["origin_yx_angstrom"][:, axis], abs=1e-5)
    assert table["rlnImageName"][5] == "000001@Particles/movie_002.mrcs"
    general = Table(fileName=str(small.folder / "MotionCorr" / "movie_001.star"), tableName="general")[0]
    assert (general.rlnImageSizeX, general.rlnImageSizeY, general.rlnImageSizeZ) == (256, 224, 4)
    assert general.rlnMicrographDoseRate == pytest.approx(2.0)
    for name in star_columns(small.corrected_micrographs, "micrographs")["rlnMicrographMetadata"]:
        assert (small.folder / name).is_file()
    assert star_columns(small.particles[0], "optics")["rlnImageSize"].tolist() == [64]


def test_paths_are_relative_to_the_folder_asked_for(tmp_path):
    paths = simulate(tmp_path / "deep" / "set", dataclasses.replace(SMALL, movies=1, particles=1), relative_to=tmp_path)
    table = star_columns(paths.particles[0], "particles")
    assert table["rlnMicrographName"][0] == "deep/set/MotionCorr/movie_001.mrc"


def test_catalogue_and_displacement_of_the_truth_agree(small):
    truth = truth_of(small)
    catalogue = truth["coordinate_yx_px"] * SMALL.pixel_angstrom - truth["origin_yx_angstrom"]
    first = truth["position_yx_px"] * SMALL.pixel_angstrom - catalogue
    assert np.abs(truth["displacement_start_yx_angstrom"][:, 0] - first).max() < 2.0  # path starts near 0, plus jitter
    assert truth["substep_displacement_yx_angstrom"].mean(axis=2) == pytest.approx(truth["displacement_yx_angstrom"])
    with np.load(small.truth / "damage.npz") as damage:
        assert damage["amplitude"].shape == (4, 33)
        assert damage["frequency_per_angstrom"][-1] == pytest.approx(0.25)


def test_the_seed_decides_and_the_number_of_processes_does_not(small, tmp_path):
    again = simulate(tmp_path / "again", dataclasses.replace(SMALL, threads=2))
    for name in ("Movies/movie_002.tiff", "particles.star", "half2.mrc", "MotionCorr/movie_002.star"):
        if name.endswith("mrc"):  # headers carry the time of writing
            assert np.array_equal(mrcfile.read(small.folder / name), mrcfile.read(again.folder / name))
        else:
            assert filecmp.cmp(small.folder / name, again.folder / name, shallow=False), name
    other = draw_scene(dataclasses.replace(SMALL, seed=4), 0, (30.0,))
    assert not np.allclose(other.catalogues[0].position_yx_px, truth_of(small)["position_yx_px"])


def test_a_second_species_leaves_the_first_as_it_was(small, tmp_path):
    spec = dataclasses.replace(SMALL, species=2, movies=1, particles=3)
    paths = simulate(tmp_path, spec)
    alone = draw_scene(dataclasses.replace(spec, species=1), 0, (43.52,))
    with np.load(paths.truth / "movie_001_A.npz") as file:
        assert file["true_rotation_zyz_degree"].shape == (3, 3)
        assert np.allclose(alone.rigid_yx_angstrom, file["rigid_yx_angstrom"])
    assert [p.name for p in paths.half1] == ["half1_A.mrc", "half1_B.mrc"]
    assert (paths.folder / "particles_B.star").is_file()


def test_gain_multiplies_the_raw_counts_back_and_hot_pixels_are_listed(tmp_path):
    spec = dataclasses.replace(SMALL, movies=1, gain=True, hot_pixels=7, frames=12)
    paths = simulate(tmp_path, spec)
    mean = tifffile.imread(tmp_path / "Movies" / "movie_001.tiff")[:, ::-1].mean(axis=0)
    gain = mrcfile.read(tmp_path / "Movies" / "gain.mrc")
    hot = star_columns(tmp_path / "MotionCorr" / "movie_001.star", "hot_pixels")
    x, y = hot["rlnCoordinateX"].astype(int), hot["rlnCoordinateY"].astype(int)
    assert np.all(mean[y, x] > 18)
    cool = np.ones(mean.shape, bool)
    cool[y, x] = False
    assert np.corrcoef(mean[cool], 1 / gain[cool])[0, 1] > 0.25
    assert abs(np.corrcoef((mean * gain)[cool], gain[cool])[0, 1]) < 0.05
    general = Table(fileName=str(tmp_path / "MotionCorr" / "movie_001.star"), tableName="general")[0]
    assert general.rlnMicrographGainName == "Movies/gain.mrc"
    assert paths.corrected_micrographs.is_file()


def test_half_maps_lose_agreement_at_the_reference_resolution():
    spec = SimulationSpec(box=96, pixel_angstrom=1.5, reference_resolution_angstrom=6.0)
    atoms = octahedral_cage(np.random.default_rng(0), 45.0).xyz_angstrom
    density = density_map(atoms, 96, 1.5, 300, 60.0)
    mask = soft_mask(spec, density)
    first, second = half_maps(spec, density, mask, np.ones(49), "")
    a, b = (np.fft.fftn(m * mask) for m in (first, second))
    frequency = np.fft.fftfreq(96, 1.5)
    k = np.sqrt(frequency[:, None, None] ** 2 + frequency[None, :, None] ** 2 + frequency**2)

    def fsc(resolution):
        ring = np.abs(k - 1 / resolution) < 0.006
        return (a * b.conj())[ring].real.sum() / np.sqrt((np.abs(a) ** 2)[ring].sum() * (np.abs(b) ** 2)[ring].sum())

    assert fsc(15.0) > 0.9 and fsc(6.0) == pytest.approx(0.143, abs=0.08) and abs(fsc(4.0)) < 0.1


@pytest.mark.parametrize("change", [{"motion": "wild"}, {"box": 63}, {"movies": 0}, {"format": "eer"},
                                    {"size_yx": (60, 200)}, {"burst_angstrom": (1.0,)}, {"dose_per_frame": 15.5}, {"format": "mrc-4bit"}])
def test_a_wrong_spec_is_refused_with_a_sentence(change):
    with pytest.raises(InputError, match=r"^Simulation: .*\.$"):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize("change, part", [
    ({"pixel_angstrom": 0.0}, "pixel_angstrom must be a number above 0, got 0.0"), ({"pixel_angstrom": -1.1}, "above 0, got -1.1"),
    ({"dose_per_frame": -1.0}, "dose_per_frame must be a number above 0"), ({"voltage": 0.0}, "voltage must be a number above 0"),
    ({"voltage": float("inf")}, "got inf"), ({"seed": -1}, "seed must be a number from 0 up, got -1"), ({"hot_pixels": -1}, "hot_pixels must be a number from 0"),
    ({"defocus_angstrom": (14000.0, 7000.0)}, "defocus_angstrom must be a lower and a higher end, got 14000 and 7000"),
    ({"spatial_correlation_angstrom": 0.0}, "spatial_correlation_angstrom"), ({"jitter_angstrom": float("nan")}, "jitter_angstrom must .* got nan"),
    ({"reference_resolution_angstrom": 0.0}, "reference_resolution_angstrom"), ({"burst_decay_e_per_A2": (0.0, 1.0)}, "burst_decay_e_per_A2 must .* got 0.0, 1.0"),
    ({"beam_tilt_mrad_yx": (0.0, float("nan"))}, "beam_tilt_mrad_yx must be a finite number, got 0.0, nan"),
    ({"amplitude_contrast": 1.5}, "amplitude_contrast must be between 0 and 1")])
def test_numbers_that_cannot_be_are_named(change, part):
    with pytest.raises(InputError, match=part):
        dataclasses.replace(SMALL, **change)


def test_what_may_be_none_or_negative():
    none = dict.fromkeys(("pre_exposure", "cs_mm", "amplitude_contrast", "bfactor_A2", "contrast_scale", "slow_angstrom", "jitter_angstrom",
                          "stage_drift_angstrom_per_e_per_A2", "pose_error_degree", "origin_error_angstrom", "rigid_shift_error_px"), 0.0)
    assert dataclasses.replace(SMALL, astigmatism_angstrom=(0.0, 0.0), burst_angstrom=(0.0, 0.0), **none).bfactor_A2 == 0
    assert dataclasses.replace(SMALL, phase_shift_degree=-90.0, beam_tilt_mrad_yx=(-0.8, 1.2)).phase_shift_degree == -90


def test_more_electrons_than_a_pixel_counts_are_named_with_the_limit():
    assert dataclasses.replace(SMALL, dose_per_frame=15.0).mean_count_per_px == 60
    with pytest.raises(InputError, match="62 electrons per px and frame are more than the 60 .*reduce dose_per_frame or pixel_angstrom"):
        dataclasses.replace(SMALL, dose_per_frame=15.5)
    assert dataclasses.replace(SMALL, dose_per_frame=1.25, format="mrc-4bit").mean_count_per_px == 5


def test_every_kind_of_motion_moves_as_named():
    place = np.array([[100.0, 100.0], [400.0, 100.0]])
    dose = np.linspace(0, 9, 10)
    for kind in ("burst", "gentle", "drift", "steps", "doming", "exponential", "jitter"):
        path = draw_motion(dataclasses.replace(SMALL, motion=kind), 0).displacement(place, dose)
        assert np.abs(path[:, 0]).max() < 1e-3, kind
        assert np.ptp(path, axis=1).max() > 0.5, kind


def test_a_data_set_elsewhere_has_absolute_paths(tmp_path):
    names = Names(SimulationSpec(movies=1), tmp_path / "data", tmp_path / "project")
    assert names.movie(0) == str(tmp_path / "data" / "Movies" / "movie_001.tiff")
    assert Names(SimulationSpec(movies=1), tmp_path / "data", tmp_path).movie(0) == "data/Movies/movie_001.tiff"


@pytest.mark.parametrize("name", ["with space", "a,b", "it's", "_sim", "#sim", "data_sim", "loop_sim"])
def test_a_name_that_star_files_cannot_hold_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(InputError, match="choose a folder whose path has no blank"):
        simulate(tmp_path / name, SMALL, relative_to=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_the_part_of_a_path_that_is_written_matters(tmp_path):
    here = tmp_path / "with space"
    for out in (here, here / "sim"):
        assert simulate(out, dataclasses.replace(SMALL, movies=1, particles=1), relative_to=here).particles[0].exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for out, reason in (("file", "Not a directory|File exists"), ("file/below", "Not a directory")):
        with pytest.raises(InputError, match="%s cannot be written .(%s)" % (tmp_path / out, reason)):
            simulate(tmp_path / out, SMALL)


def test_worker_processes_end_with_the_one_that_was_killed(tmp_path):
    """They wait for work, and nobody would give them any."""
    code = ("import sys; from refmotion_plugin.engine.simulate import SimulationSpec, simulate\n"
            "simulate(sys.argv[1], SimulationSpec(movies=200, particles=5, frames=4, size_yx=(224, 256), box=64, threads=2))")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as parent:
        try:
            until(lambda: len(list((tmp_path / "truth").glob("movie_*.npz"))) >= 2)
            workers = [child for child in psutil.Process(parent.pid).children() if "--multiprocessing-fork" in child.cmdline()]
        finally:
            parent.kill()
    assert len(workers) == 2
    until(lambda: not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers))


def until(condition, seconds=60.0):
    """Wait for something that happens in other processes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
