"""What a movie is worked on with: how many particles at a time, what is kept between passes, whether its frames are held decoded.

Nothing of this changes results. What does not fit after all is answered with half as many particles at a time.
"""
import functools
import gc
import inspect
import logging
import os
from dataclasses import dataclass, replace

import torch

from refmotion_plugin.contract.errors import MovieError

from ..exhausted import memory_ran_out
from ..maths.lanes import larger
from ..movies.buffers import free_blocks
from .budget import GIB, Budget, give_back

CHUNK_BYTES = {"cpu": 8 * 2 ** 20, "cuda": 2 ** 30}     # of patches and their transforms at a time: few times the cache of each core, or enough to fill a GPU
DECODED_BESIDES = 2              # frames of decoded movies, besides those in decoding
IN_DECODING = 1.5                # frames of each decoding thread: one, and its compressed bytes
AVERAGING_FRAMES = 10           # float frames that averaging holds as sums, transforms and copies
MOST_CHUNK_SHARE = 1 / 8        # of the room

log = logging.getLogger(__name__)
_halvings = {}                  # device -> how often its memory was too small in this process
_said = set()


@dataclass(frozen=True)
class MemoryPlan:
    """How one movie is worked on.

    ``particles_cut``: patches of a frame cut and transformed at a time; ``particles_summed``: polished at a time; ``cache_bytes``: spectra
    kept between passes; ``held_bytes``: a movie that decodes to no more is held, unless it is needed again later; of a larger one the frames wait on a disk or are decoded anew in each pass; ``ahead``:
    the next movie is decoded meanwhile. ``movie_bytes`` of the movie itself, as far as its type is known;
    ``frames_on_device_bytes``: frames a GPU keeps from one pass to the next; ``frames_together``: whose spectra are worked on at once.
    """

    particles_cut: int
    particles_summed: int
    cache_bytes: int
    held_bytes: int
    ahead: bool
    movie_bytes: int = 0
    frames_on_device_bytes: int = 0
    frames_together: int = 1
    text: str = ""


@dataclass(frozen=True)
class Load:
    """What there is to do for one movie: sizes alone."""

    size_yx: tuple
    frames: int
    particles: int
    patch_px: int
    kept_px: int
    window_px: int
    polished_px: int
    bytes_per_px: int = 1
    threads: int = 1

    @property
    def movie_bytes(self):
        """The decoded movie."""
        return self.frames * self.size_yx[0] * self.size_yx[1] * self.bytes_per_px

    @property
    def frame_bytes(self):
        """One corrected frame, float32."""
        return 4 * self.size_yx[0] * self.size_yx[1]

    @property
    def decoding_bytes(self):
        """Frames that are being decoded."""
        return int((DECODED_BESIDES + IN_DECODING * min(self.threads, self.frames)) * self.size_yx[0] * self.size_yx[1] * self.bytes_per_px)

    @property
    def searching_bytes(self):
        """Sums over frames while bad pixels are looked for."""
        return 3 * self.frame_bytes

    @property
    def spectrum_bytes(self):
        """One patch's spectrum inside the band."""
        return 8 * self.kept_px * (self.kept_px // 2 + 1)

    @property
    def cache_bytes(self):
        """All spectra of the movie."""
        return self.frames * self.particles * self.spectrum_bytes // 2      # kept in half precision

    @property
    def cut_bytes(self):
        """One patch while it is cut and transformed: values, half spectrum and the transform's own copy."""
        return 12 * max(self.patch_px, self.polished_px) ** 2

    @property
    def together_bytes(self):
        """A frame's spectra while they are worked on with those of others: in half precision, widened, their product and its factors."""
        return 3 * self.particles * self.spectrum_bytes

    @property
    def fixed_bytes(self):
        """What an alignment needs whatever the batch: frame and gain, predictions, a frame's spectra, maps, prior and fit."""
        p, f = self.particles, self.frames
        fit = 8 * (6 * p * f * f + 3 * p * p + 3 * p * f * self.kept_px // 2)
        return 2 * self.frame_bytes + 7 * p * self.spectrum_bytes + 4 * p * f * self.window_px ** 2 + fit

    @property
    def polished_bytes(self):
        """One particle's sum, image and their copies."""
        return 24 * self.polished_px ** 2


def plan_memory(budget: Budget, load: Load, device_type="cpu", halvings=0):
    """The :class:`MemoryPlan` of a movie.

    What is kept goes by what it saves: spectra first (a pass of transforms each time), then the decoded movie (one decode more), then
    the next one. On a GPU, spectra are the device's and frames the host's.
    """
    on_host = budget.device is None
    room = (budget.host_room - load.decoding_bytes if on_host else budget.device) - load.fixed_bytes
    most = larger(CHUNK_BYTES["cpu"], load.threads) * load.threads if device_type == "cpu" else CHUNK_BYTES["cuda"]
    chunk = min(most, max(0, room) * MOST_CHUNK_SHARE)
    cut = _at_a_time(chunk, load.cut_bytes, load.particles, halvings)
    together = 1 if device_type == "cpu" else max(1, min(load.frames, int(chunk / load.together_bytes)) >> halvings)
    room -= max(cut * load.cut_bytes, (together > 1) * together * load.together_bytes)
    cache = int(min(max(0, room), load.cache_bytes)) >> halvings
    host = room - cache if on_host else budget.host_room - load.frame_bytes - load.decoding_bytes
    ahead = 2 * load.movie_bytes + load.searching_bytes <= host
    held = int(max(0, host) / (2 if ahead else 1))
    kept = 0 if load.movie_bytes > held else load.movie_bytes * (2 if ahead else 1)
    summed = (budget.host_room - kept - load.decoding_bytes if on_host else budget.device - min(max(0, room - cache), load.movie_bytes)) - 2 * load.frame_bytes - cut * load.cut_bytes
    plan = MemoryPlan(cut, _at_a_time(max(0, summed) / 2, load.polished_bytes, load.particles, halvings), cache, held, ahead)
    spare = 0 if on_host else int(max(0, room - cache)) >> halvings
    return replace(plan, movie_bytes=load.movie_bytes, frames_together=together, frames_on_device_bytes=min(spare, load.movie_bytes), text=_sentence(budget, load, plan))


def plan_averaging(budget: Budget, size_yx, frames, threads=1):
    """The plan of a movie that is averaged: there are only frames and sums of their transforms."""
    load = Load(size_yx=size_yx, frames=frames, particles=0, patch_px=0, kept_px=0, window_px=0, polished_px=0, threads=threads)
    return plan_memory(replace(budget, program=budget.program + AVERAGING_FRAMES * load.frame_bytes, device=None), load)


def _at_a_time(room, each, particles, halvings):
    return max(1, min(particles, int(room / max(each, 1))) >> halvings)


def _sentence(budget, load, plan):
    gib = lambda size: "%.2f GiB" % (size / GIB)
    where = gib(budget.host) + (" of the host" if budget.device is None else " of the host and %s of the GPU" % gib(budget.device))
    share = min(1.0, plan.cache_bytes / max(1, load.cache_bytes))
    held = ("are held decoded" + (", the next one too" if plan.ahead else "") if load.movie_bytes <= plan.held_bytes
            else "do not fit: their frames wait on the disk for temporary files or are decoded anew in each pass")
    return ("memory: %s (%s), %s taken by the program; movies of %d x %d px x %d frames (%s as counts of one byte) %s; %.0f %% of the spectra (%s) kept "
            "between passes; %d of %d particles transformed at a time" % (
                where, budget.source, gib(budget.program), load.size_yx[1], load.size_yx[0], load.frames, gib(load.movie_bytes), held,
                100 * share, gib(load.cache_bytes), plan.particles_cut, load.particles))


def say_once(text, *key):
    """One line in the log for every kind of movie."""
    if key not in _said:
        _said.add(key)
        log.info(text)


# ---- out of memory ----------------------------------------------------------------------------------------------------------

def halvings_of(device):
    """How often the batch was halved on a device so far; the next movies begin there."""
    return _halvings.get(str(device), 0)


def is_out_of_memory(error):
    """Whether an error says that memory ran out: Python's, numpy's, torch's on the CPU and on a GPU."""
    return isinstance(error, (MemoryError, RuntimeError)) and memory_ran_out(error)


def within_memory(work):
    """``work(movie, particles, …, prepared, …)`` again with half as many particles at a time whenever memory runs out.

    MovieError when one particle at a time does not fit either: the following movies begin where this one did. Results do not depend on
    how often it was halved.
    """
    names = inspect.signature(work)

    @functools.wraps(work)
    def careful(*args, **kwargs):
        """``work`` until it fits."""
        given = names.bind(*args, **kwargs).arguments
        movie, particles, device = given["movie"], given["particles"], str(given["prepared"].device)
        before = halvings_of(device)
        while True:
            try:
                return work(*args, **kwargs)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            if given.get("stack") is not None:
                given["stack"].forget_copies()
            release(device)         # after the handler: the error's traceback holds what is to be freed
            if len(particles) >> halvings_of(device) < 1:
                _halvings[device] = before      # it did not help this movie: the others are not to pay for it
                raise MovieError("%s does not fit into the memory of %s, not even one particle at a time (%s): use a device with more "
                                 "memory, or fewer programs on this one" % (movie.micrograph, called(device), reason))
            _halvings[device] = halvings_of(device) + 1
            log.warning("memory ran out on %s in %s (%s): again with 1/%d of the particles at a time", called(device), movie.micrograph, reason,
                        2 ** _halvings[device])

    return careful


def called(device):
    """A device's name for the log. A worker process sees its own GPU as ``cuda:0``, whichever it is: what makes it so is named too."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "%s (CUDA_VISIBLE_DEVICES=%s)" % (device, seen) if seen and str(device) != "cpu" else str(device)


def release(device):
    """Give back what is no longer needed: blocks kept for a next movie, and plans of transforms, too."""
    gc.collect()
    free_blocks()
    give_back()
    if str(device).startswith("cuda") and torch.cuda.is_available():
        torch.backends.cuda.cufft_plan_cache[device].clear()
        torch.cuda.empty_cache()
