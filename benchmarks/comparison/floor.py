"""The floor: what no program of this kind can avoid, timed alone.

Each movie decoded once, patches cut, Fourier transformed, one weighted sum over frames, one transform back; with the engine's own
readers, and a few patches at a time so that they stay in the cache. Whoever cuts patches along the input motion to find the true one, and
anew along that to sum them, cuts and transforms twice: the *floor of two transforms* is this floor with both counted twice.
"""
from __future__ import annotations

import os
import time

import numpy as np
import torch

from refmotion_plugin.contract import star
from refmotion_plugin.contract.spec import InputSpec
from refmotion_plugin.engine.maths.fourier import CACHE_BYTES
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
    names = "decode", "cut", "transform", "sum", "inverse"
    parts, parts_cpu = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    wall, cpu = time.perf_counter(), os.times()
    for movie, positions in zip(movies, positions_yx_px):
        _one_movie(movie, positions, box, threads, _Clock(parts, parts_cpu))
    now = os.times()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": now.user + now.system - cpu.user - cpu.system,
            "movies": len(movies), "parts_s": parts, "parts_cpu_s": parts_cpu, "load": os.getloadavg()[0]}


def _one_movie(movie, positions, box, threads, clock):
    """Tells ``clock`` the parts; returns the images, so that nothing is left out."""
    stack = load_movie(movie, InputSpec(movies="", hot_pixel_sigma=0.0), threads)
    clock.lap("decode")
    corners, _ = corner_for(torch.as_tensor(np.asarray(positions), dtype=torch.float64), box)
    weight = torch.linspace(1.0, 0.2, box * (box // 2 + 1)).reshape(box, box // 2 + 1)
    total = torch.zeros((len(corners), box, box // 2 + 1), dtype=torch.complex64)
    weight = weight.to(total.dtype)
    step = max(2, threads * CACHE_BYTES // (total[0].numel() * 8))
    parts = [slice(begin, begin + step) for begin in range(0, len(corners), step)]
    for frame in range(stack.n_frames):
        pixels = stack.to_cut(frame)
        for part in parts:
            patches = cut_patches(pixels, corners[part], box)
            clock.lap("cut")
            spectrum = torch.fft.rfft2(patches)
            clock.lap("transform")
            total[part].addcmul_(spectrum, weight)
            clock.lap("sum")
    images = torch.fft.irfft2(total, s=(box, box))
    clock.lap("inverse")
    return images


class _Clock:
    """Seconds of wall clock and of CPU since the last lap, added to the lap's part."""

    def __init__(self, parts, parts_cpu):
        self._parts, self._parts_cpu = parts, parts_cpu
        self._last = time.perf_counter(), time.process_time()

    def lap(self, name):
        now = time.perf_counter(), time.process_time()
        self._parts[name] += now[0] - self._last[0]
        self._parts_cpu[name] += now[1] - self._last[1]
        self._last = now


def second_pass(parts: dict) -> float:
    """Seconds of a second cut and transform: motion is not known when patches are cut to find it."""
    return parts["cut"] + parts["transform"]


def project_floor(project, threads: int) -> dict:
    """The floor of all movies of a project."""
    micrographs, _ = star.read_corrected_micrographs(project.folder / "MotionCorr" / "corrected_micrographs.star")
    movies = [star.read_movie_metadata(m.metadata_star, m.name) for m in micrographs]
    table = star.read_particles(project.folder / project.particles(), 0, project.spec.pixel_angstrom).table
    positions = [table.position_yx_angstrom[table.micrograph == m.micrograph] / project.spec.pixel_angstrom for m in movies]
    return time_floor(movies, positions, project.spec.box, threads)
