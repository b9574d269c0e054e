"""From a decoded movie to spectra of patches, frame by frame; kept as far as memory allows, else made again."""
import functools
from dataclasses import dataclass

import numpy as np
import torch

from refmotion_plugin.contract import conventions
from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.records import MovieMetadata, ParticleTable

from ..maths.blocks import OneFrame
from ..maths.fourier import FourierGrid, low_half_spectrum
from ..maths.lanes import each_part, even_parts, lanes
from ..movies.buffers import block_array
from ..movies.patches import Gather, corner_for, cut_patches


@dataclass(frozen=True)
class FramePlan:
    """The frames of one movie that a job uses.

    ``first``, ``last``: 0-based half-open among the frames as they are read; ``upstream`` (F,): the same moments as frame
    indices of the upstream alignment, where its shifts are known; ``dose_e_per_A2`` (F,) at mid-frame, ``dose_per_frame_e_per_A2`` of each.
    """

    first: int
    last: int
    upstream: np.ndarray
    dose_e_per_A2: np.ndarray
    dose_per_frame_e_per_A2: float

    def __len__(self):
        return self.last - self.first


def plan_frames(movie: MovieMetadata, inputs):
    """Which frames a job uses of a movie and what dose they carry; frames skipped upstream count as dose.

    EER movies may be cut into other fractions than upstream did. MovieError if the range is empty or beyond the movie, or if
    other fractions are asked for and frames were discarded upstream.
    """
    ratio = _fraction_ratio(movie, inputs)
    count = int(movie.n_frames / ratio + 1e-9)
    if not count:
        raise MovieError("movie %s has %d detector frames, fewer than the %d of one fraction: lower the EER grouping"
                         % (movie.movie_file, movie.n_frames * movie.eer_grouping, inputs.eer_grouping))
    last = count if inputs.last_frame == -1 else inputs.last_frame
    if not inputs.first_frame <= last <= count:
        raise MovieError("frames %d to %d were asked for but %s has %d frames: change the frame range"
                         % (inputs.first_frame, last, movie.movie_file, count))
    index = np.arange(inputs.first_frame - 1, last)
    dose = conventions.dose_at_mid_frame(len(index), movie.dose_per_frame_e_per_A2 * ratio, movie.pre_exposure_e_per_A2,
                                         movie.start_frame - 1 + index[0])
    return FramePlan(int(index[0]), last, (index + 0.5) * ratio - 0.5, dose, movie.dose_per_frame_e_per_A2 * ratio)


def _fraction_ratio(movie, inputs):
    """Upstream frames per frame of this job: 1 unless EER movies are cut into other fractions."""
    if not movie.eer_grouping or not inputs.eer_grouping or inputs.eer_grouping == movie.eer_grouping:
        return 1.0
    if movie.start_frame != 1:
        raise MovieError("%s was aligned from frame %d on, so it cannot be cut into other EER fractions: leave the EER grouping as "
                         "upstream (%d)" % (movie.movie_file, movie.start_frame, movie.eer_grouping))
    return inputs.eer_grouping / movie.eer_grouping


def initial_displacement(movie: MovieMetadata, position_yx_angstrom, plan: FramePlan):
    """Input motion at each particle: rigid, and local if the movie has a model. (P, F, 2) float64, A.

    Between upstream frames the rigid motion is interpolated linearly; beyond the first and last it stays.
    """
    rigid = conventions.displacement_from_frame_shifts(movie.global_shift_xy_px, movie.original_pixel_angstrom)
    known = np.arange(len(rigid))
    rigid = np.stack([np.interp(plan.upstream, known, rigid[:, axis]) for axis in (0, 1)], axis=-1)
    start = np.broadcast_to(rigid, (len(position_yx_angstrom),) + rigid.shape).copy()
    if movie.local_coefficients is not None:
        size = np.array(movie.size_yx) * movie.original_pixel_angstrom
        place = position_yx_angstrom / size - 0.5
        shift = conventions.local_shift_yx_px(movie.local_coefficients, plan.upstream, place[:, 1:], place[:, :1])
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
    """Half spectra of the patches of each frame: ``spectra(f)[rows]`` -> complex64 (p, h, w), made and widened where it is used.

    ``at_a_time``: patches cut and transformed together (all); ``together``: frames that :meth:`blocks` gives at once. ``cache_bytes``: the first frames asked for are kept up to that;
    None: nothing is kept and values are exact. What may be kept is rounded to bfloat16, whether it is or not: an error of a
    thousandth of the noise in each component, a millionth of its power. A frame that is not kept is valid until the next one is asked for.
    """

    def __init__(self, stack, cut: Cut, grid: FourierGrid, device, cache_bytes=None, at_a_time=None, together=1):
        self.stack, self.cut, self.grid, self.device = stack, cut, grid, torch.device(device)
        self.at_a_time, self.together = at_a_time or max(1, len(cut.corner_yx)), together
        self.cache = None if cache_bytes is None else SpectraCache((len(cut.corner_yx),) + grid.shape, cut.corner_yx.shape[1], cache_bytes, self.device)
        self.corner_yx = cut.corner_yx.cpu()
        self.frame = None       # one buffer for all frames: fresh memory costs more than the arithmetic
        self.gather = None

    def __call__(self, frame):
        if self.cache is None:
            return torch.cat(self.each_part(frame, lambda part, spectrum: spectrum))
        if frame not in self.cache:
            self.cache.put(frame, functools.partial(self.each_part, frame))
        return self.cache.get(frame)

    def blocks(self, frames):
        """Yields (some of the ``frames``, in their order, and their spectra): see :func:`..maths.blocks.frame_blocks`. More than one where all are kept."""
        for begin in range(0, len(frames), self.together):
            block = frames[begin:begin + self.together]
            if len(block) > 1 and self.cache is not None and all(self.cache.keeps(f, functools.partial(self.each_part, f)) for f in block):
                yield block, self.cache.several(block)
            else:
                yield from (([f], OneFrame(self(f))) for f in block)

    def each_part(self, frame, use):
        """A few particles at a time, exact: ``[use(slice, complex64 (p, h, w)), …]``, from several threads on a CPU. Nothing is kept."""
        self.frame = self.stack.to_cut(frame, self.device, out=self.frame)
        parts = even_parts(len(self.corner_yx), max(1, self.at_a_time // lanes(self.device)), self.device)
        used = each_part(lambda part: use(part, low_half_spectrum(self._patches(frame, part), self.grid.kept_px)), parts, self.device)
        self.stack.expect(frame + 1, self.device)      # the work above is under way on a GPU
        return used

    def _patches(self, frame, part):
        size = self.grid.size_px
        if self.device.type == "cpu" or min(self.frame.shape) < size:
            return cut_patches(self.frame, self.corner_yx[part, frame], size)
        if self.gather is None:
            self.gather = Gather(self.corner_yx, self.frame.shape, size, self.device)
        return self.gather(self.frame, frame, part)


class SpectraCache:
    """Spectra of some frames in bfloat16: as many as fit into ``most_bytes``, and the one that passes by. ``shape`` (P, h, w) of one frame."""

    def __init__(self, shape, frames, most_bytes, device):
        each = 4 * int(np.prod(shape))
        self.slots = min(frames, int(most_bytes // each)) if each else 0
        self.place, self.passing = {}, None         # frame -> slot; the frame in the last slot, which is not kept
        size = (self.slots + (self.slots < frames),) + tuple(shape) + (2,)
        if device.type == "cpu":
            self.kept = torch.from_numpy(block_array(size, np.int16, "spectra")).view(torch.bfloat16)
        else:
            self.kept = torch.empty(size, dtype=torch.bfloat16, device=device)

    def __contains__(self, frame):
        return frame in self.place or frame == self.passing

    def get(self, frame):
        """A frame that is there."""
        return RoundedSpectra(self.kept[self.place.get(frame, self.slots)])

    def keeps(self, frame, make):
        """Whether a frame is kept, now that it was asked for; ``make`` as for :meth:`put`."""
        if frame not in self.place and len(self.place) < self.slots:
            self.put(frame, make)
        return frame in self.place

    def several(self, frames):
        """Frames that are kept, (b, P, h, w)."""
        return RoundedSpectra(torch.stack([self.kept[self.place[f]] for f in frames]))

    def put(self, frame, make):
        """Keep the spectra of a frame if there is room, else until the next such frame; ``make(use)`` calls ``use(rows, complex (p, h, w))``."""
        slot = len(self.place)
        self.passing = None
        make(lambda rows, spectrum: self.kept[slot, rows].copy_(torch.view_as_real(spectrum)))
        if slot < self.slots:
            self.place[frame] = slot
        else:
            self.passing = frame


class RoundedSpectra:
    """Spectra in bfloat16, (P, h, w, 2) of one frame or (b, P, h, w, 2) of several; ``spectra[rows]`` widens those of a few particles: while
    they are in the cache, that costs little."""

    fresh = True

    def __init__(self, kept):
        self._kept = kept

    def __getitem__(self, rows):
        some = self._kept.index_select(-4, rows) if isinstance(rows, torch.Tensor) else self._kept[..., rows, :, :, :]
        return torch.view_as_complex(some.float())


def outside_movie(movie: MovieMetadata, particles: ParticleTable):
    """Mask (P,) of particles whose centre lies outside the movie."""
    size = np.array(movie.size_yx) * movie.original_pixel_angstrom
    position = particles.position_yx_angstrom
    return ((position < 0) | (position >= size)).any(axis=1)
