"""The floor: what no program of this kind can avoid, timed alone.

Each movie decoded once, patches cut, Fourier transformed, one weighted sum over frames, one transform back.
"""
from __future__ import annotations

import os
import time

import numpy as np
import torch

from refmotion_plugin.contract import star
from refmotion_plugin.contract.spec import InputSpec
from refmotion_plugin.engine.movies.patches import corner_for, cut_patches
from refmotion_plugin.engine.movies.stack import load_movie


def time_floor(movies, positions_yx_px, box: int, threads: int) -> dict:
    """Seconds of wall clock and CPU of the unavoidable work of movies.

    Parameters
    ----------
    movies : MovieMetadata of each movie.
    positions_yx_px : particles' centres (n, 2) in movie px, one array per movie.
    box : patch in movie px.
    threads : CPU threads of decoding and transforms.
    """
    torch.set_num_threads(threads)
    parts = dict.fromkeys(("decode", "cut", "transform", "sum", "inverse"), 0.0)
    wall, cpu = time.perf_counter(), os.times()
    for movie, positions in zip(movies, positions_yx_px):
        _one_movie(movie, positions, box, threads, parts)
    now = os.times()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": now.user + now.system - cpu.user - cpu.system,
            "movies": len(movies), "parts_s": parts, "load": os.getloadavg()[0]}


def _one_movie(movie, positions, box, threads, parts):
    """Adds the seconds of each part to ``parts``; returns the images, so that nothing is left out."""
    clock = _Clock(parts)
    stack = load_movie(movie, InputSpec(movies="", hot_pixel_sigma=0.0), threads)
    clock.lap("decode")
    corners, _ = corner_for(torch.as_tensor(np.asarray(positions), dtype=torch.float64), box)
    weight = torch.linspace(1.0, 0.2, box * (box // 2 + 1)).reshape(box, box // 2 + 1)
    total = torch.zeros((len(corners), box, box // 2 + 1), dtype=torch.complex64)
    patches = torch.empty((len(corners), box, box))
    for frame in range(stack.n_frames):
        cut_patches(stack.corrected(frame), corners, box, out=patches)
        clock.lap("cut")
        spectrum = torch.fft.rfft2(patches)
        clock.lap("transform")
        total.addcmul_(spectrum, weight.to(spectrum.dtype))
        clock.lap("sum")
    images = torch.fft.irfft2(total, s=(box, box))
    clock.lap("inverse")
    return images


class _Clock:
    def __init__(self, parts):
        self._parts, self._last = parts, time.perf_counter()

    def lap(self, name):
        now = time.perf_counter()
        self._parts[name] += now - self._last
        self._last = now


def project_floor(project, threads: int) -> dict:
    """The floor of all movies of a project."""
    micrographs, _ = star.read_corrected_micrographs(project.folder / "MotionCorr" / "corrected_micrographs.star")
    movies = [star.read_movie_metadata(m.metadata_star, m.name) for m in micrographs]
    table = star.read_particles(project.folder / project.particles(), 0, project.spec.pixel_angstrom).table
    positions = [table.position_yx_angstrom[table.micrograph == m.micrograph] / project.spec.pixel_angstrom for m in movies]
    return time_floor(movies, positions, project.spec.box, threads)
