"""Where the ice goes: random smooth fields times profiles of dose, and jitter."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .spec import SimulationSpec, random_stream

SUBSTEPS = 4  # points of the path inside a frame
_FEATURES = 512


@dataclasses.dataclass(frozen=True)
class RandomField:
    """Gaussian random vector field of the plane, unit variance per axis, from random cosines.

    Being a function of position, it gives a particle the same motion whoever
    else is in the movie.
    """

    wave_yx_per_angstrom: np.ndarray  # (feature, 2)
    phase: np.ndarray  # (feature, 2), one per axis of the vector

    @classmethod
    def draw(cls, rng: np.random.Generator, length_angstrom: float, smoothness: float) -> "RandomField":
        """Matern field; smoothness 3/2, or 1/2 for the exponential kernel exp(-r/length).

        In the plane its spectral density is a t distribution of 2 x smoothness degrees of freedom.
        """
        gaussian = rng.normal(size=(_FEATURES, 2))
        chi2 = rng.chisquare(2 * smoothness, size=(_FEATURES, 1))
        wave = gaussian * np.sqrt(2 * smoothness / chi2) / length_angstrom
        return cls(wave, rng.uniform(0, 2 * np.pi, size=(_FEATURES, 2)))

    def __call__(self, position_yx_angstrom: np.ndarray) -> np.ndarray:
        """Vectors (n, 2) at positions (n, 2)."""
        argument = position_yx_angstrom @ self.wave_yx_per_angstrom.T  # (n, feature)
        return np.sqrt(2 / _FEATURES) * np.cos(argument[:, :, None] + self.phase).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class Motion:
    """Sum of fields (position -> vector, A) times profiles (dose -> factor, 0 at dose 0)."""

    terms: tuple[tuple[Callable, Callable], ...]

    def displacement(self, position_yx_angstrom: np.ndarray, dose_e_per_A2: np.ndarray) -> np.ndarray:
        """Displacement (n, m, 2) in A of n positions at m doses since the beam came on."""
        total = np.zeros((len(position_yx_angstrom), len(dose_e_per_A2), 2))
        for field, profile in self.terms:
            total += field(position_yx_angstrom)[:, None, :] * profile(dose_e_per_A2)[None, :, None]
        return total


def draw_motion(spec: SimulationSpec, movie: int) -> Motion:
    """The motion of one movie; its random numbers depend on seed and movie only."""
    kind = spec.motion
    rng = random_stream(spec, "motion", movie)
    length = spec.spatial_correlation_angstrom
    if kind == "none":
        return Motion(())
    terms = [_stage_drift(spec, rng, 3.0 if kind == "drift" else 1.0)]
    if kind in ("burst", "gentle", "exponential"):
        smoothness, scale = (0.5 if kind == "exponential" else 1.5), (0.25 if kind == "gentle" else 1.0)
        for rms, decay in zip(spec.burst_angstrom, spec.burst_decay_e_per_A2):
            terms.append((_scaled(RandomField.draw(rng, length, smoothness), scale * rms / np.sqrt(2)), _burst(decay)))
        terms += _slow(spec, rng, scale * spec.slow_angstrom, length, smoothness)
    elif kind == "steps":
        total = spec.frames * spec.dose_per_frame
        for dose in rng.uniform(0.1, 0.9, size=3) * total:
            terms.append((_scaled(RandomField.draw(rng, length, 1.5), 5.0), _step(dose)))
    elif kind == "doming":
        terms += _doming(spec, rng)
    return Motion(tuple(terms))


def draw_jitter(spec: SimulationSpec, movie: int, suffix: str) -> np.ndarray:
    """Independent jitter (particle, frame, 2) in A, constant during a frame."""
    shape = (spec.particles, spec.frames, 2)
    if spec.motion == "none":
        return np.zeros(shape)
    return spec.jitter_angstrom * random_stream(spec, "jitter", movie, suffix).normal(size=shape)


def substep_doses(spec: SimulationSpec) -> np.ndarray:
    """Doses (frames x SUBSTEPS) since the beam came on, midpoints of equal parts of each frame."""
    return spec.dose_per_frame * (np.arange(spec.frames * SUBSTEPS) + 0.5) / SUBSTEPS


def image_centre_angstrom(spec: SimulationSpec) -> np.ndarray:
    """Centre of the image (y, x) in A."""
    return spec.pixel_angstrom * np.asarray(spec.size_yx) / 2


def grid_positions(spec: SimulationSpec, count: int = 9) -> np.ndarray:
    """An even grid of positions (count^2, 2) in A over the image."""
    y, x = (spec.pixel_angstrom * n * (np.arange(count) + 0.5) / count for n in spec.size_yx)
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def _scaled(field, factor):
    return lambda position: factor * field(position)


def _burst(decay):
    return lambda dose: -np.expm1(-dose / decay)


def _step(at):
    return lambda dose: 1 / (1 + np.exp(-(dose - at) / 0.15)) - 1 / (1 + np.exp(at / 0.15))


def _stage_drift(spec, rng, factor):
    direction = rng.normal(size=2)
    velocity = factor * spec.stage_drift_angstrom_per_e_per_A2 * direction / np.linalg.norm(direction)
    return (lambda position: np.broadcast_to(velocity, position.shape)), (lambda dose: dose)


def _slow(spec, rng, rms, length, smoothness):
    total = spec.frames * spec.dose_per_frame
    for order in range(1, 6):
        field = _scaled(RandomField.draw(rng, length, smoothness), rms / np.sqrt(2) / order)
        yield field, (lambda dose, order=order: np.sin(0.5 * np.pi * order * dose / total))


def _doming(spec, rng):
    """The ice sheet bends like a drum: radial motion about a centre, fast at first."""
    centre = image_centre_angstrom(spec) * rng.uniform(0.6, 1.4, size=2)
    radius = np.linalg.norm(image_centre_angstrom(spec))
    for amplitude, decay in zip((6.0, 4.0), (3.0, 12.0)):
        yield (lambda position, a=amplitude: a * (position - centre) / radius), _burst(decay)
