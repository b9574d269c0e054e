"""From a decoded movie to spectra of patches, frame by frame; kept if they fit the memory, made again if not."""
from dataclasses import dataclass

import numpy as np
import torch

from refmotion_plugin.contract import conventions
from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.records import MovieMetadata, ParticleTable

from ..maths.fourier import FourierGrid, crop_half_spectrum
from ..movies.patches import corner_for, cut_patches


def frame_range(movie: MovieMetadata, inputs):
    """0-based half-open range of the movie's frames that the job uses; MovieError if it is empty or beyond the movie."""
    last = movie.n_frames if inputs.last_frame == -1 else inputs.last_frame
    if not inputs.first_frame <= last <= movie.n_frames:
        raise MovieError("frames %d to %d were asked for but %s has %d frames: change the frame range"
                         % (inputs.first_frame, last, movie.movie_file, movie.n_frames))
    return inputs.first_frame - 1, last


def frame_doses(movie: MovieMetadata, first, last):
    """Dose at mid-frame of frames first .. last - 1, e/A^2, (F,); frames skipped upstream count."""
    return conventions.dose_at_mid_frame(last - first, movie.dose_per_frame_e_per_A2, movie.pre_exposure_e_per_A2,
                                         movie.start_frame - 1 + first)


def initial_displacement(movie: MovieMetadata, position_yx_angstrom, first, last):
    """Input motion at each particle: rigid, and local if the movie has a model. (P, F, 2) float64, A."""
    rigid = conventions.displacement_from_frame_shifts(movie.global_shift_xy_px, movie.original_pixel_angstrom)[first:last]
    start = np.broadcast_to(rigid, (len(position_yx_angstrom),) + rigid.shape).copy()
    if movie.local_coefficients is not None:
        size = np.array(movie.size_yx) * movie.original_pixel_angstrom
        place = position_yx_angstrom / size - 0.5
        shift = conventions.local_shift_yx_px(movie.local_coefficients, np.arange(first, last), place[:, 1:], place[:, :1])
        start -= shift * movie.original_pixel_angstrom
    return start


@dataclass(frozen=True)
class Cut:
    """Where patches are cut: whole-pixel ``corner_yx`` (P, F, 2) and what remains, ``residual_yx_angstrom`` (P, F, 2)."""

    corner_yx: torch.Tensor
    residual_yx_angstrom: torch.Tensor


def cut_at(center_yx_angstrom, grid: FourierGrid, device):
    """Cut positions for box centres (P, F, 2) in A from the centre of the movie's pixel (0, 0)."""
    center = torch.as_tensor(center_yx_angstrom, dtype=torch.float64, device=device) / grid.pixel_angstrom
    corner, remainder = corner_for(center, grid.size_px)
    return Cut(corner, remainder * grid.pixel_angstrom)


class PatchSpectra:
    """Half spectra of the patches of each frame, called as ``spectra(f)`` -> complex64 (P, h, w)."""

    def __init__(self, stack, cut: Cut, grid: FourierGrid, device, cache_bytes=0):
        self.stack, self.cut, self.grid, self.device = stack, cut, grid, device
        size = len(cut.corner_yx) * cut.corner_yx.shape[1] * grid.shape[0] * grid.shape[1] * 8
        self.cache = {} if size <= cache_bytes else None

    def __call__(self, frame):
        if self.cache is not None and frame in self.cache:
            return self.cache[frame]
        patches = cut_patches(self.stack.corrected(frame, self.device), self.cut.corner_yx[:, frame], self.grid.size_px)
        spectrum = crop_half_spectrum(torch.fft.rfft2(patches), self.grid.kept_px)
        if self.cache is not None:
            self.cache[frame] = spectrum
        return spectrum


def outside_movie(movie: MovieMetadata, particles: ParticleTable):
    """Mask (P,) of particles whose centre lies outside the movie."""
    size = np.array(movie.size_yx) * movie.original_pixel_angstrom
    position = particles.position_yx_angstrom
    return ((position < 0) | (position >= size)).any(axis=1)
