"""Signs of wrong inputs: half-sets that are not those of the half-maps, fine detail that the movies do not show."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.engine.maths.fourier import FourierGrid
from refmotion_plugin.engine.stages import calibrate
from refmotion_plugin.engine.stages.fine_detail import doubts, fine_detail
from refmotion_plugin.engine.stages.half_sets import HalfSets, compare_half_maps

GRID, FRAMES, PARTICLES = FourierGrid(32, 2.0, 32), 6, 60


def view_of(in_half_one, half):
    """Particles of pure signal and noise whose noise, over all frames, is in half-map 1 or 2, seen by particles of the given halves."""
    generator = torch.Generator().manual_seed(3)
    white = lambda *shape: torch.fft.rfft2(torch.randn(*shape, 32, 32, generator=generator))
    signal, noise = white(1), white(FRAMES, PARTICLES)
    maps = [signal + 0.3 * white(PARTICLES), signal + 0.3 * white(PARTICLES)]
    trace = 0.2 * noise.mean(0)
    for number in (1, 2):
        maps[number - 1] = maps[number - 1] + torch.where(torch.as_tensor(in_half_one == (number == 1))[:, None, None], trace, 0 * trace)
    own = torch.as_tensor(half == 1)[:, None, None]
    return SimpleNamespace(grid=GRID, own=torch.where(own, maps[0], maps[1]), opposite=torch.where(own, maps[1], maps[0]),
                           residual_yx_angstrom=torch.zeros(PARTICLES, FRAMES, 2, dtype=torch.float64),
                           damage=torch.ones(FRAMES, GRID.n_shells, dtype=torch.float64), spectra=lambda f: 0.5 * signal + noise[f])


def compared(in_half_one, half):
    return compare_half_maps(view_of(np.asarray(in_half_one), np.asarray(half)), torch.full((GRID.n_shells,), 32.0 ** 2, dtype=torch.float64))


HALF = np.arange(PARTICLES) % 2 + 1


def test_half_sets_as_they_should_be():
    found = compared(HALF == 1, HALF)
    assert found.z > 5 and found.warnings == ()


def test_particles_are_compared_where_they_are_in_each_frame():
    view, noise = view_of(HALF == 1, HALF), torch.full((GRID.n_shells,), 32.0 ** 2, dtype=torch.float64)
    expected, still = compare_half_maps(view, noise), view.spectra
    shift_px = np.random.default_rng(4).integers(-5, 6, (PARTICLES, FRAMES, 2))
    moved = lambda f: torch.stack([torch.roll(image, tuple(by), (0, 1)) for image, by in zip(torch.fft.irfft2(still(f)), shift_px[:, f].tolist())])
    view.residual_yx_angstrom = torch.from_numpy(shift_px * GRID.pixel_angstrom)
    view.spectra = lambda f: torch.fft.rfft2(moved(f))
    found = compare_half_maps(view, noise)
    np.testing.assert_allclose(found.difference, expected.difference, rtol=1e-3, atol=1e-3 * np.abs(expected.difference).max())
    np.testing.assert_allclose(found.control, expected.control, rtol=1e-3, atol=1e-3 * np.abs(expected.control).max())


def test_exchanged_half_maps():
    found = compared(HALF == 2, HALF)
    assert found.z < -5 and len(found.warnings) == 1 and "exchanged" in found.warnings[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_half_sets_dealt_anew(seed):
    found = compared(HALF == 1, np.random.default_rng(seed).permutation(HALF))
    assert len(found.warnings) == 1 and "are not those of the half-maps" in found.warnings[0]


def test_half_maps_of_other_particles_are_no_reason_to_worry():
    view = view_of(HALF == 1, HALF)
    generator = torch.Generator().manual_seed(9)
    noise = [torch.fft.rfft2(torch.randn(PARTICLES, 32, 32, generator=generator)) for _ in range(2)]
    view.own, view.opposite = noise
    found = compare_half_maps(view, torch.full((GRID.n_shells,), 32.0 ** 2, dtype=torch.float64))
    assert abs(found.z) < 4 and found.warnings == ()
    assert HalfSets(np.array([-9.0]), np.array([1.0])).warnings == ()       # one particle is held against nobody


def sums_of(fine):
    """Sums of movies that show ``fine`` times as much of the reference beyond 15 A as before, with much data."""
    k = np.arange(60) / 192.0
    fsc = np.exp(-(k / 0.2) ** 4)
    power = np.full((1, 60), 4e4)
    cross = power * fsc * np.where(k > 1 / 15, fine, 1.0)
    reference = SimpleNamespace(fsc_at=lambda frequency: torch.from_numpy(np.interp(frequency.numpy(), k, fsc)))
    return {"frequency": k, "cross": cross, "power": power}, reference


@pytest.mark.parametrize("fine, odd", [(1.5, 0), (1.0, 0), (0.0, 1), (0.3, 0)])
def test_fine_detail_that_is_missing(fine, odd):
    sums, reference = sums_of(fine)
    found = fine_detail(sums, 0, reference)
    assert found[0] == pytest.approx(fine, abs=1e-6) and 1 / found[2] == pytest.approx(5.5, abs=0.3)
    assert len(doubts(found)) == odd


def test_few_data_are_no_reason_to_worry():
    sums, reference = sums_of(0.0)
    sums = {name: values if name == "frequency" else values * 1e-5 for name, values in sums.items()}
    assert doubts(fine_detail(sums, 0, reference)) == () and doubts(None) == ()
    assert fine_detail(dict(sums, cross=0 * sums["cross"]), 0, reference) is None


def test_good_inputs_leave_no_warning(calibrated):
    assert calibrated.warnings == ()


def test_a_warning_of_the_calibration_reaches_the_job(tiny, monkeypatch):
    monkeypatch.setattr(calibrate, "doubts", lambda found: ("odd",))
    assert calibrate.calibrate(tiny.movies, tiny.of, tiny.prepared).warnings == ("odd",)
