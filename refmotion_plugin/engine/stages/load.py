"""Decode one movie as a job asks for it, and what memory it may take."""
import logging
import os
import threading
from collections import OrderedDict

from refmotion_plugin.contract.spec import JobSpec

from ..maths.fourier import good_fft_size
from ..motion.correlate import Window
from ..movies.patience import patiently
from ..movies.scratch import Scratch, ScratchFrames
from ..movies.stack import load_movie
from .budget import GIB, give_back
from .memory import Load, MemoryPlan, halvings_of, is_out_of_memory, plan_memory, release, say_once
from .patches import plan_frames
from .prepared import Prepared

KEPT_BYTES = 160 * 2 ** 20     # decoded movies kept for the next stage that asks for them
KNOWN_BYTES = 64 * 2 ** 20     # lists of bad pixels kept
USUAL_PARTICLES = 300          # of a movie whose particles are not known

log = logging.getLogger(__name__)
_kept = OrderedDict()
_bad_pixels = OrderedDict()    # of the movies loaded last in this process: polishing decodes a second time, but need not search again
_bytes_per_px = {}             # file type -> what its movies were found to have
_lock = threading.Lock()


def load_stack(movie, prepared: Prepared, keep=False, n_particles=None, needed_again=False):
    """Frames, gain and bad pixels of a movie. Raises MovieError with the reason if it is unusable.

    ``needed_again``: this process will ask for the movie once more, so its decoded frames wait on the disk for temporary files if there is
    room. So they do with ``keep``; where there is no room, the movies looked at last stay in memory up to ``KEPT_BYTES``: preflight and
    calibration want the same ones, and the long run over all movies takes them over. ``n_particles`` of the movie: what they need is
    not given to its frames.
    """
    stamp = patiently(lambda: _stamp(movie.movie_file), prepared.spec.compute.read_timeout_seconds, "movie " + movie.movie_file)
    key = (movie.movie_file, stamp, repr(prepared.spec.inputs), repr(movie))
    with _lock:
        if key in _kept:
            kept = _kept[key] if keep or (needed_again and on_disk(_kept[key])) else _kept.pop(key)
            return kept.without_copies()
    plan = movie_memory(movie, n_particles or USUAL_PARTICLES, prepared)
    limit = min(KEPT_BYTES, plan.held_bytes * (2 if plan.ahead else 1))
    if keep:
        make_room(limit - plan.movie_bytes)
    give_back()         # what the last movie left behind would add to what this one needs elsewhere; it costs a hundredth of decoding
    stack = _load(movie, prepared, _bad_pixels.get(key), plan.held_bytes, keep or needed_again)
    _remember(key, movie, stack)
    if keep or on_disk(stack) and needed_again:
        with _lock:
            _kept[key] = stack.without_copies()
        make_room(limit)
    return stack


def on_disk(stack):
    """Whether a movie's decoded frames are on the disk for temporary files."""
    return isinstance(stack.frames, ScratchFrames)


def make_room(limit):
    """Forget the movies looked at longest ago until the kept ones take no more than ``limit`` bytes of memory."""
    with _lock:
        held = [key for key, stack in _kept.items() if stack.held_bytes]
        while held and sum(_kept[key].held_bytes for key in held) > limit:
            del _kept[held.pop(0)]


def _load(movie, prepared, known_bad, held_bytes, needed_again):
    """The movie, held decoded if the plan says so; decoded frame by frame if memory runs out nevertheless."""
    timeout, scratch = prepared.spec.compute.read_timeout_seconds, Scratch(int(prepared.spec.compute.scratch_gib * GIB))

    def load(most):
        return patiently(lambda: load_movie(movie, prepared.spec.inputs, threads=prepared.threads, known_bad_yx=known_bad, held_bytes=most,
                                            frame_timeout=timeout, pin=prepared.device if prepared.device.type == "cuda" else None, scratch=scratch,
                                            needed_again=needed_again), timeout, "movie " + movie.movie_file)

    try:
        return load(held_bytes)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or not held_bytes:
            raise
    release("cpu")
    log.warning("memory ran out while %s was decoded: its frames are decoded when they are needed", movie.movie_file)
    return load(0)


def _remember(key, movie, stack):
    with _lock:
        _bytes_per_px[_kind(movie)] = stack.bytes_per_px
        _bad_pixels[key] = stack.bad_yx
        while sum(yx.nbytes for yx in _bad_pixels.values()) > KNOWN_BYTES and len(_bad_pixels) > 1:
            _bad_pixels.popitem(last=False)


def room_ahead(movie, n_particles, prepared: Prepared):
    """Whether this movie may be decoded while another like it is worked on."""
    return movie_memory(movie, n_particles, prepared).ahead


def movie_memory(movie, n_particles, prepared: Prepared) -> MemoryPlan:
    """The memory plan of a movie; says it in the log, once for every kind of movie."""
    spec: JobSpec = prepared.spec
    grid = prepared.alignment_grid(movie.original_pixel_angstrom)
    band = prepared.band_per_angstrom(movie.original_pixel_angstrom)
    extent = max(r.box_px * r.pixel_angstrom for r in prepared.references)
    load = Load(size_yx=tuple(movie.size_yx), frames=len(plan_frames(movie, spec.inputs)), particles=max(1, n_particles), patch_px=grid.size_px,
                kept_px=grid.kept_px, window_px=Window.covering(spec.alignment.search_radius_angstrom, band).width,
                polished_px=spec.output.box_px or good_fft_size(round(extent / movie.original_pixel_angstrom)),
                bytes_per_px=_bytes_per_px.get(_kind(movie), 1), threads=prepared.threads)
    plan = plan_memory(prepared.budget, load, prepared.device.type, halvings_of(prepared.device))
    say_once(plan.text, load.size_yx, load.frames, load.bytes_per_px)
    return plan


def forget_stacks():
    """Free the decoded movies that were kept, those on the disk too."""
    with _lock:
        _kept.clear()


def _kind(movie):
    return os.path.splitext(movie.movie_file.lower())[1]


def _stamp(path):
    try:
        status = os.stat(path)
        return status.st_mtime_ns, status.st_size
    except OSError:
        return None     # load_movie says what is wrong with the file
