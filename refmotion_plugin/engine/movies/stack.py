"""A movie: decoded once and held in memory or on a disk, or frame by frame; corrected frame by frame where it is needed."""
import logging
import math
from dataclasses import dataclass, field, replace
from typing import Optional, Union

import numpy as np
import torch

from refmotion_plugin.contract.errors import MovieError

from .buffers import block_array
from .defects import Replacement, find_outliers, plan_replacement, read_defects
from .doubts import warn_of_counts, warn_of_flat_frames
from .frames import sound_frame, torch_type
from .gain import load_gain
from .parallel import each
from .readers import open_movie
from .scratch import ScratchError, ScratchFrames
from .streamed import StreamedFrames
from .total import sum_frames
from .upload import Uploader

MOST_WAITING = 0.08     # share of the threads' time that they wait for the last ones of a movie
MOST_BANDS = 4          # that a frame is cut into to that end

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MovieStack:
    """Frames as they were recorded, turned as the convention says, and what corrects them.

    ``frames`` (frame, H, W) on the host in the file's type (uint16 becomes int16 where all values fit, else int32), or
    :class:`StreamedFrames` or :class:`ScratchFrames`; ``bytes_per_px`` of the file's type, and whether it is of ``whole_numbers``;
    ``gain`` (H, W) float32 or None; ``bad_yx`` (m, 2) int64; ``first_frame``: 0-based index of frame 0 of this stack among
    the frames as aligned upstream (in fractions of this stack for EER).
    """

    name: str
    frames: Union[torch.Tensor, StreamedFrames, ScratchFrames]
    gain: Optional[torch.Tensor]
    bad_yx: np.ndarray
    replacement: Optional[Replacement]
    pixel_angstrom: float
    first_frame: int
    bytes_per_px: int = 1
    whole_numbers: bool = False
    _on_device: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def n_frames(self):
        """Number of frames."""
        return self.frames.shape[0]

    @property
    def shape_yx(self):
        """(height, width) in movie px."""
        return tuple(self.frames.shape[1:])

    @property
    def held_bytes(self):
        """Host memory its decoded frames take."""
        return self.frames.nbytes if isinstance(self.frames, torch.Tensor) else 0

    def without_copies(self):
        """The same movie without what was copied to devices: that is freed with the stack it was made for, while the frames wait for a later stage."""
        return replace(self, _on_device={})

    def forget_copies(self):
        """Give up what was copied to devices; it is copied again when it is asked for."""
        self._on_device.clear()

    def corrected(self, f, device="cpu", out=None):
        """Frame ``f`` (0-based in this stack) times gain with bad pixels replaced: (H, W) float32 on ``device``.

        ``out`` (H, W) float32 on ``device`` is overwritten and returned, if given: on CPU, fresh memory for every frame
        costs more than the arithmetic. A bad pixel takes the value of a good neighbour drawn at random, seeded by the movie's
        name and the frame, so that every device and every run sees the same frame.
        """
        device = torch.device(device)
        frame = torch.empty(self.shape_yx, dtype=torch.float32, device=device) if out is None else out
        frame.copy_(self.recorded(f, device))   # moved in its narrow type, widened there
        gain = self._gain_on(device)
        if gain is not None:
            frame.mul_(gain)   # after the copy: a product of mixed types is three times slower
        return self._replace_bad(frame, f)

    def to_cut(self, f, device="cpu", out=None):
        """Frame ``f`` for cutting patches: :meth:`corrected`, or the same values still as whole numbers where nothing scales them.

        These are a quarter of the bytes to pass over; patches are widened after they were cut. Not to be written to.
        """
        if self.gain is not None or not self.whole_numbers:
            return self.corrected(f, device, out)
        frame = self.recorded(f, device)
        return frame if self.replacement is None else self._replace_bad(frame.clone(), f)

    def _replace_bad(self, frame, f):
        if self.replacement is not None:
            flat = frame.view(-1)
            chosen = self.replacement.draw(self.name, self.first_frame + f)
            flat[self._on(frame.device, "target", self.replacement.target)] = flat[chosen.to(frame.device, non_blocking=True)]
        return frame

    def expect(self, f, device):
        """Frame ``f`` will be asked for next on ``device``: a GPU may begin to copy it."""
        if torch.device(device).type == "cuda":
            self._uploader(torch.device(device)).send(f)

    def keep_on(self, device, most_bytes):
        """A GPU may keep that many bytes of frames once they have been copied to it."""
        if torch.device(device).type == "cuda":
            self._uploader(torch.device(device)).room = most_bytes

    def recorded(self, f, device="cpu"):
        """Frame ``f`` (H, W) as it was recorded, in its narrow type. Not to be written to."""
        device = torch.device(device)
        return self.frames[f] if device.type == "cpu" else self._uploader(device).take(f)

    def _uploader(self, device):
        if (device, "uploader") not in self._on_device:
            self._on_device[device, "uploader"] = Uploader(self.frames, device)
        return self._on_device[device, "uploader"]

    def _gain_on(self, device):
        return None if self.gain is None else self._on(device, "gain", self.gain)

    def _on(self, device, name, tensor):
        """A tensor of this movie on a device, moved there once."""
        if device.type == "cpu":
            return tensor
        if (device, name) not in self._on_device:
            self._on_device[device, name] = tensor.to(device)
        return self._on_device[device, name]


def load_movie(metadata, inputs, threads=1, known_bad_yx=None, held_bytes=math.inf, frame_timeout=0, pin=None,
               scratch=None, needed_again=False):
    """Decode a movie once and prepare its correction.

    Parameters
    ----------
    metadata : MovieMetadata, what upstream motion correction said of the movie.
    inputs : InputSpec, how to read movies.
    threads : of decoding and of the search for bad pixels.
    known_bad_yx : ``bad_yx`` of an earlier load of the same movie with the same inputs, which saves looking for them again.
    held_bytes : a movie that decodes to more is not held: its frames are decoded whenever they are asked for,
        each given up after ``frame_timeout`` seconds (0: never).
    pin : GPU (torch.device) for which held frames are kept in memory that it copies from without the host's help.
    scratch : :class:`Scratch` for the frames of a movie that is not held, or of one that is ``needed_again`` later; where it has no room,
        and with none, the movie is held or decoded anew.

    Returns
    -------
    MovieStack

    Raises
    ------
    MovieError
        The movie cannot be read, has fewer frames or another shape than upstream, or gain or defects do not fit.
    """
    grouping, upsampling = _eer_grid(metadata, inputs)
    how = grouping, upsampling, metadata.size_yx
    with open_movie(metadata.movie_file, *how) as reader:
        if reader.shape_yx != tuple(metadata.size_yx):
            raise MovieError("movie %s has frames of %d x %d px and its STAR file says %d x %d px: give the movie that was aligned"
                             % (metadata.movie_file, *reader.shape_yx[::-1], *tuple(metadata.size_yx)[::-1]))
        first_of_file, n_aligned = _aligned_range(metadata, reader, grouping)
        first, last = _requested_range(metadata, inputs, n_aligned)
        turn_tiff = inputs.movie_flip_y is not False
        upside_down = reader.file_is_upside_down if inputs.movie_flip_y is None else inputs.movie_flip_y
        gain = _gain(metadata, inputs, reader, turn_tiff)
        listed = _listed_bad_pixels(metadata, inputs, reader.shape_yx, gain, turn_tiff)
        place = first_of_file + first, last - first, upside_down, threads
        want_total = inputs.hot_pixel_sigma > 0 and known_bad_yx is None
        held = (last - first) * reader.dtype.itemsize * math.prod(reader.shape_yx) <= held_bytes
        frames = _decode_to_scratch(reader, *place, scratch) if scratch is not None and (needed_again or not held) else None
        if frames is None and held:
            frames = _decode(reader, *place, pin)
        bytes_per_px, whole_numbers = reader.dtype.itemsize, reader.dtype.kind in "iu"
    if frames is None:
        frames = StreamedFrames(open_movie(metadata.movie_file, *how), *place, frame_timeout)
    if known_bad_yx is None:
        warn_of_flat_frames(metadata.movie_file, frames, place[0])
    else:
        listed = known_bad_yx
    if want_total:
        total = sum_frames(frames, threads, None if gain is None else gain.multiplier)
        warn_of_counts(metadata, total, len(frames), grouping, whole_numbers)
        listed = _unique(np.concatenate([listed, find_outliers(total, inputs.hot_pixel_sigma, listed, threads)]), frames.shape[1:])
    if isinstance(frames, np.ndarray):
        frames = torch.from_numpy(torch_type(frames, threads))
    return MovieStack(name=metadata.micrograph, frames=frames, gain=None if gain is None else gain.multiplier, bad_yx=listed,
                      replacement=plan_replacement(listed, tuple(frames.shape[1:])) if len(listed) else None,
                      pixel_angstrom=metadata.original_pixel_angstrom, first_frame=first, bytes_per_px=bytes_per_px, whole_numbers=whole_numbers)


def _eer_grid(metadata, inputs):
    """Grouping and upsampling for EER, (None, 1) else."""
    if not metadata.movie_file.lower().endswith(".eer"):
        return None, 1
    grouping = inputs.eer_grouping or metadata.eer_grouping
    if grouping is None:
        raise MovieError("movie %s is EER and nothing says how many detector frames make a fraction: give the EER grouping"
                         % metadata.movie_file)
    return grouping, metadata.eer_upsampling or 1


def _aligned_range(metadata, reader, grouping):
    """First frame of the file (0-based) and number of frames that upstream aligned, in frames of the reader.

    With an EER grouping other than upstream's, the same stretch of detector frames is cut into other fractions.
    """
    first, n_frames = metadata.start_frame - 1, metadata.n_frames
    upstream = (metadata.eer_grouping or grouping) if reader.is_eer else 1
    if first + n_frames > reader.n_detector_frames // upstream:
        raise MovieError("movie %s has %d frames and upstream motion correction used frames %d to %d (%d frames): the file is "
                         "incomplete or not the one that was aligned"
                         % (metadata.movie_file, reader.n_detector_frames // upstream, first + 1, first + n_frames, n_frames))
    if reader.is_eer and upstream != grouping:
        start, end = first * upstream, (first + n_frames) * upstream
        first = -(-start // grouping)
        n_frames = end // grouping - first
    if first == 0 and n_frames < reader.n_frames:
        log.info("movie %s: upstream used the first %d of %d frames", metadata.movie_file, n_frames, reader.n_frames)
    return first, n_frames


def _requested_range(metadata, inputs, n_aligned):
    """0-based half-open range among the aligned frames."""
    first, last = inputs.first_frame - 1, n_aligned if inputs.last_frame == -1 else inputs.last_frame
    if not first < last <= n_aligned:
        raise MovieError("frames %d to %d of movie %s were asked for and it has %d aligned frames: check first and last frame"
                         % (inputs.first_frame, last, metadata.movie_file, n_aligned))
    return first, last


def _gain(metadata, inputs, reader, turn_tiff):
    path = inputs.gain or metadata.gain_file
    if not path:
        return None
    return load_gain(path, reader.shape_yx, inputs.gain_rotation, inputs.gain_flip, reader.is_eer, turn_tiff)


def _listed_bad_pixels(metadata, inputs, shape_yx, gain, turn_tiff):
    """Bad pixels known before the data are seen: hot pixels of the STAR file, defect file, zeros of the gain."""
    parts = [np.zeros((0, 2), np.int64)]
    if metadata.hot_pixels_xy is not None and len(metadata.hot_pixels_xy):
        parts.append(np.asarray(metadata.hot_pixels_xy, dtype=np.int64)[:, ::-1])
    defects = inputs.defects or metadata.defect_file
    if defects:
        parts.append(read_defects(defects, shape_yx, turn_tiff))
    if gain is not None:
        parts.append(gain.bad_yx)
    return _unique(np.concatenate(parts), shape_yx)


def _unique(yx, shape_yx):
    """Sorted pixels inside the frame, each once."""
    inside = ((yx >= 0) & (yx < np.asarray(shape_yx))).all(axis=1)
    flat = np.unique(yx[inside, 0] * shape_yx[1] + yx[inside, 1])
    return np.stack(np.divmod(flat, shape_yx[1]), axis=1).astype(np.int64)


def _decode(reader, first, n_frames, upside_down, threads, pin=None):
    """Frames (frame, H, W) in memory."""
    stack = block_array((n_frames,) + reader.shape_yx, reader.dtype, "decoded movies", pin)
    threads = threads if reader.concurrent else 1
    parts = [(f, rows) for f in range(n_frames) for rows in _bands(reader, n_frames, threads)]
    each(lambda part: sound_frame(reader, first + part[0], upside_down, stack[part[0]], part[1]), parts, threads)
    return stack


def _bands(reader, n_frames, threads):
    """Rows that a thread decodes at a time: [None], all of a frame, unless many threads would then wait for the last frames."""
    waiting = lambda parts: -(-n_frames * parts // threads) * threads / (n_frames * parts) - 1          # in units of the whole work
    parts = next((n for n in range(1, MOST_BANDS) if waiting(n) <= MOST_WAITING), MOST_BANDS)
    return reader.bands(parts) if parts > 1 else [None]


def _decode_to_scratch(reader, first, n_frames, upside_down, threads, scratch):
    """:class:`ScratchFrames`; None where there is no room for them."""
    frames = scratch.frames((n_frames,) + reader.shape_yx, reader.dtype)
    if frames is None:
        return None
    threads = threads if reader.concurrent else 1
    spare = [np.empty(reader.shape_yx, reader.dtype) for _ in range(threads)]      # used again: fresh memory costs as much as writing

    def decode(f):
        frame = spare.pop()
        try:
            frames.write(f, sound_frame(reader, first + f, upside_down, frame))
        finally:
            spare.append(frame)

    try:
        each(decode, range(n_frames), threads)
    except ScratchError as error:
        log.warning("the frames of %s are not kept in %s: %s", reader.path, scratch.folder, error)
        return None
    return frames
