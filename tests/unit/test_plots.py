"""Figures are drawn from any result that can occur: one particle, one frame, nothing seen."""
import numpy as np
import pytest

from refmotion_plugin import plots
from refmotion_plugin.contract.records import DoseWeights, FccTable, Trajectories
from refmotion_plugin.contract.results import MotionStatistics


def drawn(figure):
    """Render it, so that lazy parts are exercised; returns the axes."""
    figure.canvas.draw()
    return figure.axes


def fcc(frames=5, shells=20, value=0.1):
    shape = (2, frames, shells)
    return FccTable(np.linspace(0, 0.4, shells), np.arange(frames) + 0.5, np.full(shape, value), np.ones(shape), np.ones(shape), np.ones(shape))


def trajectories(particles=6, frames=5, name="M/mic $1_{2}$.mrc"):
    rng = np.random.default_rng(1)
    track = rng.normal(size=(particles, frames, 2)).cumsum(axis=1).astype(np.float32)
    return Trajectories(name, np.zeros(particles, np.int32), np.arange(particles), rng.uniform(0, 4000, (particles, 2)), track,
                        track[..., 0] * 0, track * 0, np.arange(frames) + 0.5, "converged")


@pytest.mark.parametrize("frames, value", [(5, 0.1), (1, 0.1), (3, 0.0)])
def test_fcc(frames, value):
    image, curves = drawn(plots.fcc_figure(fcc(frames, value=value), group=1))[:2]
    assert image.images[0].get_array().shape == (frames, 20) and len(curves.lines) == frames + 1


def test_weights_end_where_asked():
    shape, group = (1, 4, 50), np.ones((1, 4))
    weights = DoseWeights(np.ones(shape), np.linspace(0, 1, 50), np.arange(4.0), 10 * group, group, group, 0 * group, "sum", "fit")
    image = drawn(plots.weights_figure(weights, highest_per_angstrom=0.3))[0]
    assert image.get_xlim()[1] <= 0.3 and np.allclose(image.images[0].get_array(), 0.25)


def test_trajectories_start_at_the_particles_and_go_along_the_displacement():
    one = trajectories(1)
    axes = drawn(plots.trajectories_figure(one, exaggeration=10))[0]
    segments = axes.collections[0].get_segments()
    expected = one.position_yx_angstrom[0] + 10 * (one.displacement_yx_angstrom[0] - one.displacement_yx_angstrom[0, 0])
    assert np.allclose(segments[-1][1], expected[-1, ::-1] / 10) and np.allclose(segments[0][0], one.position_yx_angstrom[0, ::-1] / 10)


@pytest.mark.parametrize("particles, frames", [(6, 5), (1, 2), (2, 1)])
def test_trajectories_of_any_number(particles, frames):
    assert drawn(plots.trajectories_figure(trajectories(particles, frames)))


def test_motion():
    rng = np.random.default_rng(0)
    statistics = MotionStatistics(np.arange(5.0), rng.random(4), rng.random(30), rng.random(30), rng.random(30), 30)
    assert "30 particles" in plots.motion_figure(statistics).get_suptitle() and drawn(plots.motion_figure(statistics))


@pytest.mark.parametrize("before", [False, True])
def test_particles_before_and_after(before):
    after = np.random.default_rng(0).normal(size=(3, 32, 32))
    old = after[:, ::2, ::2] if before else None
    rows = drawn(plots.before_after_figure(old, after, 2.0, 1.0))
    assert [axes.get_ylabel() for axes in rows] == (["before", "after"] if before else ["after"])
    strip = rows[-1].images[0].get_array()
    assert strip.shape == (32, 3 * 32 + 2) and np.ptp(strip[:, :32]) == 1.0 and (strip[:, 32] == 1.0).all()
    assert len(drawn(plots.power_figure(old, after, 2.0, 1.0))[0].lines) == (2 if before else 1)


def test_white_noise_has_a_flat_spectrum():
    k, power = plots._radial_power(np.random.default_rng(0).normal(size=(20, 64, 64)), 1.5)
    assert np.allclose(power[2:] / 64 ** 2, 1.0, atol=0.15) and np.isclose(k[1], 1 / (64 * 1.5))
