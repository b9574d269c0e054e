"""Decode one movie as a job asks for it."""
import os
import threading
from collections import OrderedDict

from ..movies.patience import patiently
from ..movies.stack import load_movie
from .prepared import Prepared

KEPT_BYTES = 400 * 2 ** 20     # decoded movies kept for the next stage that asks for them

_kept = OrderedDict()
_bad_pixels = {}               # of every movie loaded in this process: polishing decodes a second time, but need not search again
_lock = threading.Lock()


def load_stack(movie, prepared: Prepared, keep=False):
    """Frames, gain and bad pixels of a movie in host memory. Raises MovieError with the reason if it is unusable.

    With ``keep`` the movies looked at last stay in memory up to ``KEPT_BYTES``: preflight and calibration want the same ones, and
    the long run over all movies takes them over.
    """
    key = (movie.movie_file, _stamp(movie.movie_file), repr(prepared.spec.inputs), repr(movie))
    with _lock:
        if key in _kept:
            return _kept[key] if keep else _kept.pop(key)
    stack = patiently(lambda: load_movie(movie, prepared.spec.inputs, threads=prepared.threads, known_bad_yx=_bad_pixels.get(key)),
                      prepared.spec.compute.read_timeout_seconds, "movie " + movie.movie_file)
    _bad_pixels[key] = stack.bad_yx
    if not keep:
        return stack
    with _lock:
        _kept[key] = stack
        while _kept and sum(_size(s) for s in _kept.values()) > KEPT_BYTES:
            _kept.popitem(last=False)
    return stack


def forget_stacks():
    """Free the decoded movies that were kept: the long run over all movies starts."""
    with _lock:
        _kept.clear()


def _stamp(path):
    try:
        status = os.stat(path)
        return status.st_mtime_ns, status.st_size
    except OSError:
        return None     # load_movie says what is wrong with the file


def _size(stack):
    return stack.frames.numel() * stack.frames.element_size()
