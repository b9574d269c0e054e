"""Fourier cylinder correlation against sums over the full plane, and its statistics."""
import numpy as np
import pytest
import torch

from refmotion_plugin.engine.dose.fcc import fcc_sums
from refmotion_plugin.engine.maths import fourier
from refmotion_plugin.engine.maths.fourier import FourierGrid, crop_half_spectrum

GRID = FourierGrid(32, 1.4, 24)
COMPLETE = slice(1, 12)                        # shells of which the cropped half spectrum holds every component
DOSES = np.array([0.5, 1.5, 2.5])


def spectra(images):
    return crop_half_spectrum(torch.fft.rfft2(torch.from_numpy(images)), GRID.kept_px).to(torch.complex64)


def white(seed, n):
    return np.random.default_rng(seed).normal(size=(n, GRID.size_px, GRID.size_px))


def full_plane(offset_px):
    index = np.fft.fftfreq(GRID.size_px, 1.0 / GRID.size_px)
    ky, kx = np.meshgrid(index, index, indexing="ij")
    back = np.exp(2j * np.pi * (ky * offset_px[0] + kx * offset_px[1]) / GRID.size_px)
    return np.round(np.hypot(ky, kx)).astype(int), back


def brute_force(frames, reference, offsets, rows):
    """Sums (cross, |Y|^2, |A|^2) per frame and shell over the given particles."""
    out = np.zeros((3, len(frames), GRID.n_shells))
    for f, images in enumerate(frames):
        for p in rows:
            shell, back = full_plane(offsets[p, f])
            y, a = np.fft.fft2(images[p]), np.fft.fft2(reference[p])
            for row, values in enumerate(((y * back * a.conj()).real, np.abs(y) ** 2, np.abs(a) ** 2)):
                out[row, f] += np.bincount(shell.ravel(), values.ravel())[:GRID.n_shells]
    return out


def table_of(frames, reference, offsets, group=None, n_groups=1):
    patches = [spectra(images) for images in frames]
    group = torch.zeros(len(reference), dtype=torch.int64) if group is None else torch.as_tensor(group)
    return fcc_sums(lambda f: patches[f], spectra(reference), torch.from_numpy(offsets), group, n_groups, GRID, DOSES[:len(frames)])


def moved(images, shift_px):
    """Images moved by +shift, the Nyquist lines left out."""
    _, back = full_plane(-np.asarray(shift_px))
    turned = np.fft.fft2(images) * back
    turned[..., GRID.size_px // 2, :], turned[..., GRID.size_px // 2] = 0, 0
    return np.fft.ifft2(turned).real


@pytest.mark.parametrize("cache_bytes", [1, fourier.CACHE_BYTES])
def test_sums_equal_brute_force_per_group(monkeypatch, cache_bytes):
    monkeypatch.setattr(fourier, "CACHE_BYTES", cache_bytes)       # two particles at a time, or all
    rng = np.random.default_rng(0)
    frames, reference = [white(1, 5), white(2, 5), white(3, 5)], white(4, 5)
    offsets, group = rng.uniform(-3, 3, (5, 3, 2)), [0, 1, 0, 0, 1]
    table = table_of(frames, reference, offsets, group, 2)
    for g in (0, 1):
        cross, movie, power = brute_force(frames, reference, offsets, np.flatnonzero(np.array(group) == g))
        np.testing.assert_allclose(table.cross[g][:, COMPLETE], cross[:, COMPLETE], rtol=1e-4, atol=1.0)
        np.testing.assert_allclose(table.power_movie[g][:, COMPLETE], movie[:, COMPLETE], rtol=1e-5)
        np.testing.assert_allclose(table.power_reference[g][:, COMPLETE], power[:, COMPLETE], rtol=1e-5)
    np.testing.assert_array_equal(table.dose_e_per_A2, DOSES)
    np.testing.assert_allclose(table.frequency_per_angstrom, np.arange(GRID.n_shells) / (32 * 1.4))


def test_only_patches_moved_back_along_the_trajectory_correlate_fully():
    """The particle is seen at +offset; with the sign or the axes turned the correlation is lost."""
    reference, offset = white(5, 6), np.array([2.3, -1.2])
    seen = moved(reference, offset)
    at = lambda o: table_of([seen], reference, np.broadcast_to(np.asarray(o), (6, 1, 2)).copy()).fcc[0, 0, COMPLETE]
    np.testing.assert_allclose(at(offset), 1.0, atol=0.02)
    for wrong in (-offset, offset[::-1], np.zeros(2)):
        assert at(wrong)[2:].mean() < 0.5


def test_pure_noise_has_no_correlation_beyond_its_standard_error():
    frames, reference = [white(10, 150), white(11, 150), white(12, 150)], white(13, 150)
    table = table_of(frames, reference, np.random.default_rng(2).uniform(-0.5, 0.5, (150, 3, 2)))
    score = (table.fcc * np.sqrt(2 * table.components))[0, :, COMPLETE]
    assert abs(score.mean()) < 4 / np.sqrt(score.size)
    assert 0.7 < score.std() < 1.35
    assert np.abs(score).max() < 4.5


def test_the_correlation_of_signal_in_noise_is_the_expected_one():
    reference, share = white(20, 120), 0.4
    frame = share * reference + white(21, 120)
    fcc = table_of([frame], reference, np.zeros((120, 1, 2))).fcc[0, 0, COMPLETE]
    np.testing.assert_allclose(fcc, share / np.sqrt(1 + share ** 2), atol=0.05)


def test_tables_add_over_particles():
    frames, reference, offsets = [white(30, 6), white(31, 6)], white(32, 6), np.random.default_rng(3).uniform(-2, 2, (6, 2, 2))
    part = lambda rows: table_of([f[rows] for f in frames], reference[rows], offsets[rows])
    whole, total = part(slice(0, 6)), part(slice(0, 2)) + part(slice(2, 6))
    for name in ("cross", "power_movie", "power_reference", "components"):
        np.testing.assert_allclose(getattr(total, name), getattr(whole, name), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(total.fcc, whole.fcc, rtol=1e-4, atol=1e-6)


def test_groups_without_particles_are_empty_and_not_a_fault():
    table = table_of([white(40, 3)], white(41, 3), np.zeros((3, 1, 2)), [2, 2, 2], 4)
    assert table.cross.shape == (4, 1, GRID.n_shells)
    assert not table.cross[[0, 1, 3]].any() and not table.components[[0, 1, 3]].any()
    assert not table.fcc[[0, 1, 3]].any() and np.isfinite(table.fcc).all()


def test_components_are_independent_complex_numbers():
    """Half the components of each ring of the full plane, for every particle."""
    table = table_of([white(50, 7)], white(51, 7), np.zeros((7, 1, 2)))
    shell, _ = full_plane((0, 0))
    rings = np.bincount(shell.ravel())[:GRID.n_shells]
    np.testing.assert_allclose(table.components[0, 0, COMPLETE], 7 * rings[COMPLETE] / 2)
    assert table.cross.dtype == np.float64
