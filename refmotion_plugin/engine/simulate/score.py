"""Hold results against the truth: trajectories, weights, particle images."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import scipy.fft

from .catalogue import optics_of_group
from .ctf import transfer
from .projection import atom_contrast, frequencies_per_angstrom, projection_spectrum, rotation_zyz
from .spec import SimulationSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrajectoryError:
    """2D rms distance to the truth in A, one constant per particle removed."""

    all_frames: float
    first_five: float
    per_frame: np.ndarray  # (frame,)


def trajectory_error(estimated_yx_angstrom, true_yx_angstrom, weights=None) -> TrajectoryError:
    """Error of trajectories (particle, frame, 2) after removing each particle's weighted mean difference.

    ``weights`` (frame,), usually the damage amplitude at 6 A, say which frames
    fix the constant; even weights without them. The rms itself is unweighted.
    """
    difference = np.asarray(estimated_yx_angstrom, np.float64) - np.asarray(true_yx_angstrom, np.float64)
    difference = difference - np.average(difference, axis=1, weights=weights)[:, None]
    square = np.square(difference).sum(axis=2)
    return TrajectoryError(all_frames=float(np.sqrt(square.mean())), first_five=float(np.sqrt(square[:, :5].mean())),
                           per_frame=np.sqrt(square.mean(axis=0)))


def damage_weights(truth: Path, resolution_angstrom: float = 6.0) -> np.ndarray:
    """True amplitude left per frame (frame,) at a resolution, from a truth folder."""
    with np.load(Path(truth) / "damage.npz") as damage:
        shell = np.abs(damage["frequency_per_angstrom"] - 1 / resolution_angstrom).argmin()
        return damage["amplitude"][:, shell]


def true_amplitude(truth: Path, directions: int = 8) -> np.ndarray:
    """Amplitude left per frame (frame, shell of ``damage.npz``): damage times blur by motion inside the frame.

    amplitude_f(k) = damage_f(k) <sin(pi k.delta) / (pi k.delta)>, mean over particles and directions of k; delta is the
    motion from the start to the end of the frame. Optimal weights follow this, not the damage alone.
    """
    with np.load(Path(truth) / "damage.npz") as damage:
        amplitude, k = damage["amplitude"], damage["frequency_per_angstrom"]
    angle = np.pi * np.arange(directions) / directions
    units = np.stack([np.sin(angle), np.cos(angle)])  # (yx, direction)
    files = sorted(Path(truth).glob("movie_*.npz"))
    blur, count = np.zeros(amplitude.shape), 0
    for path in files:
        with np.load(path) as known:
            delta = known["displacement_end_yx_angstrom"] - known["displacement_start_yx_angstrom"]
        along = delta @ units  # (particle, frame, direction)
        blur += np.stack([np.sinc(ki * along).mean(axis=2).sum(axis=0) for ki in k], axis=1)
        count += len(delta)
    return amplitude * blur / count


def weight_agreement(weights, amplitude, frequency_per_angstrom,
                     band_angstrom: tuple[float, float] = (20.0, 4.0)) -> tuple[float, float]:
    """How well weights (frame, shell) match true amplitudes (frame, shell).

    Returns
    -------
    correlation : of relative amplitudes, each shell normalised to sum 1 over frames.
    snr_kept : (sum w a)^2 / (sum w^2 sum a^2), the share of the SNR that the best
        weights would give in white noise, averaged over the shells of ``band_angstrom``.
    """
    k = np.asarray(frequency_per_angstrom)
    band = (k >= 1 / band_angstrom[0]) & (k <= 1 / band_angstrom[1])
    w, a = np.asarray(weights, np.float64)[:, band], np.asarray(amplitude, np.float64)[:, band]
    correlation = np.corrcoef((w / w.sum(axis=0)).ravel(), (a / a.sum(axis=0)).ravel())[0, 1]
    kept = (w * a).sum(axis=0) ** 2 / ((w**2).sum(axis=0) * (a**2).sum(axis=0))
    return float(correlation), float(kept.mean())


def true_projections(truth: Path, movie: str, box: int, pixel_angstrom: float, suffix: str = "",
                     origin_yx_angstrom: np.ndarray | None = None) -> np.ndarray:
    """Noise-free CTF-modulated projections (n, box, box) of a movie's particles, protein bright.

    Each particle sits at its catalogue position seen from the centre of a box cut at the truncated coordinate:
    at box//2 - origin/pixel (pass other origins for re-centred particles).
    """
    spec = SimulationSpec.read(Path(truth) / "spec.json")
    with np.load(Path(truth) / f"structure{suffix}.npz") as file:
        atoms = file["xyz_angstrom"]
    with np.load(Path(truth) / f"{movie}{suffix}.npz") as file:
        known = {key: file[key] for key in file}
    origin = known["origin_yx_angstrom"] if origin_yx_angstrom is None else np.asarray(origin_yx_angstrom)
    optics = optics_of_group(spec, int(known["optics_group"]) - 1)
    ky, kx = frequencies_per_angstrom(box, pixel_angstrom)
    shape = atom_contrast(np.hypot(ky, kx), spec.voltage, spec.bfactor_A2) * spec.contrast_scale / pixel_angstrom**2
    images = np.empty((len(origin), box, box), np.float32)
    for i, matrix in enumerate(rotation_zyz(known["true_rotation_zyz_degree"])):
        spectrum = projection_spectrum(atoms, matrix, box, pixel_angstrom) * shape
        spectrum *= transfer(optics, known["defocus_uva_angstrom_degree"][i], box, pixel_angstrom)
        y, x = (box // 2) * pixel_angstrom - origin[i]
        images[i] = scipy.fft.irfft2(spectrum * np.exp(-2j * np.pi * (ky * y + kx * x)), s=(box, box), workers=1)
    return images


def particle_ring_correlation(images: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """Mean over particles of the Fourier ring correlation per shell 0 ... box/2 of two stacks (n, box, box)."""
    box = images.shape[-1]
    ky, kx = frequencies_per_angstrom(box, 1.0)
    shell = np.round(np.hypot(ky, kx) * box).astype(int).ravel()
    twice = np.broadcast_to(np.where((kx > 0) & (kx < 0.5), 2.0, 1.0), (box, box // 2 + 1)).ravel()
    rings = []
    for image, projection in zip(images, projections):
        a, b = (scipy.fft.rfft2(m.astype(np.float32), workers=1).ravel() for m in (image, projection))
        sums = [np.bincount(shell, twice * v)[: box // 2 + 1]
                for v in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)]
        rings.append(sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-30)))
    return np.mean(rings, axis=0)
