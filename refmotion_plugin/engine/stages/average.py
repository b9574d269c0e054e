"""Micrographs from movies: frames moved back along the input motion, weighted by dose and frequency, summed.

Everything that shifts is a phase in Fourier space, so high frequencies survive. Rigid motion shifts the whole frame. Local motion
is applied in overlapping tiles, each shifted by its own displacement, that pass smoothly into each other.
"""
from dataclasses import dataclass, replace
from typing import Dict, Optional

import numpy as np
import torch

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.records import DoseWeights, MovieMetadata

from ..dose.weights import normalise, resample
from ..maths.frames import (Tiling, crop_frame_spectrum, frame_from_spectrum, frame_shift_phase, frequency_bin, moved_by_pixels,
                            tile_shift_phase)
from ..movies.patches import cut_patches
from .patches import initial_displacement, plan_frames

HOPS_PX, OVERLAP_PX = (256, 128, 64, 32, 16), 32    # distances of tiles that are tried; over how much they pass into each other
LARGEST_STEP_PX = 0.2        # between neighbouring tiles, px of the micrograph: at most half of it is missing between them
PROBES = 17                  # places per axis where the local motion is looked at
NEGLIGIBLE_PX = 0.01         # a local motion that nowhere differs more than this from the rigid one
FREQUENCY_BINS = 4096        # of the weights' table, up to the corner of Fourier space
FLOAT16_LARGEST = 65504.0


@dataclass(frozen=True)
class AveragedMovie:
    """``images`` float32 (h, w) by kind: weighted, unweighted, even, odd; ``binning`` movie px per px of theirs."""

    images: Dict[str, np.ndarray]
    binning: float
    pixel_angstrom: float


def output_size(size_yx, binning):
    """((h, w), binning) after Fourier cropping: even sizes, the binning that they stand for exactly in x and within half a px in y."""
    if binning == 1:
        return tuple(size_yx), 1.0
    width = max(2, 2 * int(round(size_yx[1] / binning / 2)))
    exact = size_yx[1] / width
    return (max(2, 2 * int(round(size_yx[0] / exact / 2))), width), exact


def frame_weights(dose_e_per_A2, frequency_per_angstrom, voltage_kilovolt, weights: Optional[DoseWeights] = None, group=0):
    """Weights (frame, frequency) with sum of squares 1 over frames, so that white noise stays white.

    Without measured ``weights``: the standard exposure curve. Source: Grant & Grigorieff 2015, eq. 9.
    """
    if weights is None:
        return normalise(exposure_amplitude(dose_e_per_A2, frequency_per_angstrom, voltage_kilovolt), "power")
    return normalise(resample(weights, group, dose_e_per_A2, frequency_per_angstrom), "power")


def average_movie(movie: MovieMetadata, spec, stack, device="cpu", weights: Optional[DoseWeights] = None, group=0):
    """Average one movie.

    Parameters: ``spec`` AverageSpec; ``stack`` the decoded movie; ``weights`` measured ones, of which ``group`` is used, or none for the
    standard curve. Frames are handled one by one: besides the decoded movie a few frames' worth of memory is needed.
    Returns :class:`AveragedMovie`. Raises MovieError if frames do not agree or the result is empty or not finite.
    """
    plan = plan_frames(movie, spec.inputs)
    if stack.n_frames != len(plan):
        raise MovieError("%s has %d frames where %d were expected: check the frame range" % (movie.movie_file, stack.n_frames, len(plan)))
    out_yx, binning = output_size(stack.shape_yx, spec.output.binning)
    if len(plan) < 2 and spec.output.even_odd != "none":
        raise MovieError("%s has one frame that is averaged, so there are no even and odd halves of it: average more frames or leave --even-odd out"
                         % movie.movie_file)
    device = torch.device(device)
    corrector = _corrector(movie, spec, plan, stack.shape_yx, out_yx, binning, device)
    step = 0.5 * np.hypot(*np.divide(out_yx, stack.shape_yx)) / FREQUENCY_BINS
    table = frame_weights(plan.dose_e_per_A2, np.arange(FREQUENCY_BINS + 2) * step / movie.original_pixel_angstrom, movie.voltage_kilovolt,
                          weights, group)
    sums = _Sums(spec.output, out_yx, torch.from_numpy(table).to(device, torch.float32),
                 frequency_bin(stack.shape_yx, out_yx, step, device), device)
    frame = None
    for f in range(len(plan)):
        frame = stack.corrected(f, device, out=frame)
        sums.add(f, plan.first + f, corrector(f, frame))
    images = {kind: frame_from_spectrum(dft, stack.shape_yx, out_yx).cpu().numpy() for kind, dft in sums.by_kind().items()}
    _check(images, movie, spec.output.float16)
    return AveragedMovie(images, binning, movie.original_pixel_angstrom * binning)


def _check(images, movie, float16):
    for kind, image in images.items():
        if not np.isfinite(image).all() or image.min() == image.max():
            raise MovieError("the %s average of %s is %s: check the movie and its gain reference"
                             % (kind, movie.movie_file, "empty" if np.isfinite(image).all() else "not finite"))
        if float16 and np.abs(image).max() > FLOAT16_LARGEST:
            raise MovieError("the %s average of %s reaches %.0f, which 16-bit floating point cannot hold: write 32-bit images"
                             % (kind, movie.movie_file, np.abs(image).max()))


class _Sums:
    """Running sums in Fourier space: dose-weighted, plain, and of the odd frames (counted from 1) of one of them."""

    def __init__(self, output, out_yx, table, bins, device):
        self.table, self.bins, self.half = table, bins, output.even_odd
        shape = (out_yx[0], out_yx[1] // 2 + 1)
        kinds = ["weighted"] + ["unweighted"] * (output.unweighted or self.half == "unweighted") + ["odd"] * (self.half != "none")
        self.dft = {kind: torch.zeros(shape, dtype=torch.complex64, device=device) for kind in kinds}
        self.wanted = [k for k in kinds if k != "unweighted" or output.unweighted]

    def add(self, row, number, spectrum):
        """Add a frame: ``row`` of the table of weights, 0-based ``number`` among the movie's frames."""
        odd = self.half != "none" and number % 2 == 0
        if "unweighted" in self.dft:
            self.dft["unweighted"] += spectrum
        if odd and self.half == "unweighted":
            self.dft["odd"] += spectrum
        spectrum = spectrum * torch.take(self.table[row], self.bins.long())
        self.dft["weighted"] += spectrum
        if odd and self.half == "weighted":
            self.dft["odd"] += spectrum

    def by_kind(self):
        """Spectra of what is to be written."""
        found = {kind: self.dft[kind] for kind in self.wanted}
        if "odd" in found:
            found["even"] = self.dft[self.half] - self.dft["odd"]
        return found


# ---- motion -----------------------------------------------------------------------------------------------------------------

def _corrector(movie, spec, plan, shape_yx, out_yx, binning, device):
    """Function (frame number, frame) -> half spectrum of the corrected frame, cropped to ``out_yx``."""
    center = (np.array([shape_yx]) - 1) / 2.0
    rigid = _displacement_px(movie, center, plan, local=False)[0]                # (F, 2)
    _require_inside(movie, rigid, shape_yx)
    if spec.output.local_motion and movie.local_coefficients is not None:
        probe, gradient = _local_motion(movie, plan, shape_yx)
        _require_inside(movie, probe, shape_yx)
        if np.abs(probe - rigid).max() > NEGLIGIBLE_PX:
            hop = next((h for h in HOPS_PX if h * gradient <= LARGEST_STEP_PX * binning), HOPS_PX[-1])
            tiling = Tiling(shape_yx, hop, min(hop, OVERLAP_PX))
            field = _displacement_px(movie, tiling.center_yx_px().numpy(), plan)
            return _Tiled(tiling, torch.from_numpy(field).to(device), out_yx)
    return _Rigid(rigid, shape_yx, out_yx)


def _displacement_px(movie, place_yx_px, plan, local=True):
    """Where features are seen in each frame minus their place in the micrograph, (n, F, 2), movie px."""
    movie = movie if local else replace(movie, local_coefficients=None)
    pixel = movie.original_pixel_angstrom
    return initial_displacement(movie, place_yx_px * pixel, plan) / pixel


def _require_inside(movie, displacement, shape_yx):
    largest = np.abs(displacement).reshape(-1, 2).max(axis=0)
    if not np.isfinite(displacement).all() or (largest >= np.array(shape_yx) / 2).any():
        raise MovieError("the motion of %s reaches (%.0f, %.0f) px in y and x, half the frame or more: its motion correction failed, "
                         "run it again" % ((movie.micrograph,) + tuple(largest)))


def _local_motion(movie, plan, shape_yx):
    """Displacements (n, F, 2) at places all over the frame, and their steepest change per px in any frame and direction."""
    axes = [np.linspace(0, n - 1, PROBES) for n in shape_yx]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    probe = _displacement_px(movie, places, plan)
    grid = probe.reshape(PROBES, PROBES, -1)
    steepest = [np.abs(np.diff(grid, axis=axis)).max() * (PROBES - 1) / (n - 1) for axis, n in enumerate(shape_yx)]
    return probe, max(steepest)


class _Rigid:
    """The whole frame moved back: whole pixels in real space (what comes in from outside is the frame's mean), the rest as a phase."""

    def __init__(self, displacement, shape_yx, out_yx):
        self.whole = np.rint(displacement).astype(int)
        self.rest, self.shape_yx, self.out_yx = displacement - self.whole, shape_yx, out_yx

    def __call__(self, f, frame):
        if self.whole[f].any():
            frame = moved_by_pixels(frame, tuple(-self.whole[f]), float(frame.mean()))
        dft = crop_frame_spectrum(torch.fft.rfft2(frame), self.shape_yx, self.out_yx)
        y_turn, x_turn = frame_shift_phase(-self.rest[f], self.shape_yx, self.out_yx, frame.device)
        return dft * y_turn[:, None] * x_turn[None, :]


class _Tiled:
    """Tiles moved back by their own displacements, joined, and the whole frame's spectrum of that."""

    def __init__(self, tiling, displacement, out_yx):
        whole = displacement.round()
        self.tiling, self.out_yx, self.window = tiling, out_yx, tiling.window(displacement.device)
        self.corner_yx = (tiling.corner_yx[:, None] + whole.long().cpu()).contiguous()          # (n, F, 2)
        self.rest = displacement - whole

    def __call__(self, f, frame):
        joined = self.tiling.joined(self._rows(f, frame), frame.device)
        return crop_frame_spectrum(torch.fft.rfft2(joined), self.tiling.shape_yx, self.out_yx)

    def _rows(self, f, frame):
        per_row, size = self.tiling.count_yx[1], self.tiling.size_px
        for begin in range(0, len(self.corner_yx), per_row):
            row = slice(begin, begin + per_row)
            dft = torch.fft.rfft2(cut_patches(frame, self.corner_yx[row, f], size))
            y_turn, x_turn = tile_shift_phase(-self.rest[row, f], size)
            dft *= y_turn[:, :, None]
            dft *= x_turn[:, None, :]
            yield torch.fft.irfft2(dft, s=(size, size)).mul_(self.window)
