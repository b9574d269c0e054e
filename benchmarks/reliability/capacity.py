"""Where a machine with several GPUs and a parallel file system ends: a model on paper with decoding measured here and the GPU's part on a
GPU (results of gpu.py), all else assumed."""
from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from refmotion_plugin.engine.movies.readers import open_movie
from tests.unit.test_movies_writers import eer_bytes

MEASURED_FRAMES = 3
GB = 1e9
GPU_RESULTS = Path(__file__).resolve().parents[1] / "results" / "gpu-nvidia-h100-80gb-hbm3.json"


@dataclass(frozen=True)
class Detector:
    """A kind of movie. ``counts_per_px``: electrons per pixel of the file and frame (EER: and detector frame); ``like``: the case of
    gpu.py whose time on the GPU it takes."""

    name: str
    size_yx: tuple[int, int]
    frames: int
    counts_per_px: float
    like: str
    eer_grouping: int = 0
    """detector frames in a fraction; 0: not EER"""

    @property
    def frames_in_file(self) -> int:
        """What must be decoded: all detector frames of an EER movie."""
        return self.frames * max(1, self.eer_grouping)


DETECTORS = (Detector("K2, 3838 x 3710 x 40, LZW TIFF", (3710, 3838), 40, 1.1, "K2 300"),
             Detector("K3, 5760 x 4092 x 40, LZW TIFF", (4092, 5760), 40, 0.9, "K3 300"),
             Detector("K3 super-resolution, 11520 x 8184 x 48, LZW TIFF", (8184, 11520), 48, 0.2, "super-resolution 300"),
             Detector("Falcon 4 EER, 4096 x 4096 x 40 fractions of 30", (4096, 4096), 40, 0.035, "K2 300", 30))


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here. Every number is an assumption, to be replaced by those of the machine in question."""

    gpus: int = 8
    cores: int = 64
    file_system_gb_s: float = 5.0
    pcie_gb_s: float = 20.0
    gpu_speed: float = 1.0
    """of each GPU, in units of the one that was measured"""
    cpu_besides: float = 0.5
    """other CPU work of a movie, as a share of its decoding"""
    decodes: float = 1.1
    """times a movie is decoded: once, and the few that the dose weights rest on twice"""


def measure(detector: Detector) -> tuple[float, float]:
    """(bytes in the file, CPU seconds of decoding) of one frame of the file, of synthetic counts, on one core."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("m.eer" if detector.eer_grouping else "m.tif")
        if detector.eer_grouping:
            path.write_bytes(eer_bytes([_events(detector, rng)] * MEASURED_FRAMES, detector.size_yx))
        else:
            for _ in range(MEASURED_FRAMES):
                frame = rng.poisson(detector.counts_per_px, detector.size_yx).astype(np.uint8)
                tifffile.imwrite(path, frame, append=path.exists(), compression="lzw", contiguous=False)
        seconds = []
        with open_movie(path, eer_grouping=1) as reader:
            reader.frame(0)                                         # libraries are loaded, the file is in memory
            for index in range(MEASURED_FRAMES):
                begin = time.process_time()
                reader.frame(index)
                seconds.append(time.process_time() - begin)
        return path.stat().st_size / MEASURED_FRAMES, min(seconds)


def _events(detector, rng):
    n_pixels = detector.size_yx[0] * detector.size_yx[1]
    pixels = np.flatnonzero(rng.random(n_pixels, np.float32) < detector.counts_per_px)
    return list(zip(pixels.tolist(), *(rng.integers(0, 4, (2, len(pixels))).tolist())))


def seconds_per_movie(detector: Detector, measured: tuple[float, float], given: Assumptions) -> dict[str, float]:
    """What each part of the machine needs for a movie, all of its kind working together; the largest decides."""
    stored, decode = (value * detector.frames_in_file * given.decodes for value in measured)
    raw = detector.size_yx[0] * detector.size_yx[1] * detector.frames * given.decodes
    on_gpu = json.loads(GPU_RESULTS.read_text())["cases"][detector.like]["seconds"]
    return {"file system": stored / (given.file_system_gb_s * GB), "CPU": decode * (1.0 + given.cpu_besides) / given.cores,
            "transfer to the GPUs": raw / (given.pcie_gb_s * GB) / given.gpus,
            "GPU": (on_gpu["align"] + on_gpu["polish"]) / given.gpu_speed / given.gpus}


def rows(given: Assumptions, say) -> tuple[list[list], dict]:
    """Rows of the table, and the numbers behind them."""
    table, values = [], {}
    for detector in DETECTORS:
        measured = measure(detector)
        say(f"{detector.name}: {measured[0] / 1e6:.1f} MB and {measured[1]:.3f} s of one core per frame of the file")
        seconds = seconds_per_movie(detector, measured, given)
        slowest = max(seconds, key=seconds.get)
        busy = {name: value / seconds[slowest] for name, value in seconds.items()}
        table.append([detector.name, measured[0] * detector.frames_in_file / GB, measured[1] * detector.frames_in_file,
                      *seconds.values(), round(3600.0 / seconds[slowest]), slowest,
                      ", ".join(f"{name} {100 * share:.0f} %" for name, share in busy.items() if name != slowest)])
        values[detector.name] = {"bytes_per_frame": measured[0], "decode_seconds_per_frame": measured[1], "seconds": seconds}
    return table, values


HEADER = ["movie", "file, GB", "decoding, s of one core", "file system, s", "CPU, s", "transfer, s", "GPU, s", "movies per hour",
          "what saturates first", "how busy the rest is then"]
