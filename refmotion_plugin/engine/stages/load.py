"""Decode one movie as a job asks for it."""
from ..movies.stack import load_movie
from .prepared import Prepared


def load_stack(movie, prepared: Prepared):
    """Frames, gain and bad pixels of a movie in host memory. Raises MovieError with the reason if it is unusable."""
    return load_movie(movie, prepared.spec.inputs, threads=prepared.threads)
