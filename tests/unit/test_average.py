"""Averages of one movie: signs of the motion, weights, noise, cropping, even and odd."""
import numpy as np
import pytest
import torch

from refmotion_plugin.contract.conventions import local_shift_yx_px
from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.engine.maths.frames import Tiling, crop_frame_spectrum, frame_from_spectrum
from refmotion_plugin.engine.stages.average import frame_weights, output_size

from tests.unit.average_movies import DOSE, PIXEL, averaged


def delta(shape_yx, *places):
    """Frames with one bright pixel each."""
    frames = np.zeros((len(places),) + shape_yx)
    for frame, (y, x) in zip(frames, places):
        frame[y, x] = 1.0
    return frames


def shifted(frame, shift_yx):
    """``frame`` moved by +shift, written with numpy's complex FFT."""
    ky, kx = np.fft.fftfreq(frame.shape[0])[:, None], np.fft.fftfreq(frame.shape[1])
    return np.fft.ifft2(np.fft.fft2(frame) * np.exp(-2j * np.pi * (ky * shift_yx[0] + kx * shift_yx[1]))).real


def smooth(shape_yx, seed=0, width=0.25):
    """Noise without frequencies near Nyquist, so that shifts are exact whatever Nyquist is taken for."""
    white = np.random.default_rng(seed).normal(size=shape_yx)
    k = np.hypot(np.fft.fftfreq(shape_yx[0])[:, None], np.fft.fftfreq(shape_yx[1]))
    return np.fft.ifft2(np.fft.fft2(white) * np.exp(-(k / width) ** 4)).real


def weights_of(table, frequency=(0.0, 1.0)):
    """DoseWeights of one group from a (frame, shell) table."""
    table, zero = np.asarray(table, dtype=float), np.zeros((1, len(table)))
    return DoseWeights(table[None], np.asarray(frequency), DOSE * (np.arange(len(table)) + 0.5), zero, zero, zero, zero, "sum", "test")


def test_a_feature_moves_by_plus_the_shift_of_the_file(tmp_path):
    """It is seen at q - shift in the frame; x and y are not mixed up."""
    image = averaged(tmp_path, delta((24, 32), (10, 12), (7, 14)), shift_xy_px=[[0, 0], [-2, 3]]).images["unweighted"]
    assert np.unravel_index(image.argmax(), image.shape) == (10, 12)
    assert image[10, 12] == pytest.approx(2.0, abs=1e-5) and np.abs(np.delete(image.ravel(), 10 * 32 + 12)).max() < 2e-3   # the mean comes in


def test_parts_of_a_pixel_are_exact(tmp_path):
    scene = smooth((48, 60)) * np.outer(np.hanning(48), np.hanning(60)) ** 2
    frames = [scene, shifted(scene, (0.3, -0.6)), shifted(scene, (-3.4, 5.8))]
    image = averaged(tmp_path, frames, shift_xy_px=[[0, 0], [0.6, -0.3], [-5.8, 3.4]]).images["unweighted"]
    assert np.abs(image - 3 * scene).max() < 1e-2 * np.abs(scene).max()
    turned = averaged(tmp_path, frames[:2], shift_xy_px=[[0, 0], [-0.6, 0.3]]).images["unweighted"]
    assert np.abs(turned - 2 * scene).max() > 0.5 * np.abs(scene).max()


def test_what_comes_in_from_outside_is_the_mean(tmp_path):
    """Nothing is wrapped round: the bright last rows do not appear in the first."""
    frames = np.ones((2, 16, 20))
    frames[:, -4:] = 9.0
    image = averaged(tmp_path, frames, shift_xy_px=[[0, 0], [0, 4]]).images["unweighted"]
    assert np.allclose(image[:4], 1.0 + frames[1].mean(), atol=1e-4)


LOCAL = np.zeros(36)
LOCAL[0], LOCAL[3], LOCAL[18], LOCAL[27] = 0.3, 3.0, -0.2, -2.0     # x: 0.3 z + 3 z x; y: -0.2 z - 2 z y


def local_frames(shape_yx, n=2):
    """Frames in which a smooth scene is seen moved by a local motion, computed analytically, and the scene."""
    rng = np.random.default_rng(3)
    waves = [(rng.uniform(0.02, 0.3, 2) * rng.choice([-1, 1], 2), rng.uniform(0, 2 * np.pi)) for _ in range(12)]
    y, x = np.meshgrid(*map(np.arange, shape_yx), indexing="ij")
    frames = []
    for f in range(n):
        place = np.stack([y, x], axis=-1).astype(float)
        for _ in range(20):          # the scene's point q that is seen at (y, x): q - shift(q) = (y, x)
            shift = local_shift_yx_px(LOCAL, f, place[..., 1] / shape_yx[1] - 0.5, place[..., 0] / shape_yx[0] - 0.5)
            place = np.stack([y, x], axis=-1) + shift
        frames.append(sum(np.cos(2 * np.pi * (place @ k) + phase) for k, phase in waves))
    return np.array(frames)


def test_local_motion_has_its_sign_and_keeps_high_frequencies(tmp_path):
    frames = local_frames((128, 160))
    image = averaged(tmp_path, frames, coefficients=LOCAL).images["unweighted"]
    scene, inside = 2 * frames[0], (slice(8, -8), slice(8, -8))
    error = np.std((image - scene)[inside]) / np.std(scene[inside])
    unmoved = np.std((frames.sum(0) - scene)[inside]) / np.std(scene[inside])
    turned = averaged(tmp_path, frames, coefficients=-LOCAL).images["unweighted"]
    assert error < 0.03 and unmoved > 0.3
    assert np.std((turned - scene)[inside]) / np.std(scene[inside]) > 0.5


def test_local_motion_can_be_left_out(tmp_path):
    frames = local_frames((64, 64))
    image = averaged(tmp_path, frames, {"output": {"local_motion": False}}, coefficients=LOCAL).images["unweighted"]
    assert np.allclose(image, frames.sum(0), atol=1e-4)


def test_tiles_with_the_same_shift_are_the_shifted_frame(tmp_path):
    """Fast = slow: a local model that is rigid after all, away from the edges."""
    scene = smooth((96, 120), seed=1, width=0.4)
    model = np.zeros(36)
    model[0], model[18], model[3] = 1.3, -2.4, 0.011       # the last so small that tiles are used but hardly differ
    rigid, tiled = (averaged(tmp_path, [scene, scene], **how).images["unweighted"]
                    for how in ({"shift_xy_px": [[0, 0], [1.3, -2.4]]}, {"coefficients": model}))
    assert np.std((rigid - tiled)[16:-16, 16:-16]) < 0.06 * np.std(rigid)


@pytest.mark.parametrize("shape_yx, hop, overlap", [((50, 70), 32, 32), ((64, 96), 32, 16), ((33, 31), 64, 32)])
def test_windows_add_up_to_one(shape_yx, hop, overlap):
    tiling = Tiling(shape_yx, hop, overlap)
    rows = (tiling.window().expand(tiling.count_yx[1], -1, -1) for _ in range(tiling.count_yx[0]))
    assert torch.allclose(tiling.joined(rows), torch.ones(shape_yx), atol=1e-6)


def test_a_frame_of_weight_zero_vanishes(tmp_path):
    frames = np.random.default_rng(2).normal(size=(3, 32, 36))
    image = averaged(tmp_path, frames, weights=weights_of([[1, 1], [0, 0], [2, 2]])).images["weighted"]
    assert np.allclose(image, (frames[0] + 2 * frames[2]) / np.sqrt(5), atol=1e-4)


def test_weights_are_applied_at_their_frequency(tmp_path):
    """The second frame counts only beyond 1/6 A."""
    frames = np.random.default_rng(2).normal(size=(2, 64, 64))
    edge = 1 / 6
    image = averaged(tmp_path, frames, weights=weights_of([[1, 1, 0, 0], [0, 0, 1, 1]], [0, edge - 1e-9, edge + 1e-9, 1])).images["weighted"]
    k = np.hypot(np.fft.fftfreq(64, PIXEL)[:, None], np.fft.rfftfreq(64, PIXEL))
    got, (first, second) = np.fft.rfft2(image), np.fft.rfft2(frames)
    assert np.allclose(got[k < edge - 0.002], first[k < edge - 0.002], atol=1e-3)
    assert np.allclose(got[k > edge + 0.002], second[k > edge + 0.002], atol=1e-3)


@pytest.mark.parametrize("weights", [None, weights_of(np.exp(-np.outer(np.arange(8), [0.0, 0.4])))])
def test_white_noise_keeps_its_sigma(tmp_path, weights):
    frames = np.random.default_rng(4).normal(5, 2.0, size=(8, 128, 128))
    images = averaged(tmp_path, frames, weights=weights).images
    assert images["weighted"].std() == pytest.approx(2.0, rel=0.02)
    spectrum = np.abs(np.fft.rfft2(images["weighted"] - images["weighted"].mean())) ** 2
    k = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128))
    assert spectrum[k < 0.2].mean() == pytest.approx(spectrum[k > 0.4].mean(), rel=0.05)
    assert images["unweighted"].mean() == pytest.approx(8 * 5, rel=0.01) and images["weighted"].mean() == pytest.approx(np.sqrt(8) * 5, rel=0.01)


def test_the_standard_curve_prefers_early_frames_at_high_resolution():
    dose = DOSE * (np.arange(40) + 0.5)
    table = frame_weights(dose, np.array([0.001, 0.3]), 300.0)
    assert np.allclose((table ** 2).sum(0), 1) and np.allclose(table[:, 0], 1 / np.sqrt(40), rtol=0.02)
    assert table[0, 1] > 5 * table[-1, 1]
    lower = frame_weights(dose, np.array([0.3]), 200.0)
    assert lower[0] / lower[-1] > table[0, 1] / table[-1, 1]           # damage is faster at 200 kV


@pytest.mark.parametrize("shape_yx, binning", [((40, 60), 2.0), ((44, 63), 1.5), ((41, 60), 3.0)])
def test_binning_is_a_fourier_crop(tmp_path, shape_yx, binning):
    frames = np.random.default_rng(6).normal(size=(2,) + shape_yx)
    found = averaged(tmp_path, frames, {"output": {"binning": binning}})
    image = found.images["unweighted"]
    h, w = image.shape
    assert h % 2 == w % 2 == 0 and found.binning == pytest.approx(shape_yx[1] / w) and found.pixel_angstrom == pytest.approx(PIXEL * shape_yx[1] / w)
    full, cropped = np.fft.fft2(frames.sum(0)), np.fft.fft2(image)
    for iy in range(-h // 2 + 1, h // 2):
        for ix in (0, 1, w // 2 - 1, -3):
            assert cropped[iy, ix] / (h * w) == pytest.approx(full[iy, ix] / np.prod(shape_yx), abs=1e-5)


def test_binning_one_keeps_odd_sizes():
    assert output_size((41, 63), 1.0) == ((41, 63), 1.0)
    dft = torch.fft.rfft2(torch.rand(41, 63))
    assert frame_from_spectrum(crop_frame_spectrum(dft, (41, 63), (41, 63)), (41, 63), (41, 63)).shape == (41, 63)


@pytest.mark.parametrize("half, whole", [("unweighted", "unweighted"), ("weighted", "weighted")])
def test_even_and_odd_add_up(tmp_path, half, whole):
    frames = np.random.default_rng(7).normal(size=(5, 24, 30))
    images = averaged(tmp_path, frames, {"output": {"even_odd": half}}, shift_xy_px=np.arange(10).reshape(5, 2) / 3).images
    assert np.allclose(images["even"] + images["odd"], images[whole], atol=1e-4)
    only = averaged(tmp_path, frames * np.array([1, 1e-6, 1, 1e-6, 1])[:, None, None], {"output": {"even_odd": half}},
                    shift_xy_px=np.arange(10).reshape(5, 2) / 3).images
    assert np.abs(only["even"]).max() < 1e-5 and np.allclose(only["odd"], images["odd"], atol=1e-4)     # counted from 1


def test_a_frame_range_keeps_the_places_and_the_dose(tmp_path):
    scene = smooth((40, 40))
    frames = [shifted(scene, (0, 2 * f)) for f in range(4)]
    shift = [[-2 * f, 0] for f in range(4)]
    spec = {"inputs": {"first_frame": 3, "last_frame": 4}}
    image = averaged(tmp_path, frames, spec, shift_xy_px=shift).images["unweighted"]
    assert np.abs(image - 2 * scene)[:, :30].max() < 0.02 * np.abs(scene).max()
    only_last = averaged(tmp_path, frames, spec, weights_of([[1, 1], [1, 1], [0, 0], [1, 1]]), shift_xy_px=shift).images["weighted"]
    assert np.abs(only_last - scene)[:, :30].max() < 0.02 * np.abs(scene).max()


def test_hot_pixels_are_repaired(tmp_path):
    frames = np.random.default_rng(8).poisson(3.0, size=(12, 64, 64)).astype(float)
    frames[:, 20, 31] += 200
    assert averaged(tmp_path, frames).images["unweighted"].max() > 2000
    assert averaged(tmp_path, frames, {"inputs": {"hot_pixel_sigma": 8}}).images["unweighted"].max() < 100


@pytest.mark.parametrize("frames, spec, how, part", [
    (np.zeros((2, 16, 16)), {}, {}, "average of .* is empty"),
    (np.full((2, 16, 16), 1e5) + np.eye(16), {"output": {"float16": True}}, {}, "16-bit floating point cannot hold"),
    (np.random.default_rng(0).normal(size=(2, 16, 16)), {}, {"shift_xy_px": [[0, 0], [0, 9.0]]}, "half the frame or more"),
    (np.ones((2, 16, 16)), {"inputs": {"last_frame": 3}}, {}, "frames 1 to 3"),
    (np.random.default_rng(0).normal(size=(2, 16, 16)), {"inputs": {"last_frame": 1}, "output": {"even_odd": "weighted"}}, {}, "no even and odd halves"),
])
def test_what_cannot_be_averaged_is_said_so(tmp_path, frames, spec, how, part):
    with pytest.raises(MovieError, match=part):
        averaged(tmp_path, frames, spec, **how)
