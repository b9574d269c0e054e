"""The scores: zero for the truth, known values for known faults."""
import mrcfile
import numpy as np
import pytest

from refmotion_plugin.engine.simulate import (SimulationSpec, particle_ring_correlation, simulate, trajectory_error,
                                              true_projections, weight_agreement)
from refmotion_plugin.engine.simulate.damage import frame_amplitude


def test_trajectory_error_ignores_one_constant_per_particle():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4, 10, 2))
    moved = true + rng.normal(size=(4, 1, 2))
    assert trajectory_error(moved, true).all_frames == pytest.approx(0, abs=1e-12)


def test_trajectory_error_is_a_two_dimensional_rms():
    true = np.zeros((3, 10, 2))
    estimated = true + np.where(np.arange(10) % 2, 1.0, -1.0)[None, :, None]
    error = trajectory_error(estimated, true)
    assert error.all_frames == pytest.approx(np.sqrt(2)) and error.per_frame == pytest.approx([np.sqrt(2)] * 10)
    weighted = trajectory_error(estimated, true, np.arange(10) % 2)
    assert weighted.per_frame[:2] == pytest.approx([2 * np.sqrt(2), 0])


def test_weights_equal_to_the_damage_keep_all_signal():
    k = np.linspace(0, 0.3, 40)
    amplitude = frame_amplitude(k, 30, 1.2, 0.0, 300)
    correlation, kept = weight_agreement(3 * amplitude, amplitude, k)
    assert correlation == pytest.approx(1) and kept == pytest.approx(1)
    even = 1 + 1e-3 * np.random.default_rng(0).normal(size=amplitude.shape)
    correlation, kept = weight_agreement(even, amplitude, k)
    assert abs(correlation) < 0.2
    assert 0.7 < kept < 0.95


def test_particle_images_agree_with_true_projections(tmp_path):
    spec = SimulationSpec(movies=1, particles=6, frames=6, size_yx=(280, 280), box=72, pixel_angstrom=2.0,
                          dose_per_frame=5.0, motion="none", origin_error_angstrom=0.0, contrast_scale=3.0, seed=5)
    paths = simulate(tmp_path, spec)
    images = mrcfile.read(tmp_path / "Particles" / "movie_001.mrcs")
    projections = true_projections(paths.truth, "movie_001", spec.box, spec.pixel_angstrom)
    rings = particle_ring_correlation(images, projections)
    assert rings[3:8].mean() > 0.6  # positive: protein is bright in both
    shifted = true_projections(paths.truth, "movie_001", spec.box, spec.pixel_angstrom,
                               origin_yx_angstrom=-np.load(paths.truth / "movie_001.npz")["origin_yx_angstrom"])
    assert particle_ring_correlation(images, shifted)[5:15].mean() < rings[5:15].mean() - 0.1
    assert particle_ring_correlation(projections, projections) == pytest.approx(1, abs=1e-3)
