"""Particles of a movie: true places and poses, and what a refinement would say of them."""
from __future__ import annotations

import dataclasses

import numpy as np

from .ctf import Optics
from .damage import frame_amplitude
from .motion import SUBSTEPS, Motion, draw_jitter, draw_motion, grid_positions, substep_doses
from .projection import euler_zyz, rotation_zyz
from .spec import SimulationSpec, random_stream

_CENTRING_PER_ANGSTROM = 1 / 8.0  # a refinement centres particles on about this band
_PICKING_ERROR_PX = 1.5
_EDGE_PX = 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Particles of one species in one movie; (y, x) order, px of the movie, angles in degrees."""

    position_yx_px: np.ndarray  # (n, 2) true, at dose 0
    path_yx_angstrom: np.ndarray  # (n, frames, SUBSTEPS, 2) true displacement since dose 0
    rotation_zyz_degree: np.ndarray  # (n, 3) true
    defocus_uva: np.ndarray  # (n, 3)
    half: np.ndarray  # (n,) 1 or 2
    coordinate_yx_px: np.ndarray  # (n, 2) as written
    origin_yx_angstrom: np.ndarray  # (n, 2) as written
    refined_zyz_degree: np.ndarray  # (n, 3) as written

    def displacement_yx_angstrom(self, pixel_angstrom: float) -> np.ndarray:
        """Where each particle is seen minus (coordinate - origin): (n, frames, SUBSTEPS, 2) in A."""
        written = self.coordinate_yx_px * pixel_angstrom - self.origin_yx_angstrom
        offset = self.position_yx_px * pixel_angstrom - written
        return self.path_yx_angstrom + offset[:, None, None, :]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything random about one movie but its counts."""

    index: int
    group: int  # optics group, 0-based
    catalogues: tuple[Catalogue, ...]
    rigid_yx_angstrom: np.ndarray  # (frames, 2) true mean motion
    shift_yx_px: np.ndarray  # (frames, 2) as written: to be applied to the frames


def optics_of_group(spec: SimulationSpec, group: int) -> Optics:
    """Optics of group ``group`` (0-based); the beam tilt turns round from group to group."""
    sign = 1 if group % 2 == 0 else -1
    tilt_y, tilt_x = (sign * t for t in spec.beam_tilt_mrad_yx)
    return Optics(voltage=spec.voltage, cs_mm=spec.cs_mm, amplitude_contrast=spec.amplitude_contrast,
                  phase_shift_degree=spec.phase_shift_degree, beam_tilt_mrad_yx=(tilt_y, tilt_x))


def draw_scene(spec: SimulationSpec, index: int, radii_angstrom: tuple[float, ...]) -> Scene:
    """Draw motion, particles and their metadata for movie ``index`` (0-based)."""
    motion = draw_motion(spec, index)
    rigid = _by_frame(motion, grid_positions(spec), spec).mean(axis=(0, 2))
    shift = _rigid_shift(spec, index, rigid)
    catalogues, taken = [], np.empty((0, 2))
    for suffix, radius in zip(spec.species_suffixes, radii_angstrom):
        position = _place(spec, random_stream(spec, "place", index, suffix), taken, 2 * radius)
        taken = np.vstack([taken, position])
        catalogues.append(_catalogue(spec, index, suffix, position, motion, shift))
    return Scene(index=index, group=index % spec.optics_groups, catalogues=tuple(catalogues),
                 rigid_yx_angstrom=rigid, shift_yx_px=shift)


def _by_frame(motion: Motion, position_yx_angstrom, spec) -> np.ndarray:
    path = motion.displacement(position_yx_angstrom, substep_doses(spec))
    return path.reshape(len(path), spec.frames, SUBSTEPS, 2)


def _rigid_shift(spec, index, rigid) -> np.ndarray:
    """Minus the rigid motion since frame 1 in px, with the error of a motion correction program."""
    shift = -(rigid - rigid[0]) / spec.pixel_angstrom
    error = spec.rigid_shift_error_px * random_stream(spec, "rigid error", index).normal(size=shift.shape)
    error[0] = 0.0
    return shift + error


def _place(spec, rng, taken, distance_angstrom) -> np.ndarray:
    """Random positions (n, 2) in px that keep apart; closer than touching only if the movie is crowded."""
    lowest = np.full(2, spec.box // 2 + 1.0)
    margin = np.minimum(_EDGE_PX, (np.asarray(spec.size_yx) - spec.box) / 8)
    lowest, highest = lowest + margin, np.asarray(spec.size_yx) - lowest - margin
    distance = distance_angstrom / spec.pixel_angstrom
    placed, tries = np.empty((0, 2)), 0
    while len(placed) < spec.particles:
        candidate = rng.uniform(lowest, highest)
        others = np.vstack([taken, placed])
        if np.all(np.linalg.norm(others - candidate, axis=1) > distance):
            placed, tries = np.vstack([placed, candidate]), 0
        else:
            tries += 1
            if tries == 500:
                distance, tries = 0.95 * distance, 0
    return placed


def _catalogue(spec, index, suffix, position, motion, shift) -> Catalogue:
    rng = random_stream(spec, "catalogue", index, suffix)
    path = _by_frame(motion, position * spec.pixel_angstrom, spec) + draw_jitter(spec, index, suffix)[:, :, None, :]
    count = len(position)
    rotation = np.stack([rng.uniform(-180, 180, count), np.rad2deg(np.arccos(rng.uniform(-1, 1, count))),
                         rng.uniform(-180, 180, count)], axis=1)
    refined_px = _apparent(spec, position, path, shift)
    refined_px = refined_px + rng.normal(size=(count, 2)) * spec.origin_error_angstrom / spec.pixel_angstrom
    coordinate, cut = _pick(spec, rng, refined_px)
    return Catalogue(
        position_yx_px=position, path_yx_angstrom=path, rotation_zyz_degree=rotation,
        defocus_uva=_defocus(spec, index, rng, count), half=1 + (np.arange(count) + index) % 2,
        coordinate_yx_px=coordinate, origin_yx_angstrom=(cut - refined_px) * spec.pixel_angstrom,
        refined_zyz_degree=_disturbed(rotation, spec.pose_error_degree, rng))


def _apparent(spec, position, path, shift) -> np.ndarray:
    """Where a refinement finds the particle in the average of rigidly aligned frames (n, 2), px."""
    weight = frame_amplitude(np.array(_CENTRING_PER_ANGSTROM), spec.frames, spec.dose_per_frame,
                             spec.pre_exposure, spec.voltage) ** 2
    aligned = path.mean(axis=2) / spec.pixel_angstrom + shift
    return position + np.average(aligned, axis=1, weights=weight)


def _pick(spec, rng, refined_px) -> tuple[np.ndarray, np.ndarray]:
    """Written coordinate and the whole-pixel centre at which the particle image was cut.

    Extraction truncates coordinates, so the fraction of an unrounded one is
    an error of coordinate - origin, as in real projects.
    """
    picked = refined_px + _PICKING_ERROR_PX * rng.normal(size=refined_px.shape)
    half = spec.box // 2
    picked = np.clip(picked, half, np.asarray(spec.size_yx) - half - 0.01)
    if spec.coordinate_rounding:
        picked = np.floor(picked)
    return picked, np.floor(picked)


def _defocus(spec, index, rng, count) -> np.ndarray:
    movie = random_stream(spec, "defocus", index)
    mean, split, angle = (movie.uniform(*ends) for ends in (spec.defocus_angstrom, spec.astigmatism_angstrom, (0, 180)))
    local = mean + rng.normal(scale=80.0, size=count)
    return np.stack([local + split / 2, local - split / 2, np.full(count, angle)], axis=1)


def _disturbed(rotation_zyz_degree, error_degree, rng) -> np.ndarray:
    """Poses turned by a small random rotation, ``error_degree`` about each axis."""
    x, y, z = np.deg2rad(error_degree) * rng.normal(size=(3, len(rotation_zyz_degree)))
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
    left, _, right = np.linalg.svd(np.eye(3) + skew)
    return euler_zyz(left @ right @ rotation_zyz(rotation_zyz_degree))
