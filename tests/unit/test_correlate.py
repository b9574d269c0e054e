"""Correlation maps against brute-force sums over the full plane in float64."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from refmotion_plugin.engine.maths import fourier, spline
from refmotion_plugin.engine.maths.fourier import FourierGrid, crop_half_spectrum
from refmotion_plugin.engine.motion.correlate import Window, correlation_maps, renew_frames
from refmotion_plugin.engine.motion.model import SignalModel, motion_inside_frames
from refmotion_plugin.engine.motion.whiten import mean_power, noise_power

GRID = FourierGrid(48, 1.5, 36)
BAND = 16.0 * GRID.step_per_angstrom
PARTICLES, FRAMES = 3, 2
MOTION = np.array([[[1.3, -2.1], [0.2, 0.9]], [[-3.0, 0.5], [2.4, -1.6]], [[0.0, 0.0], [-0.7, 4.1]]])


def pictures(seed=0, n=PARTICLES):
    """Blobs off the centre, unlike their mirror images, (n, 48, 48)."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((GRID.size_px,) * 2) - GRID.size_px // 2
    image = np.zeros((n, GRID.size_px, GRID.size_px))
    for _ in range(8):
        place = rng.uniform(-6, 6, (n, 2))
        image += rng.normal(size=(n, 1, 1)) * np.exp(-((y - place[:, :1, None]) ** 2 + (x - place[:, 1:, None]) ** 2) / 3.0)
    return image


def spectra(images):
    """Cropped half spectra with the phase origin at the first pixel, as patches have it."""
    return crop_half_spectrum(torch.fft.rfft2(torch.from_numpy(images)), GRID.kept_px).to(torch.complex64)


def full_frequencies():
    index = np.fft.fftfreq(GRID.size_px, 1.0 / GRID.size_px)
    return np.stack(np.meshgrid(index, index, indexing="ij"), axis=-1) * GRID.step_per_angstrom


def moved(images, shift_yx_angstrom):
    """Images moved by +shift in float64, (n, 48, 48)."""
    k = full_frequencies()
    phase = np.exp(-2j * np.pi * np.einsum("hwa,na->nhw", k, np.asarray(shift_yx_angstrom)))
    turned = np.fft.fft2(images) * phase
    turned[:, GRID.size_px // 2], turned[:, :, GRID.size_px // 2] = 0, 0
    return np.fft.ifft2(turned).real


def shells():
    k = np.arange(GRID.n_shells) * GRID.step_per_angstrom
    amplitude = np.where((k > 0) & (k <= BAND), 1.5 - 2.0 * k, 0.0)
    damage = np.stack([np.exp(-2.0 * k), 0.7 * np.exp(-5.0 * k)])
    return amplitude, damage, 40.0 + 100.0 * k


def model_of(images, blur=None):
    amplitude, damage, noise = (torch.from_numpy(v) for v in shells())
    return SignalModel(GRID, spectra(images), amplitude, damage, noise, blur)


def filters(frame):
    """S D / sigma^2 at each component of the full plane, by its shell."""
    amplitude, damage, noise = shells()
    table = np.append(amplitude * damage[frame] / noise, 0.0)
    shell = np.round(np.linalg.norm(full_frequencies(), axis=-1) / GRID.step_per_angstrom).astype(int)
    return table[np.minimum(shell, GRID.n_shells)]


def brute_force(observed, image, frame, place_yx_angstrom):
    """CC at one displacement: the sum over the full plane, component by component."""
    k = full_frequencies()
    product = np.fft.fft2(observed) * np.conj(filters(frame) * np.fft.fft2(image))
    return float((product * np.exp(2j * np.pi * (k @ np.asarray(place_yx_angstrom)))).real.sum())


def maps_of(observed, images, residual=None, blur=None, radius=6.0):
    residual = torch.zeros(PARTICLES, FRAMES, 2, dtype=torch.float64) if residual is None else residual
    patches = [spectra(frame) for frame in observed]
    return correlation_maps(lambda f: patches[f], model_of(images, blur), Window.covering(radius, BAND), residual)


def value_at(maps, particle, frame, place):
    index = torch.as_tensor(np.asarray(place) / maps.step_angstrom + maps.center, dtype=torch.float64).reshape(1, 1, 2)
    return float(spline.evaluate(maps.coefficients[particle, frame][None].double(), index)[0])


def peak_of(maps, particle, frame, start):
    """Maximum of a map by a few Newton-like searches on a fine grid, A."""
    best, reach = np.asarray(start, dtype=float), maps.step_angstrom
    for _ in range(5):
        offsets = np.linspace(-reach, reach, 9)
        values = [(value_at(maps, particle, frame, best + [a, b]), a, b) for a in offsets for b in offsets]
        _, a, b = max(values)
        best, reach = best + [a, b], reach / 4
    return best


@pytest.fixture(scope="module")
def noise_free():
    images = pictures()
    observed = [moved(images, MOTION[:, f]) for f in range(FRAMES)]
    return images, observed, maps_of(observed, images)


def test_maps_do_not_depend_on_how_many_particles_are_worked_on_together(noise_free, monkeypatch):
    images, observed, _ = noise_free
    images, observed = np.concatenate([images] * 2)[:5], [np.concatenate([frame] * 2)[:5] for frame in observed]
    residual = torch.zeros(5, FRAMES, 2, dtype=torch.float64)
    blur = torch.linspace(0.0, 3.0, 5 * FRAMES * 2, dtype=torch.float64).reshape(5, FRAMES, 2)
    together = maps_of(observed, images, residual, blur).coefficients
    monkeypatch.setattr(fourier, "CACHE_BYTES", 1)
    torch.testing.assert_close(maps_of(observed, images, residual, blur).coefficients, together, rtol=1e-5, atol=1e-5 * float(together.abs().max()))


def test_maps_peak_at_plus_the_displacement_in_y_then_x(noise_free):
    _, _, maps = noise_free
    for p in range(PARTICLES):
        for f in range(FRAMES):
            samples = maps.coefficients[p, f]
            coarse = np.array(np.unravel_index(int(samples.argmax()), samples.shape)) - maps.center
            assert peak_of(maps, p, f, coarse * maps.step_angstrom) == pytest.approx(MOTION[p, f], abs=0.02)


def test_maps_equal_brute_force_sums_over_the_full_plane():
    rng, images = np.random.default_rng(4), pictures()
    observed = [moved(images, MOTION[:, f]) + 0.5 * rng.normal(size=images.shape) for f in range(FRAMES)]
    maps = maps_of(observed, images)
    for p, f in ((0, 0), (2, 1)):
        places = rng.uniform(-5, 5, (40, 2))
        truth = np.array([brute_force(observed[f][p], images[p], f, place) for place in places])
        value = np.array([value_at(maps, p, f, place) for place in places])
        assert np.abs(value - truth).max() < 5e-3 * np.abs(truth).max()
        assert np.sqrt(np.square(value - truth).mean()) < 2e-3 * truth.std()


def test_a_log_likelihood_differs_from_the_map_by_a_constant():
    """The sum over the full plane (not over the half spectrum) is the log-likelihood: -1/2 sum |Y - A|^2 / sigma^2."""
    rng, images = np.random.default_rng(5), pictures()
    observed = moved(images, MOTION[:, 0])[0] + 0.3 * rng.normal(size=(GRID.size_px,) * 2)
    amplitude, damage, noise = shells()
    shell = np.minimum(np.round(np.linalg.norm(full_frequencies(), axis=-1) / GRID.step_per_angstrom).astype(int), GRID.n_shells)
    expected = np.append(amplitude * damage[0], 0.0)[shell] * np.fft.fft2(images[0])
    sigma2 = np.append(noise, np.inf)[shell]
    inside = expected != 0

    def log_likelihood(place):
        model = expected * np.exp(-2j * np.pi * (full_frequencies() @ np.asarray(place)))
        return -0.5 * (np.abs(np.fft.fft2(observed) - model) ** 2 / sigma2)[inside].sum()

    maps = maps_of([np.repeat(observed[None], PARTICLES, 0)] * FRAMES, images)
    a, b = (0.4, -1.0), (2.0, 1.7)
    difference = value_at(maps, 0, 0, a) - value_at(maps, 0, 0, b)
    assert difference == pytest.approx(log_likelihood(a) - log_likelihood(b), rel=5e-3)


def test_the_curvature_is_the_second_derivative_at_the_peak():
    """Data that follow the model: minus the mean of the two axes' second derivatives is the expected curvature."""
    images = pictures()
    amplitude, damage, _ = shells()
    shell = np.minimum(np.round(np.linalg.norm(full_frequencies(), axis=-1) / GRID.step_per_angstrom).astype(int), GRID.n_shells)
    for f in range(FRAMES):
        seen = np.fft.ifft2(np.append(amplitude * damage[f], 0.0)[shell] * np.fft.fft2(images)).real
        h = 0.05
        for p in range(PARTICLES):
            at = lambda y, x: brute_force(seen[p], images[p], f, (y, x))
            second = [(2 * at(0, 0) - at(*step) - at(*(-s for s in step))) / h ** 2 for step in ((h, 0.0), (0.0, h))]
            assert float(model_of(images).curvature()[p, f]) == pytest.approx(np.mean(second), rel=0.03)


def test_blur_is_the_average_over_the_path_inside_the_frame():
    images, path = pictures(), np.array([[3.0, 0.0], [0.0, -2.5], [4.0, 3.0]])
    blur = torch.from_numpy(np.stack([path, np.zeros_like(path)], axis=1))
    factor = model_of(images, blur).blur_factor(0).numpy()
    k = GRID.frequency_yx_per_angstrom(dtype=torch.float64).numpy()
    times = (np.arange(250) + 0.5) / 250 - 0.5
    brute = np.exp(-2j * np.pi * np.einsum("hwa,pa,t->phwt", k, path, times)).mean(-1)
    np.testing.assert_allclose(factor, brute.real, atol=2e-3)
    assert np.abs(brute.imag).max() < 1e-9
    np.testing.assert_allclose(factor, np.sinc(np.einsum("hwa,pa->phw", k, path)), atol=2e-6)
    np.testing.assert_allclose(model_of(images, blur).blur_factor(1).numpy(), np.ones_like(factor), atol=1e-6)
    assert model_of(images).blur_factor(0) is None


@pytest.mark.parametrize("cycles", [0.39, 0.45, 0.99, 1.05, 1.79, 1.85, 2.59, 2.65, 3.9])
def test_blur_is_exact_up_to_four_cycles_whatever_the_number_of_nodes(cycles):
    """Just below and above each length at which more nodes are taken; the other frame is short and must not take part in the choice."""
    length = cycles / (GRID.step_per_angstrom * GRID.kept_px / 2)
    path = length * np.array([[0.6, 0.8], [1.0, 0.0], [-0.28, 0.96]])
    blur = torch.from_numpy(np.stack([1e-3 * path, path], axis=1))
    k = GRID.frequency_yx_per_angstrom(dtype=torch.float64).numpy()
    inside = np.linalg.norm(k, axis=-1) <= GRID.kept_px / 2 * GRID.step_per_angstrom
    factor = model_of(pictures(), blur).blur_factor(1).numpy()
    np.testing.assert_allclose(factor[:, inside], np.sinc(np.einsum("hwa,pa->phw", k, path))[:, inside], atol=3e-6)


def test_a_blur_that_all_particles_share_is_the_same_as_one_for_each():
    images, shared = pictures(), torch.tensor([[2.0, -1.0], [0.5, 3.0]], dtype=torch.float64)
    each = maps_of([images] * 2, images, blur=shared.expand(PARTICLES, -1, -1))
    model, patches = replace(model_of(images), shared_blur_yx_angstrom=shared), [spectra(images)] * 2
    once = correlation_maps(lambda f: patches[f], model, Window.covering(6.0, BAND), torch.zeros(PARTICLES, FRAMES, 2, dtype=torch.float64))
    torch.testing.assert_close(once.coefficients, each.coefficients, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(once.curvature, each.curvature)
    assert not torch.allclose(once.curvature, model_of(images).curvature())


def test_blur_lowers_maps_and_curvature_as_the_average_over_sub_steps_does():
    images, path = pictures(), np.array([[2.0, 1.0], [0.0, -2.0], [1.5, -1.5]])
    blur = torch.from_numpy(np.stack([path, np.zeros_like(path)], axis=1))
    times = (np.arange(33) + 0.5) / 33 - 0.5
    template = np.mean([moved(images, t * path) for t in times], axis=0)
    blurred, plain = maps_of([images] * 2, images, blur=blur), maps_of([images] * 2, images)
    for p in range(PARTICLES):
        for place in ((0.0, 0.0), (1.2, -0.8)):
            assert value_at(blurred, p, 0, place) == pytest.approx(brute_force(images[p], template[p], 0, place), rel=0.01, abs=1.0)
            assert value_at(blurred, p, 1, place) == pytest.approx(value_at(plain, p, 1, place), rel=1e-5)
    assert bool((blurred.curvature[:, 0] < plain.curvature[:, 0]).all())
    torch.testing.assert_close(blurred.curvature[:, 1], plain.curvature[:, 1])


def test_renewed_frames_are_those_of_new_maps_and_the_others_stay():
    images = pictures()
    observed = [moved(images, MOTION[:, f]) for f in range(FRAMES)]
    patches = [spectra(frame) for frame in observed]
    old = maps_of(observed, images)
    kept = old.coefficients.clone()
    blur = torch.full((PARTICLES, FRAMES, 2), 1.5, dtype=torch.float64)
    new = renew_frames(old, lambda f: patches[f], model_of(images, blur), Window.covering(6.0, BAND), [1])
    fresh = maps_of(observed, images, blur=blur)
    assert torch.equal(new.coefficients[:, 0], kept[:, 0]) and not torch.equal(new.coefficients[:, 1], kept[:, 1])
    torch.testing.assert_close(new.coefficients[:, 1], fresh.coefficients[:, 1])
    torch.testing.assert_close(new.curvature, fresh.curvature)


def test_nothing_outside_the_band_enters():
    """Power beyond the band and the mean of the patch leave the maps as they are."""
    images = pictures()
    observed = [moved(images, MOTION[:, f]) for f in range(FRAMES)]
    y, x = np.indices((GRID.size_px,) * 2)
    dirt = 50.0 + 30.0 * np.cos(2 * np.pi * 17 * y / GRID.size_px) * np.cos(2 * np.pi * 12 * x / GRID.size_px)
    clean, dirty = maps_of(observed, images), maps_of([frame + dirt for frame in observed], images)
    torch.testing.assert_close(clean.coefficients, dirty.coefficients, atol=1e-3 * float(clean.coefficients.abs().max()), rtol=0)


@pytest.mark.parametrize("radius", [3.0, 10.0])
def test_windows_cover_the_radius_finely_enough(radius):
    window = Window.covering(radius, BAND)
    reach = (window.width // 2) * window.step_angstrom
    assert window.width % 2 == 1 and reach >= radius + window.step_angstrom and window.step_angstrom < 0.5 / BAND


def test_motion_inside_frames_of_known_paths():
    dose = np.arange(6.0)
    path = np.stack([2.0 * dose, 10.0 - 3.0 * dose + 0.5 * dose ** 2], axis=-1)[None]
    inside = motion_inside_frames(torch.from_numpy(path))[0].numpy()
    np.testing.assert_allclose(inside[:, 0], 2.0)
    np.testing.assert_allclose(inside[:-1, 1], -3.0 + dose[:-1])       # the derivative; the first frame is extrapolated to it
    assert inside[-1, 1] == pytest.approx(path[0, -1, 1] - path[0, -2, 1])
    assert not motion_inside_frames(torch.ones(3, 1, 2)).any()
    np.testing.assert_allclose(motion_inside_frames(torch.from_numpy(path[:, :2]))[0].numpy(), np.repeat(np.diff(path[0, :2], axis=0), 2, 0))


def test_noise_power_is_the_mean_square_per_component():
    rng = np.random.default_rng(8)
    white = rng.normal(scale=2.0, size=(200, GRID.size_px, GRID.size_px))
    power = mean_power(spectra(white), GRID)
    np.testing.assert_allclose(power[1:].numpy(), 4.0 * GRID.size_px ** 2, rtol=0.05)


def test_the_modelled_signal_is_taken_out_of_the_noise_but_never_all_of_it():
    total = torch.tensor([900.0, 10.0, 8.0, 6.0], dtype=torch.float64)
    assert noise_power(total).tolist() == [10.0, 10.0, 8.0, 6.0]
    signal = torch.tensor([0.0, 4.0, 7.9, 100.0], dtype=torch.float64)
    assert noise_power(total, signal).tolist() == pytest.approx([6.0, 6.0, 0.3 * 8.0, 0.3 * 6.0])
    assert total[0] == 900.0
