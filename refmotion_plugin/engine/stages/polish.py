"""Polished particles of one movie: frames moved back along the trajectories, dose-weighted, summed, normalised."""
import functools
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np
import torch

from refmotion_plugin.contract import conventions
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.records import DoseWeights, Trajectories
from refmotion_plugin.contract.weighting import check_groups

from ..dose.combine import combine_frames, normalise_background, to_images
from ..dose.weights import resample
from ..maths.fourier import FourierGrid, cache_parts
from ..maths.lanes import each_part
from ..movies.buffers import block_array
from .load import load_stack, movie_memory
from .memory import within_memory
from .patches import PatchSpectra, cut_at, plan_frames
from .prepared import Prepared

FLAT_SHARE = 1e-6             # background deviation relative to the largest value at which an image counts as empty


@dataclass(frozen=True)
class PolishedMovie:
    """``images`` float32 (n, box, box) in the particles' order, NaN-free; ``rejected`` [(index, reason)] are zero and not written."""

    images: np.ndarray
    pixel_angstrom: float
    rejected: List[Tuple[int, str]]


def output_boxes(prepared: Prepared, reference_index, movie_pixel_angstrom):
    """(box cut from the movie, box written) in px for one particle set: the reference's physical extent unless asked otherwise."""
    output, reference = prepared.spec.output, prepared.references[reference_index]
    box = output.box_px or 2 * int(round(reference.box_px * reference.pixel_angstrom / movie_pixel_angstrom / 2))
    crop = output.crop_box_px or box
    if crop > box:
        raise InputError("crop box %d px is larger than the box of %d px that is cut from the movie: give a smaller crop box or a "
                         "larger box" % (crop, box))
    return box, crop


def output_geometry(prepared: Prepared, reference_index, movie_pixel_angstrom):
    """(A/px, px) of the images of one particle set's particles in movies of this pixel size. InputError as :func:`output_boxes`."""
    box, crop = output_boxes(prepared, reference_index, movie_pixel_angstrom)
    return movie_pixel_angstrom * box / crop, crop


@within_memory
def polish_movie(movie, particles, trajectories: Trajectories, weights: DoseWeights, prepared: Prepared, stack=None):
    """Polished images of one movie's particles of **one** set (all with the same reference index).

    ``trajectories`` rows agree with ``particles``. Raises MovieError if the movie is unusable or frames do not agree.
    """
    memory = movie_memory(movie, len(particles), prepared)
    stack = load_stack(movie, prepared) if stack is None else stack
    frames = len(plan_frames(movie, prepared.spec.inputs))
    if trajectories.displacement_yx_angstrom.shape[:2] != (len(particles), frames):
        raise MovieError("trajectories of %s are for %s particles and frames, the movie has %s: delete its folder and run again"
                         % (movie.micrograph, trajectories.displacement_yx_angstrom.shape[:2], (len(particles), frames)))
    index = int(particles.reference[0])
    box, crop = output_boxes(prepared, index, movie.original_pixel_angstrom)
    grid = FourierGrid(box, movie.original_pixel_angstrom, box)
    shells = _frame_weights(particles, trajectories, weights, prepared, grid)
    center = particles.coordinate_yx_angstrom[:, None] + trajectories.displacement_yx_angstrom
    if prepared.spec.output.recenter:
        center = center - recentering_yx_px(particles, movie.original_pixel_angstrom)[:, None] * movie.original_pixel_angstrom
    radius = _particle_radius(prepared, index) / movie.original_pixel_angstrom * crop / box
    images, sound = _host_images(len(particles), crop, prepared.device), []
    for begin in range(0, len(particles), memory.particles_summed):
        part = slice(begin, begin + memory.particles_summed)
        cut = cut_at(center[part], grid, prepared.device)
        spectra = PatchSpectra(stack, cut, grid, prepared.device, at_a_time=memory.particles_cut)
        weight = shells if len(shells) == 1 else shells[part]
        total = combine_frames(spectra.each_part, cut.residual_yx_angstrom / grid.pixel_angstrom, weight, grid)
        parts = cache_parts(len(total), total[0].numel() * 8, prepared.device)
        sound += each_part(functools.partial(_finish, total, grid, radius, images[part]), parts, prepared.device)
    totals, shares = torch.cat(sound, dim=1).cpu().numpy()      # after which a GPU has copied the images, too
    return _checked(images.numpy(), totals, shares, output_geometry(prepared, index, movie.original_pixel_angstrom)[0])


def _finish(total, grid, radius, images, few):
    """Images of ``few`` of the sums into ``images`` (n, crop, crop); their sums, and their background's deviation over their largest value, (2, few)."""
    raw = to_images(total[few], grid, images.shape[-1]).mul_(conventions.MOVIE_CONTRAST)
    image, sd = normalise_background(raw, radius)
    images[few].copy_(image, non_blocking=True)
    return torch.stack([image.flatten(1).sum(1), sd / raw.abs().amax((1, 2)).clamp(min=1e-30)])


def _host_images(count, size, device):
    """Float32 (count, size, size) on the host; pinned if they come from a GPU, which is many times faster."""
    return torch.from_numpy(block_array((count, size, size), np.float32, "polished images", device if device.type == "cuda" else None))


def recentering_yx_px(particles, movie_pixel_angstrom):
    """Whole movie pixels of the refined origins, (P, 2): what leaves the origin and enters the coordinate when recentring."""
    return np.trunc(particles.origin_yx_angstrom / movie_pixel_angstrom)


def _frame_weights(particles, trajectories, weights, prepared, grid):
    """Weights float32 (1, F, shell) if one optics group is present, else one table per particle (P, F, shell)."""
    k = grid.shell_frequency_per_angstrom(dtype=torch.float64).numpy()
    check_groups(len(weights.weight), len(prepared.optics_groups), "particles")
    index = prepared.optics_index(particles) if len(weights.weight) > 1 else np.zeros(len(particles), dtype=int)
    tables = {g: torch.from_numpy(resample(weights, g, trajectories.dose_e_per_A2, k)).to(torch.float32) for g in np.unique(index)}
    rows = [tables[g] for g in (index if len(tables) > 1 else index[:1])]
    return torch.stack(rows).to(prepared.device)


def _particle_radius(prepared: Prepared, index):
    diameter = prepared.spec.output.particle_diameter_angstrom
    return diameter / 2.0 if diameter else prepared.references[index].particle_radius_angstrom


def _checked(images, total, share, pixel_angstrom):
    """List images that are not finite, as their sum ``total`` is, or flat; they are zeroed here so that nothing invalid can reach a file by accident."""
    rejected = []
    finite = np.isfinite(total)
    for i in np.flatnonzero(~finite | (share <= FLAT_SHARE)):
        rejected.append((int(i), "the polished image is not finite" if not finite[i] else "the polished image is empty"))
        images[i] = 0.0
    return PolishedMovie(images, pixel_angstrom, rejected)
