"""The transfer function against a plain float64 formula, and the sign of each aberration."""
import numpy as np
import pytest
import torch

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.engine.maths.fourier import FourierGrid
from refmotion_plugin.engine.optics.aberrations import (electron_wavelength_angstrom, even_zernike_order, odd_phase,
                                                        odd_zernike_order, zernike)
from refmotion_plugin.engine.optics.ctf import ctf
from tests.unit.optics_cases import optics_group, particle_table

GRID = FourierGrid(96, 1.0, 64)
PHASE_PLATE = dict(phase_shift_degree=np.array([0, 30, 60, 90, 120.0]), ctf_bfactor_A2=np.array([0, 10, 20, 40, 80.0]),
                   ctf_scale=np.array([1, 0.9, 1.1, 1.2, 0.8]))


def seen_xy(grid=GRID):
    return grid.frequency_yx_per_angstrom(dtype=torch.float64).numpy()[..., ::-1]


def formula(table, group, xy):
    """-sin(chi) with chi = -pi lambda df k^2 + pi/2 Cs lambda^3 k^4 - phase plate - amplitude contrast, one particle at a time."""
    wavelength = 12.2643 / np.sqrt(group.voltage_kilovolt * 1e3 * (1 + 0.978466e-6 * group.voltage_kilovolt * 1e3))
    k2, angle = (xy ** 2).sum(-1), np.arctan2(xy[..., 1], xy[..., 0])
    out = []
    for p in range(len(table)):
        u, v, a = table.defocus_u_angstrom[p], table.defocus_v_angstrom[p], np.deg2rad(table.defocus_angle_degree[p])
        defocus = 0.5 * (u + v) + 0.5 * (u - v) * np.cos(2 * (angle - a))
        chi = (-np.pi * wavelength * defocus * k2 + np.pi / 2 * group.spherical_aberration_millimetre * 1e7 * wavelength ** 3 * k2 ** 2
               - np.deg2rad(table.phase_shift_degree[p]) - np.arcsin(group.amplitude_contrast))
        out.append(-np.sin(chi) * table.ctf_scale[p] * np.exp(-table.ctf_bfactor_A2[p] * k2 / 4))
    return np.array(out)


@pytest.mark.parametrize("voltage,cs,q0", [(300.0, 2.7, 0.1), (200.0, 1.4, 0.07), (100.0, 0.01, 0.0)])
def test_ctf_is_the_formula(voltage, cs, q0):
    group = optics_group(voltage_kilovolt=voltage, spherical_aberration_millimetre=cs, amplitude_contrast=q0)
    table = particle_table(5, **PHASE_PLATE)
    got = ctf(table, group, GRID, "cpu")
    assert got.dtype == torch.float32 and got.shape == (5,) + GRID.shape
    assert np.abs(got.numpy() - formula(table, group, seen_xy())).max() < 5e-3      # the formula's wavelength has 6 digits


def test_hundreds_of_turns_lose_no_precision():
    group, grid = optics_group(voltage_kilovolt=300.0, spherical_aberration_millimetre=2.7), FourierGrid(512, 0.6, 512)
    table = particle_table(2, defocus_u_angstrom=np.array([6e4, 5e4]), defocus_v_angstrom=np.array([5.9e4, 5e4]))
    xy = seen_xy(grid)
    k2, wavelength = (xy ** 2).sum(-1), electron_wavelength_angstrom(300.0)
    defocus = 5e4
    chi = -np.pi * wavelength * defocus * k2 + np.pi / 2 * 2.7e7 * wavelength ** 3 * k2 ** 2 - np.arcsin(0.1)
    assert np.abs(ctf(table, group, grid, "cpu")[1].numpy() + np.sin(chi)).max() < 1e-5


def test_bright_protein_stays_bright_at_low_resolution_when_underfocused():
    table = particle_table(5)
    value = ctf(table, optics_group(), GRID, "cpu")
    assert torch.allclose(value[:, 0, 0], torch.tensor(0.1)) and (value[:, 0, 1:3] > value[:, 0, :1]).all()


def test_astigmatism_angle_counts_from_x_towards_y():
    table = particle_table(1, defocus_u_angstrom=np.array([2e4]), defocus_v_angstrom=np.array([1e4]),
                           defocus_angle_degree=np.array([45.0]))
    value = ctf(table, optics_group(spherical_aberration_millimetre=0.0, amplitude_contrast=0.0), GRID, "cpu")[0]
    k2 = 2 * (4 * GRID.step_per_angstrom) ** 2
    along = np.sin(np.pi * electron_wavelength_angstrom(200.0) * 2e4 * k2)
    across = np.sin(np.pi * electron_wavelength_angstrom(200.0) * 1e4 * k2)
    assert float(value[4, 4]) == pytest.approx(along, abs=1e-4)        # y = +4, x = +4
    assert float(value[-4, 4]) == pytest.approx(across, abs=1e-4)      # y = -4, x = +4


def test_zernike_lists_are_in_the_order_of_the_files():
    assert [odd_zernike_order(i) for i in range(12)] == [
        (-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3), (-5, 5), (-3, 5), (-1, 5), (1, 5), (3, 5), (5, 5)]
    assert [even_zernike_order(i) for i in range(9)] == [
        (0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]


def test_zernike_polynomials_are_those_of_the_books():
    xy = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    x, y, r2 = xy[:, 0], xy[:, 1], (xy ** 2).sum(-1)
    for (m, n), expected in {(0, 0): np.ones(50), (1, 1): x, (-1, 1): y, (0, 2): 2 * r2 - 1, (2, 2): x * x - y * y, (-2, 2): 2 * x * y,
                             (1, 3): (3 * r2 - 2) * x, (-1, 3): (3 * r2 - 2) * y, (3, 3): x ** 3 - 3 * x * y ** 2,
                             (-3, 3): 3 * x * x * y - y ** 3, (0, 4): 6 * r2 ** 2 - 6 * r2 + 1,
                             (2, 4): (4 * r2 - 3) * (x * x - y * y), (-4, 4): 4 * x * y * (x * x - y * y)}.items():
        assert zernike(m, n, xy) == pytest.approx(expected, abs=1e-12)


def test_first_odd_zernikes_shift_the_image_against_their_sign():
    table, group = particle_table(1), optics_group(odd_zernike=(0.0, 2 * np.pi * 3.0))    # phase +2 pi kx 3 A: x moves by -3 A
    plain = torch.fft.irfft2(ctf(table, optics_group(), GRID, "cpu"))
    moved = torch.fft.irfft2(ctf(table, group, GRID, "cpu"))
    pixel = GRID.size_px / GRID.kept_px
    peak = np.unravel_index(int(torch.fft.irfft2(torch.fft.rfft2(moved) * torch.fft.rfft2(plain).conj()).argmax()), plain.shape[1:])
    assert peak == (0, plain.shape[2] - round(3.0 / pixel))


def test_beam_tilt_turns_phases_against_the_tilt():
    group = optics_group(beam_tilt_xy_milliradian=(1.5, -0.5))
    xy = seen_xy()
    expected = -2 * np.pi * 1.4e7 * electron_wavelength_angstrom(200.0) ** 2 * (xy ** 2).sum(-1) * (xy @ [1.5e-3, -0.5e-3])
    got = ctf(particle_table(1), group, GRID, "cpu")[0] / ctf(particle_table(1), optics_group(), GRID, "cpu")[0]
    assert got.dtype == torch.complex64
    assert np.abs(got.numpy() - np.exp(1j * expected)).max() < 1e-3


def test_beam_tilt_takes_the_place_of_the_zernikes_coma():
    xy = seen_xy().reshape(-1, 2)
    both = optics_group(beam_tilt_xy_milliradian=(1.0, 2.0), odd_zernike=(1.0, 2.0, 30.0, 40.0, 50.0, 60.0))
    without = optics_group(beam_tilt_xy_milliradian=(1.0, 2.0), odd_zernike=(1.0, 2.0, 30.0, 0.0, 0.0, 60.0))
    assert odd_phase(both, xy) == pytest.approx(odd_phase(without, xy))
    coma = optics_group(odd_zernike=(0.0, 0.0, 0.0, 40.0, 50.0, 0.0))
    assert np.abs(odd_phase(coma, xy)).max() > 1


def test_even_zernikes_add_to_the_phase_of_which_the_ctf_is_minus_the_sine():
    defocus = particle_table(1, defocus_u_angstrom=np.array([1e4]), defocus_v_angstrom=np.array([1e4]))
    more = particle_table(1, defocus_u_angstrom=np.array([1.01e4]), defocus_v_angstrom=np.array([1.01e4]))
    z20 = -np.pi * electron_wavelength_angstrom(200.0) * 100.0 / 2        # 2 k^2 - 1: 100 A of defocus and a constant
    group = optics_group(even_zernike=(z20, 0.0, z20))
    assert torch.allclose(ctf(defocus, group, GRID, "cpu"), ctf(more, optics_group(), GRID, "cpu"), atol=1e-5)


def test_magnification_moves_the_rings():
    group = optics_group(magnification_matrix=(1.04, 0.01, -0.02, 0.97))
    table = particle_table(3)
    true = seen_xy() @ np.array([[1.04, 0.01], [-0.02, 0.97]]).T
    assert np.abs(ctf(table, group, GRID, "cpu").numpy() - formula(table, group, true)).max() < 5e-3


@pytest.mark.parametrize("header", ["data_\n\nloop_\n", "# version 30001\n\ndata_mtf_k2\nloop_\n"])
def test_mtf_counts_in_pixels_of_the_original_micrograph(tmp_path, header):
    path = tmp_path / "mtf.star"
    path.write_text(header + "_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n0.0 1.0\n0.25 0.6\n0.5 0.2\n")
    group = optics_group(mtf_file=str(path), micrograph_original_pixel_angstrom=0.5)
    ratio = (ctf(particle_table(1), group, GRID, "cpu") / ctf(particle_table(1), optics_group(), GRID, "cpu"))[0]
    k = GRID.frequency_per_angstrom()
    assert torch.allclose(ratio, 1.0 - 1.6 * k * 0.5, atol=1e-4)


def test_unusable_optics_are_refused_with_a_sentence(tmp_path):
    table = particle_table(1)
    with pytest.raises(InputError, match="does not exist"):
        ctf(table, optics_group(mtf_file=str(tmp_path / "none.star")), GRID, "cpu")
    (tmp_path / "bad.star").write_text("data_x\n\nloop_\n_rlnVoltage #1\n300\n200\n")
    with pytest.raises(InputError, match="rlnMtfValue"):
        ctf(table, optics_group(mtf_file=str(tmp_path / "bad.star")), GRID, "cpu")
    with pytest.raises(InputError, match="rlnMicrographOriginalPixelSize"):
        ctf(table, optics_group(mtf_file="m.star", micrograph_original_pixel_angstrom=None), GRID, "cpu")
    with pytest.raises(InputError, match="magnification"):
        ctf(table, optics_group(magnification_matrix=(0.0, 0.0, 0.0, 0.0)), GRID, "cpu")
    with pytest.raises(InputError, match="amplitude contrast"):
        ctf(table, optics_group(amplitude_contrast=7.0), GRID, "cpu")
