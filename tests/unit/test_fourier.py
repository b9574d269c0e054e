"""Half spectra against float64 references over the full plane."""
import numpy as np
import pytest
import torch

from refmotion_plugin.engine.dose.combine import to_images
from refmotion_plugin.engine.maths.fourier import (FourierGrid, crop_half_spectrum, good_fft_size, low_half_spectrum, shell_counts, shift_phase,
                                                   spread_from_shells, sum_over_shells)

SIZE, KEPT, FEW, PIXEL = 24, 14, 10, 1.7      # more than half of the columns kept, and fewer: other ways of transforming


def image(seed=0, size=SIZE):
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_crop_takes_the_low_frequencies_of_the_reference_transform():
    picture = image()
    cropped = crop_half_spectrum(torch.fft.rfft2(picture), KEPT)
    full = np.fft.fft2(picture.numpy())
    rows = np.r_[0:KEPT // 2, SIZE - KEPT // 2:SIZE]
    assert cropped.shape == FourierGrid(SIZE, PIXEL, KEPT).shape and cropped.is_contiguous()
    np.testing.assert_allclose(cropped.numpy(), full[rows][:, :KEPT // 2 + 1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kept", [SIZE, KEPT, FEW])
def test_the_low_half_spectrum_is_that_of_the_whole_transform(kept):
    pictures = torch.stack([image(), image(1)])
    low = low_half_spectrum(pictures, kept)
    torch.testing.assert_close(low, crop_half_spectrum(torch.fft.rfft2(pictures), kept), rtol=1e-12, atol=1e-10)
    assert low.shape == (2,) + FourierGrid(SIZE, PIXEL, kept).shape


@pytest.mark.parametrize("size, kept", [(96, 64), (96, 40), (96, 96), (50, 30), (50, 20)])
@pytest.mark.parametrize("at_a_time", [1, 2, 3, 7])
def test_transforms_do_not_depend_on_how_many_are_made_at_a_time(size, kept, at_a_time):
    """To the last bit: on Intel's processors MKL makes a single one in another order."""
    pictures = torch.randn(8, size, size, generator=torch.Generator().manual_seed(5))
    low = low_half_spectrum(pictures, kept)
    back = lambda spectra: to_images(spectra, FourierGrid(size, 1.0, kept), kept)
    parts = range(0, 8, at_a_time)
    assert torch.equal(torch.cat([low_half_spectrum(pictures[i:i + at_a_time], kept) for i in parts]), low)
    assert torch.equal(torch.cat([back(low[i:i + at_a_time]) for i in parts]), back(low))


def test_crop_to_the_same_size_changes_nothing():
    spectrum = torch.fft.rfft2(image())
    assert crop_half_spectrum(spectrum, SIZE) is spectrum


@pytest.mark.parametrize("size, kept", [(23, 14), (24, 13), (24, 26), (24, 0)])
def test_odd_or_impossible_sizes_are_refused(size, kept):
    with pytest.raises(ValueError, match="even sizes"):
        FourierGrid(size, PIXEL, kept)


def test_frequencies_agree_with_numpy_and_keep_the_full_box_step():
    grid = FourierGrid(SIZE, PIXEL, KEPT)
    yx = grid.frequency_yx_per_angstrom(dtype=torch.float64).numpy()
    every = np.fft.fftfreq(SIZE, PIXEL)
    np.testing.assert_allclose(yx[:, 0, 0], every[np.r_[0:KEPT // 2, SIZE - KEPT // 2:SIZE]])
    np.testing.assert_allclose(yx[0, :, 1], np.arange(KEPT // 2 + 1) / (SIZE * PIXEL))
    np.testing.assert_allclose(grid.frequency_per_angstrom(dtype=torch.float64).numpy(), np.hypot(yx[..., 0], yx[..., 1]))
    np.testing.assert_allclose(grid.shell_frequency_per_angstrom(dtype=torch.float64).numpy(),
                               np.arange(KEPT // 2 + 1) / (SIZE * PIXEL))


def test_multiplicity_makes_parseval_hold():
    picture = image(1)
    power = torch.fft.rfft2(picture).abs() ** 2
    total = (power * FourierGrid(SIZE, PIXEL, SIZE).multiplicity(dtype=torch.float64)).sum()
    assert float(total) == pytest.approx(SIZE ** 2 * float((picture ** 2).sum()), rel=1e-10)


def test_multiplicity_of_a_cropped_spectrum_counts_the_full_plane_of_its_band():
    picture = image(1)
    grid = FourierGrid(SIZE, PIXEL, KEPT)
    half = crop_half_spectrum(torch.fft.rfft2(picture), KEPT).abs() ** 2
    band = grid.frequency_per_angstrom(dtype=torch.float64) < (KEPT // 2 - 0.5) * grid.step_per_angstrom
    index = np.fft.fftfreq(SIZE, 1 / SIZE)
    disc = np.hypot(index[:, None], index[None]) < KEPT // 2 - 0.5
    full = np.abs(np.fft.fft2(picture.numpy())) ** 2
    assert float((half * band * grid.multiplicity(dtype=torch.float64)).sum()) == pytest.approx(full[disc].sum(), rel=1e-10)


@pytest.mark.parametrize("kept", [SIZE, KEPT, FEW])
def test_shells_are_rings_of_the_full_plane(kept):
    picture = image(2)
    grid = FourierGrid(SIZE, PIXEL, kept)
    half = crop_half_spectrum(torch.fft.rfft2(picture), kept)
    sums = sum_over_shells(half.abs() ** 2, grid).numpy()
    full = np.abs(np.fft.fft2(picture.numpy())) ** 2
    index = np.fft.fftfreq(SIZE, 1 / SIZE)
    ring = np.round(np.hypot(index[:, None], index[None])).astype(int)
    for shell in range(kept // 2 if kept < SIZE else kept // 2 + 1):     # the last ring of a cropped plane is incomplete
        assert sums[shell] == pytest.approx(full[ring == shell].sum(), rel=1e-10)
        assert float(shell_counts(grid)[shell]) == (ring == shell).sum()


def test_corners_belong_to_no_shell():
    grid = FourierGrid(SIZE, PIXEL, KEPT)
    index = grid.shell_index()
    assert index[KEPT // 2, KEPT // 2] == grid.n_shells and index[0, KEPT // 2] == grid.n_shells - 1
    spread = spread_from_shells(torch.arange(1.0, grid.n_shells + 1), grid)
    assert spread[KEPT // 2, KEPT // 2] == 0 and spread[0, 0] == 1 and spread[0, KEPT // 2] == grid.n_shells


def test_spreading_and_summing_are_inverse_up_to_the_counts():
    grid = FourierGrid(SIZE, PIXEL, KEPT)
    values = torch.rand(3, grid.n_shells, dtype=torch.float64)
    torch.testing.assert_close(sum_over_shells(spread_from_shells(values, grid), grid), values * shell_counts(grid))


@pytest.mark.parametrize("shift", [(3, 0), (0, 2), (-4, 5)])
def test_shift_phase_moves_a_delta_by_plus_the_shift_along_y_then_x(shift):
    picture = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    picture[10, 12] = 1.0
    turn_y, turn_x = shift_phase(torch.tensor([shift], dtype=torch.float64), SIZE, SIZE)
    moved = torch.fft.irfft2(torch.fft.rfft2(picture) * turn_y[0, :, None] * turn_x[0, None, :], s=(SIZE, SIZE))
    place = np.unravel_index(int(moved.argmax()), (SIZE, SIZE))
    assert place == (10 + shift[0], 12 + shift[1])
    assert float(moved[place]) == pytest.approx(1.0, abs=1e-5)


def test_shift_phase_of_fractions_and_cropped_grids_is_the_fourier_shift_theorem():
    shift = torch.tensor([[0.3, -1.7], [2.25, 0.0]], dtype=torch.float64)
    turn_y, turn_x = shift_phase(shift, SIZE, KEPT)
    grid = FourierGrid(SIZE, 1.0, KEPT)
    k = grid.frequency_yx_per_angstrom(dtype=torch.float64)
    expected = torch.exp(-2j * torch.pi * torch.einsum("hwa,pa->phw", k, shift))
    torch.testing.assert_close((turn_y[:, :, None] * turn_x[:, None, :]).to(torch.complex128), expected, atol=1e-6, rtol=0)


def test_turns_of_far_shifts_are_as_exact_as_those_of_near_ones():
    shift = torch.tensor([[1000.3, -2000.7]], dtype=torch.float64)
    for turn, index, way in zip(shift_phase(shift, 96, 96), FourierGrid(96, 1.0, 96).index_yx(dtype=torch.float64), shift[0]):
        torch.testing.assert_close(turn[0].to(torch.complex128), torch.exp(-2j * torch.pi / 96 * way * index), atol=4e-7, rtol=0)


@pytest.mark.parametrize("minimum, size", [(96, 96), (97, 98), (101, 108), (121, 126), (11, 12)])
def test_good_fft_sizes_are_even_and_smooth(minimum, size):
    assert good_fft_size(minimum) == size
