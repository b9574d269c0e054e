"""Predictions: where points go, which half is used, which amplitude comes out, and how exact the slices are."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.conventions import MOVIE_CONTRAST, rotation_matrices
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.engine.maths.fourier import FourierGrid, crop_half_spectrum
from refmotion_plugin.engine.optics import predict as predict_module
from refmotion_plugin.engine.optics.predict import predict, predict_both
from refmotion_plugin.engine.optics.reference import build_reference
from refmotion_plugin.engine.optics.slices import slice_coordinates
from tests.unit.optics_cases import blob_map, blobs, dft_slice, flat_optics, optics_group, particle_table

BOX, PIXEL = 32, 2.0
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def reference_of(volume, other=None, pixel=PIXEL):
    other = volume if other is None else other
    return build_reference((volume, other), np.ones_like(volume), pixel)


@pytest.fixture(scope="module")
def particle():
    return blob_map(BOX, *blobs(BOX, seed=3))


def predicted_images(reference, table, group, grid):
    dft = predict(reference, table, {1: group}, table.half, grid)
    return MOVIE_CONTRAST * torch.fft.irfft2(dft, s=(grid.size_px, grid.size_px)).numpy()


def test_a_point_of_the_map_is_seen_at_the_rotated_place():
    group, columns = flat_optics()
    table = particle_table(6, seed=1, **columns)
    position = np.array([6.0, -3.0, 2.0])   # x, y, z
    volume = blob_map(BOX, position[None], np.ones(1), sigma_px=1.2)
    images = predicted_images(reference_of(volume), table, group, FourierGrid(BOX, PIXEL, BOX))
    seen = rotation_matrices(table.rotation_zyz_degree) @ position
    grid = np.arange(BOX) - BOX // 2
    for image, (x, y, _) in zip(images, seen):
        peak = np.clip(image, 0.2 * image.max(), None) - 0.2 * image.max()
        assert (peak.sum(0) @ grid) / peak.sum() == pytest.approx(x, abs=0.05)
        assert (peak.sum(1) @ grid) / peak.sum() == pytest.approx(y, abs=0.05)


def test_rotations_about_the_axis_turn_the_image_the_way_of_the_convention():
    group, columns = flat_optics()
    angles = np.zeros((6, 3))
    angles[1] = (0, 0, 90)     # A = [[0, 1, 0], [-1, 0, 0], ...]: x goes to -y
    volume = blob_map(BOX, np.array([[8.0, 0.0, 0.0]]), np.ones(1))
    images = predicted_images(reference_of(volume), particle_table(6, rotation_zyz_degree=angles, **columns), group,
                              FourierGrid(BOX, PIXEL, BOX))
    assert np.unravel_index(images[0].argmax(), (BOX, BOX)) == (BOX // 2, BOX // 2 + 8)
    assert np.unravel_index(images[1].argmax(), (BOX, BOX)) == (BOX // 2 - 8, BOX // 2)


@pytest.mark.parametrize("box", [32, 33])
@pytest.mark.parametrize("size,kept", [(32, 32), (40, 32), (48, 48)])
def test_the_centre_never_moves(box, size, kept):
    group, columns = flat_optics()
    volume = np.zeros((box, box, box), np.float32)
    volume[box // 2, box // 2, box // 2] = 1.0
    table = particle_table(6, **columns)
    dft = predict(reference_of(volume), table, {1: group}, table.half, FourierGrid(size, PIXEL, kept))
    inside = dft.abs() > 0
    y, x = FourierGrid(size, PIXEL, kept).index_yx()
    sign = 1.0 - 2.0 * ((y[:, None] + x) % 2)
    assert torch.allclose((dft * sign * MOVIE_CONTRAST)[inside], torch.ones((), dtype=torch.complex64), atol=1e-4)


def test_real_images_come_out_of_the_half_spectrum(particle):
    grid = FourierGrid(BOX, PIXEL, BOX)
    table = particle_table(4)
    dft = predict(reference_of(particle), table, {1: optics_group(beam_tilt_xy_milliradian=(2.0, -1.0), odd_zernike=(1.0, 2.0))},
                  table.half, grid)
    column = dft[:, 1:, 0]
    assert torch.allclose(column, column.flip(1).conj(), atol=1e-4 * float(dft.abs().max()))
    assert torch.allclose(torch.fft.rfft2(torch.fft.irfft2(dft, s=(BOX, BOX)))[:, 1:BOX // 2, :BOX // 2],
                          dft[:, 1:BOX // 2, :BOX // 2], atol=1e-4 * float(dft.abs().max()))


def shell_correlations(a, b, radius, shells):
    out = []
    for low in range(shells):
        at = (radius >= low) & (radius < low + 1)
        out.append((a[at] * b[at].conj()).real.sum() / np.sqrt((abs(a[at]) ** 2).sum() * (abs(b[at]) ** 2).sum()))
    return np.array(out)


def test_slices_agree_with_a_float64_transform_in_every_shell(particle):
    rng = np.random.default_rng(0)
    noisy = np.where(particle > 1e-3 * particle.max(), particle + 0.3 * rng.normal(size=particle.shape), 0).astype(np.float32)
    group, columns = flat_optics()
    table = particle_table(6, seed=5, **columns)
    grid = FourierGrid(BOX, PIXEL, BOX)
    dft = MOVIE_CONTRAST * predict(reference_of(noisy), table, {1: group}, table.half, grid).numpy()
    y, x = (axis.numpy() for axis in grid.index_yx(dtype=torch.float64))
    k = np.stack(np.broadcast_arrays(x, y[:, None]), -1).reshape(-1, 2)
    sign = (1.0 - 2.0 * (k.sum(-1) % 2))
    for p, matrix in enumerate(rotation_matrices(table.rotation_zyz_degree)):
        expected = dft_slice(noisy, matrix, k / BOX) * sign
        fsc = shell_correlations(dft[p].ravel(), expected, np.hypot(*k.T), int(0.9 * BOX / 2))
        assert fsc.min() > 0.99
        band = (np.hypot(*k.T) < 0.9 * BOX / 2)
        scale = (dft[p].ravel()[band] * expected[band].conj()).real.sum() / (abs(expected[band]) ** 2).sum()
        assert scale == pytest.approx(1.0, abs=0.02)


def test_real_space_values_do_not_depend_on_the_patch_box(particle):
    group, columns = flat_optics()
    table = particle_table(6, **columns)
    reference = reference_of(particle)
    small = predicted_images(reference, table, group, FourierGrid(BOX, PIXEL, BOX))
    large = predicted_images(reference, table, group, FourierGrid(48, PIXEL, 48))
    assert np.abs(large[:, 8:40, 8:40] - small).max() < 0.02 * small.max()
    assert small.sum((1, 2)) == pytest.approx(np.full(6, particle.sum()), rel=0.06)    # the node at DC keeps its gridding correction


def test_real_space_values_do_not_depend_on_the_pixel_size(particle):
    smooth = blob_map(BOX, *blobs(BOX, seed=3, radius=0.25), sigma_px=2.0)
    group, columns = flat_optics()
    table = particle_table(6, **columns)
    reference = reference_of(smooth)
    coarse = predicted_images(reference, table, group, FourierGrid(BOX, PIXEL, BOX))
    fine = predicted_images(reference, table, group, FourierGrid(2 * BOX, PIXEL / 2, 2 * BOX))
    assert np.abs(fine[:, ::2, ::2] - coarse).max() < 0.01 * coarse.max()


def test_kept_frequencies_are_those_of_the_whole_patch(particle):
    table, reference, group = particle_table(4), reference_of(particle), optics_group()
    whole = predict(reference, table, {1: group}, table.half, FourierGrid(40, PIXEL, 40))
    kept = predict(reference, table, {1: group}, table.half, FourierGrid(40, PIXEL, 24))
    expected = crop_half_spectrum(whole, 24)
    assert torch.allclose(kept[:, :, :12], expected[:, :, :12], atol=1e-5 * float(whole.abs().max()))


def test_nothing_is_predicted_beyond_the_references_nyquist(particle):
    grid = FourierGrid(48, PIXEL / 2, 48)
    table = particle_table(2)
    dft = predict(reference_of(particle), table, {1: optics_group()}, table.half, grid)
    assert (dft[:, grid.frequency_per_angstrom() > 1.0 / (2 * PIXEL)] == 0).all()
    assert (dft[:, grid.frequency_per_angstrom() < 0.9 / (2 * PIXEL)].abs() > 0).float().mean() > 0.99


def test_each_particle_is_predicted_from_the_half_asked_for(particle):
    other = blob_map(BOX, *blobs(BOX, seed=9))
    grid, table, group = FourierGrid(BOX, PIXEL, BOX), particle_table(5), {1: optics_group()}
    both = reference_of(particle, particle + 0.3 * other)
    first, second = reference_of(particle), reference_of(particle + 0.3 * other)
    expected = torch.stack([predict(r, table, group, table.half, grid) for r in (first, second)])
    own = expected[torch.as_tensor(table.half.astype(int)) - 1, torch.arange(5)]
    opposite = expected[2 - torch.as_tensor(table.half.astype(int)), torch.arange(5)]
    scale = float(own.abs().max())
    inside = predict(both, table, group, table.half, grid).abs() > 0
    assert torch.allclose(predict(both, table, group, table.half, grid), own * inside, atol=1e-5 * scale)
    assert torch.allclose(predict(both, table, group, torch.as_tensor(3 - table.half), grid), opposite * inside, atol=1e-5 * scale)
    pair = predict_both(both, table, group, grid)
    assert torch.allclose(pair[0], own * inside, atol=1e-5 * scale) and torch.allclose(pair[1], opposite * inside, atol=1e-5 * scale)


@pytest.mark.parametrize("samples", [1, 1500, 10 ** 7])
def test_chunks_change_nothing(particle, monkeypatch, samples):
    table = particle_table(7, optics_group=np.array([1, 2, 1, 2, 2, 1, 1], np.int32))
    groups = {1: optics_group(), 2: optics_group(number=2, beam_tilt_xy_milliradian=(1.0, 0.5))}
    reference, grid = reference_of(particle), FourierGrid(BOX, PIXEL, 24)
    expected = torch.cat([predict(reference, table[[p]], groups, table.half[[p]], grid) for p in range(7)])
    monkeypatch.setitem(predict_module._CHUNK_SAMPLES, "cpu", samples)
    assert torch.allclose(predict(reference, table, groups, table.half, grid), expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
def test_devices_agree(particle, device):
    table, reference, group, grid = particle_table(5), reference_of(particle), {1: optics_group()}, FourierGrid(BOX, PIXEL, BOX)
    expected = predict(reference, table, group, table.half, grid)
    got = predict(reference.to(device), table, group, table.half, grid, device).cpu()
    assert torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max()))


def test_magnification_stretches_the_image_as_the_matrix_says():
    group, columns = flat_optics()
    stretched = replace(group, magnification_matrix=(1.25, 0.0, 0.0, 1.0))   # true kx = 1.25 seen kx: seen x = 1.25 true x
    volume = blob_map(BOX, np.array([[4.0, 8.0, 0.0]]), np.ones(1), sigma_px=1.2)
    table = particle_table(6, rotation_zyz_degree=np.zeros((6, 3)), **columns)
    image = predicted_images(reference_of(volume), table, stretched, FourierGrid(BOX, PIXEL, BOX))[0]
    grid = np.arange(BOX) - BOX // 2
    peak = np.clip(image, 0.2 * image.max(), None) - 0.2 * image.max()
    assert (peak.sum(0) @ grid) / peak.sum() == pytest.approx(5.0, abs=0.1)
    assert (peak.sum(1) @ grid) / peak.sum() == pytest.approx(8.0, abs=0.1)


def test_no_particles_give_an_empty_prediction(particle):
    grid = FourierGrid(BOX, PIXEL, BOX)
    assert predict(reference_of(particle), particle_table(4)[:0], {}, np.zeros(0), grid).shape == (0,) + grid.shape


def test_unknown_optics_group_and_lost_angles_are_said(particle):
    reference, grid = reference_of(particle), FourierGrid(BOX, PIXEL, BOX)
    table = particle_table(3, optics_group=np.array([1, 4, 1], np.int32))
    with pytest.raises(InputError, match="optics group 4"):
        predict(reference, table, {1: optics_group()}, table.half, grid)
    table = particle_table(3, rotation_zyz_degree=np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 0.0]]))
    with pytest.raises(InputError, match="rotation_zyz_degree.*row 1"):
        predict(reference, table, {1: optics_group()}, table.half, grid)


def test_scale_factors_scale_predictions(particle):
    reference, grid = reference_of(particle), FourierGrid(BOX, PIXEL, BOX)
    twice = particle_table(1)[np.array([0, 0])]
    one, other = predict(reference, replace(twice, ctf_scale=np.array([1.0, 0.6])), {1: optics_group()}, twice.half, grid)
    assert float(one.abs().max()) > 0 and torch.allclose(other, 0.6 * one, atol=1e-5 * float(one.abs().max()))


def test_slices_are_where_float64_says():
    """To a ten-thousandth of a sample at the end of a large band: a scale that is a thousandth off shifts detail there by a tenth."""
    generator = np.random.default_rng(3)
    rotation = np.linalg.qr(generator.normal(size=(4, 3, 3)))[0]
    frequency = generator.uniform(-0.3, 0.3, size=(500, 2))
    step = 1.0 / 512.0
    found, sign = slice_coordinates(SimpleNamespace(step_per_angstrom=step), rotation, torch.from_numpy(frequency))
    plane = np.concatenate([frequency, np.zeros((500, 1))], axis=1) / step
    exact = np.einsum("pji,nj->pin", rotation, plane)
    mirrored = np.where(exact[:, :1] < 0, -1.0, 1.0)
    assert np.abs(found.numpy() - exact * mirrored).max() < 1e-4 and (sign.numpy() == mirrored[:, 0]).all() and (found[:, 0] >= 0).all()
