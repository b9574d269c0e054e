"""RELION as judge: its projections are ours, its reconstruction undoes our aberrations, and turned signs fail both."""
import os
import shutil
import subprocess
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import torch

from refmotion_plugin.contract.conventions import MOVIE_CONTRAST
from refmotion_plugin.engine.maths.fourier import FourierGrid
from refmotion_plugin.engine.optics.ctf import ctf
from refmotion_plugin.engine.optics.predict import predict
from refmotion_plugin.engine.optics.reference import build_reference
from tests.golden.make_optics_golden import BOX, CASES, GOLDEN, PIXEL, golden_map, golden_table, write_map, write_star
from tests.unit.optics_cases import correlation, optics_group, particle_table

GRID = FourierGrid(BOX, PIXEL, BOX)


@pytest.fixture(scope="module")
def reference():
    volume = golden_map()
    return build_reference((volume, volume), np.ones_like(volume), PIXEL)


def images_of(dft):
    return MOVIE_CONTRAST * torch.fft.irfft2(dft, s=(BOX, BOX)).numpy()


def ours(reference, table, group):
    return images_of(predict(reference, table, {1: group}, table.half, GRID))


def correlations(images, others):
    return np.array([correlation(a, b) for a, b in zip(images, others)])


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN))


@pytest.mark.parametrize("case", ["astigmatism", "even"])
def test_images_are_those_of_relion_in_shape_sign_and_amplitude(reference, golden, case):
    table = golden_table()
    got = ours(reference, table, optics_group(**CASES[case]))
    assert correlations(got, golden[case]).min() > 0.999
    amplitude = (got * golden[case]).sum((1, 2)) / (got ** 2).sum((1, 2))
    assert amplitude == pytest.approx(np.ones(4), abs=0.01)


def turned(table):
    """The table with one convention turned round, by name."""
    angles = table.rotation_zyz_degree
    return {"inverse rotation": replace(table, rotation_zyz_degree=-angles[:, ::-1]),
            "negative tilt": replace(table, rotation_zyz_degree=angles * [1, -1, 1]),
            "overfocus": replace(table, defocus_u_angstrom=-table.defocus_u_angstrom, defocus_v_angstrom=-table.defocus_v_angstrom),
            "astigmatism mirrored": replace(table, defocus_angle_degree=-table.defocus_angle_degree),
            "astigmatism from y": replace(table, defocus_angle_degree=90 - table.defocus_angle_degree),
            "phase shift": replace(table, phase_shift_degree=table.phase_shift_degree + 180)}


@pytest.mark.parametrize("name", ["inverse rotation", "negative tilt", "overfocus", "astigmatism mirrored", "astigmatism from y",
                                  "phase shift"])
def test_turned_conventions_are_noticed(reference, golden, name):
    assert correlations(ours(reference, turned(golden_table())[name], optics_group()), golden["astigmatism"]).min() < 0.95


def test_turned_even_zernikes_are_noticed(reference, golden):
    coefficients = CASES["even"]["even_zernike"]
    second, fourth = coefficients[1:4], coefficients[4:]
    for wrong in (tuple(-c for c in coefficients), coefficients[:1] + second[::-1] + fourth, coefficients[:4] + fourth[::-1], ()):
        assert correlations(ours(reference, golden_table(), optics_group(even_zernike=wrong)), golden["even"]).max() < 0.95


def test_relion_sees_the_ctf_through_our_magnification(reference, golden):
    table, flat = golden_table(), optics_group()
    plain = predict(reference, table, {1: flat}, table.half, GRID) / ctf(table, flat, GRID, "cpu")
    got = images_of(plain * ctf(table, optics_group(**CASES["magnification"]), GRID, "cpu"))
    assert correlations(got, golden["magnification"]).min() > 0.99
    m = CASES["magnification"]["magnification_matrix"]
    inverse = tuple(np.linalg.inv(np.reshape(m, (2, 2))).ravel())
    assert correlations(images_of(plain * ctf(table, optics_group(magnification_matrix=inverse), GRID, "cpu")),
                        golden["magnification"]).max() < 0.95


TILT, ODD = (8.0, -5.0), (5.0, -4.0, 40.0, -60.0, 30.0, 80.0)
EVERYTHING = dict(beam_tilt_xy_milliradian=TILT, odd_zernike=ODD, magnification_matrix=(1.05, 0.03, -0.01, 0.96), **CASES["even"])
RECONSTRUCTED = {"tilt": dict(beam_tilt_xy_milliradian=TILT), "odd": dict(odd_zernike=ODD), "everything": EVERYTHING,
                 "magnification": dict(magnification_matrix=(1.05, 0.03, -0.01, 0.96)),
                 "stretched": dict(beam_tilt_xy_milliradian=TILT, magnification_matrix=(1.2, 0.1, -0.05, 0.85))}
WRONG = {"tilt": dict(beam_tilt_xy_milliradian=(-8.0, 5.0)), "odd": dict(odd_zernike=tuple(-c for c in ODD)),
         "everything": dict(EVERYTHING, beam_tilt_xy_milliradian=TILT[::-1]),
         "magnification": dict(magnification_matrix=tuple(np.linalg.inv([[1.05, 0.03], [-0.01, 0.96]]).ravel())),
         "stretched": dict(beam_tilt_xy_milliradian=TILT, magnification_matrix=(1.2, -0.05, 0.1, 0.85))}


def fsc_after_relion(folder, images, table, group):
    """FSC of the true map with what relion_reconstruct makes of the images, per shell."""
    write_map(folder / "stack.mrcs", images)
    write_star(folder / "particles.star", table, group)
    subprocess.run(["relion_reconstruct", "--i", "particles.star", "--o", "map.mrc", "--ctf", "--angpix", str(PIXEL), "--pad", "2"],
                   cwd=folder, check=True, capture_output=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    a, b = np.fft.rfftn(golden_map()), np.fft.rfftn(mrcfile.read(str(folder / "map.mrc")))
    f = np.fft.fftfreq(BOX, 1 / BOX)
    shell = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + np.arange(BOX // 2 + 1) ** 2).round().astype(int).ravel()

    def binned(values):
        return np.bincount(shell, values.ravel())[2:21]

    return binned((a * b.conj()).real) / np.sqrt(binned(abs(a) ** 2) * binned(abs(b) ** 2))


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="relion_reconstruct is not installed: RELION cannot judge")
@pytest.mark.parametrize("case", sorted(RECONSTRUCTED))
def test_relion_undoes_our_aberrations_and_only_with_the_same_sign(reference, tmp_path, case):
    table = particle_table(300, seed=5)
    images = ours(reference, table, optics_group(**RECONSTRUCTED[case]))
    assert fsc_after_relion(tmp_path, images, table, optics_group(**RECONSTRUCTED[case])).min() > 0.98
    assert fsc_after_relion(tmp_path, images, table, optics_group(**WRONG[case])).min() < 0.9
