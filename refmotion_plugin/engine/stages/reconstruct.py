"""Half-maps of a reference's particles before and after, in the same poses and half-sets, and how their FSC changed.

*After*: the polished images. *Before*: the same movies summed along the input motion with the standard exposure curve, so that the change is
what trajectories and dose weights brought, and nothing else differs.
"""
import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import mrcfile
import numpy as np
import torch

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.records import DoseWeights, ParticleTable
from refmotion_plugin.contract.weighting import B_FACTOR_AXIS_PER_ANGSTROM, normalise

from ..optics.backproject import BYTES_PER_VOXEL, BackProjection
from ..optics.fsc_change import FscChange, fsc_change, single_fsc
from ..optics.reference import centred_coordinate_px, soft_sphere
from ..optics.volumes import read_map
from .memory import is_out_of_memory, release
from .polish import polish_movie
from .prepared import Prepared

BEYOND = 1.5                # times the frequency of the reference's resolution is looked at first, so that a gain has room
SMALLEST_BOX = 32
BYTES_PER_SAMPLE = 100      # of a slice, while it is spread
CHUNK_BYTES = {"cpu": 2 ** 26, "cuda": 2 ** 30}

log = logging.getLogger(__name__)


# ---- the images before ----------------------------------------------------------------------------------------------------------

def polish_along_input(movie, particles, trajectories, prepared: Prepared, stack=None):
    """Images of a movie's particles of one set summed along the input motion with the standard exposure curve: a PolishedMovie.

    Each is centred as along its trajectory, so that errors of its catalogue position, such as coordinates that were rounded on extraction, are no gain.
    """
    voltage = prepared.optics_of(particles, 0).voltage_kilovolt
    weights = standard_weights(trajectories.dose_e_per_A2, voltage)
    share = _shares(weights, prepared.references[int(particles.reference[0])].limit_angstrom)[:, None]
    departure = trajectories.displacement_yx_angstrom - trajectories.initial_yx_angstrom
    still = replace(trajectories, displacement_yx_angstrom=trajectories.initial_yx_angstrom + (departure * share).sum(1, keepdims=True))
    return polish_movie(movie, particles, still, weights, prepared, stack=stack)


def _shares(weights, limit_angstrom):
    """What each frame adds to the signal of an image, (frame,), sum 1: its weight times what damage left, which is the same curve; mean over the shells up to the limit."""
    signal = weights.weight[0][:, weights.frequency_per_angstrom <= 1.0 / limit_angstrom] ** 2
    return normalise(signal, "sum").mean(1)


def standard_weights(dose_e_per_A2, voltage_kilovolt):
    """The standard exposure curve as DoseWeights of one group."""
    k, nothing = B_FACTOR_AXIS_PER_ANGSTROM, np.zeros((1, len(dose_e_per_A2)))
    weight = normalise(exposure_amplitude(dose_e_per_A2, k, voltage_kilovolt), "sum")[None]
    return DoseWeights(weight, k, dose_e_per_A2, nothing, nothing + 1.0, nothing, nothing, "sum", "standard exposure curve")


# ---- both reconstructions -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Images:
    """Particles of one geometry: ``kinds``, per kind of images (before and after, or after alone) a list of (stack, number from 0)."""

    table: ParticleTable
    optics: dict
    kinds: tuple
    pixel_angstrom: float
    box_px: int


@dataclass(frozen=True)
class Compared:
    """``particles`` that took part, ``frequency_per_angstrom`` (shell,) and FscChange; ``volumes`` per kind the two half-maps; without images
    before, ``change`` has None for everything before."""

    particles: int
    frequency_per_angstrom: np.ndarray
    change: FscChange
    volumes: tuple

    @property
    def fall(self):
        """Whether the curves, of which there are one or two, fall below 0.143."""
        return None not in [self.change.after_angstrom] + ([] if self.change.before is None else [self.change.before_angstrom])


def compare_images(images: Images, mask, operators, device="cpu", room=None, finest_angstrom=None, progress=None):
    """:class:`Compared` of one reference.

    Parameters: ``mask`` path of an MRC file, on any grid, or None: a sphere of 0.45 box; ``operators`` of the point group; ``room`` bytes
    for the sums (none: no limit); ``finest_angstrom`` beyond which is looked only where an FSC does not fall below 0.143 before; ``progress(done,
    total)`` in particles, from the start again for a second look.
    Raises InputError for images that cannot be read or a half-set without particles. A GPU whose memory is too small leaves it to the CPU.
    """
    grid = _map_grid(images, room, finest_angstrom)
    for place in dict.fromkeys((str(device), "cpu")):
        try:
            found = _compare(images, mask, operators, place, grid, progress)
            wider = grid if found.fall or not finest_angstrom else _map_grid(images, room, None)
            if wider == grid:
                return found
            log.info("the FSC does not fall below 0.143 up to %.2f A: once more, up to %.2f A", 2.0 * grid[1], 2.0 * wider[1])
            return _compare(images, mask, operators, place, wider, progress)
        except (MemoryError, RuntimeError) as error:
            if place == "cpu" or not is_out_of_memory(error):
                raise
        release(place)
        log.warning("the reconstruction does not fit into the memory of %s: it is made on the CPU", place)


def _compare(images, mask, operators, device, grid, progress):
    box, pixel = grid
    halves = [_half_maps(images, half, box, pixel, operators, device, progress) for half in (1, 2)]
    weight, extent = _weight(mask, box, pixel), box * pixel
    volumes = tuple(zip(*[v for v, _ in halves]))
    masked = [[v * weight for v in pair] for pair in volumes]
    frequency = np.arange(box // 2 + 1) / extent
    if len(masked) == 2:
        change = fsc_change(*masked, extent, operators)
    else:
        curve, resolution = single_fsc(masked[0], extent)
        change = FscChange(None, curve, None, resolution, None)
    return Compared(sum(count for _, count in halves), frequency, change, volumes)


def _map_grid(images, room, finest_angstrom):
    """(box, pixel) of the maps: the images' physical extent, cropped to what is looked at and to what fits into ``room`` bytes."""
    extent = images.box_px * images.pixel_angstrom
    box = images.box_px
    if finest_angstrom:
        box = min(box, 2 * int(np.ceil(extent / finest_angstrom)))
    if room is not None:
        fits = max(SMALLEST_BOX, 2 * int((room / BYTES_PER_VOXEL) ** (1 / 3) / 2))
        if fits < box:
            log.warning("memory for the reconstruction holds a box of %d px where %d were wanted: the FSC ends at %.2f A", fits, box, 2 * extent / fits)
            box = fits
    box = min(max(box, SMALLEST_BOX), images.box_px)
    return box, extent / box


def _half_maps(images, half, box, pixel, operators, device, progress):
    """Maps of all kinds of one half-set, and the number of its particles that took part."""
    sums, used = BackProjection(box, pixel, operators, len(images.kinds), device), 0
    members = np.flatnonzero(images.table.half == half)
    if not len(members):
        raise InputError("no particle of half-set %d is left to reconstruct" % half)
    members = members[np.argsort([images.kinds[-1][i][0] for i in members], kind="stable")]           # stack by stack
    size = max(1, int(CHUNK_BYTES[torch.device(device).type] / (BYTES_PER_SAMPLE * box * box / 2 + 12 * images.box_px ** 2)))
    with ExitStack() as opened:
        readers = [opened.enter_context(closing(_Reader())) for _ in images.kinds]
        for begin in range(0, len(members), size):
            chosen = members[begin:begin + size]
            stacks = [np.stack([read(*kind[i]) for i in chosen]) for read, kind in zip(readers, images.kinds)]
            fine = np.all([np.isfinite(s).all((1, 2)) for s in stacks], axis=0)
            for number in np.unique(images.table.optics_group[chosen[fine]]):
                part = fine & (images.table.optics_group[chosen] == number)
                sums.add([torch.from_numpy(s[part]) for s in stacks], images.table[chosen[part]], images.optics[int(number)])
            used += int(fine.sum())
            if progress:
                progress((half - 1) * len(images.table) // 2 + (begin + len(chosen)) * len(images.table) // (2 * len(members)), len(images.table))
    if used < len(members):
        log.warning("%d of %d images of half-set %d are not finite and left out of the reconstruction", len(members) - used, len(members), half)
    return sums.volumes(), used


class _Reader:
    """Images out of stacks, the last one kept open."""

    def __init__(self):
        self.path = self.file = None

    def __call__(self, path, number):
        try:
            if path != self.path:
                self.close()
                self.path, self.file = path, mrcfile.mmap(path, mode="r", permissive=True)
            data = self.file.data if self.file.data.ndim == 3 else self.file.data[None]
            return np.array(data[number], dtype=np.float32)
        except (OSError, ValueError, IndexError, AttributeError) as error:
            raise InputError("image %d of %s cannot be read (%s): give the same command again" % (number + 1, path, error)) from None

    def close(self):
        """Close the stack that is open."""
        if self.file is not None:
            self.file.close()
        self.path = self.file = None


def _weight(mask, box, pixel):
    """The reference's mask on the maps' grid, or a soft sphere."""
    if mask is None:
        return soft_sphere(box, 0.45 * box, 0.05 * box)
    values, mask_pixel = read_map(mask, "mask")
    return on_grid(torch.as_tensor(values), mask_pixel, box, pixel).clamp(0.0, 1.0)


def on_grid(volume, volume_pixel, box, pixel):
    """A cube on another grid with the same centre (voxel size // 2), linear between its voxels, 0 outside: float32 (box, box, box)."""
    size = volume.shape[-1]
    if size == box and abs(volume_pixel - pixel) < 1e-4 * pixel:
        return volume
    place = centred_coordinate_px(box) * (pixel / volume_pixel) + size // 2
    place = 2.0 * place / (size - 1) - 1.0
    z, y, x = torch.meshgrid(place, place, place, indexing="ij")
    return torch.nn.functional.grid_sample(volume[None, None], torch.stack((x, y, z), -1)[None], align_corners=True)[0, 0]
