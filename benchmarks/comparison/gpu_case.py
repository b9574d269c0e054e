"""One size of movie on one device: rates of decoding, copying and memory, times of the stages, and the floor they are held against."""
from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from refmotion_plugin.contract import star
from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.contract.store import save_weights
from refmotion_plugin.engine.movies.stack import load_movie
from refmotion_plugin.engine.run.devices import set_threads
from refmotion_plugin.engine.stages.align import align_movie, view_movie
from refmotion_plugin.engine.stages.calibrate import calibrate
from refmotion_plugin.engine.stages.polish import output_boxes, polish_movie
from refmotion_plugin.engine.stages.prepared import prepare

from .gpu_profile import profile_work
from .mosaic import Mosaic

ENGINE = Path(__file__).resolve().parents[2] / "refmotion_plugin" / "start_engine.py"
REPEATS = 3


def timed(work, device: torch.device, repeats: int = REPEATS):
    """(median seconds between two events of the device, last result) after one unmeasured call."""
    work()
    seconds, result = [], None
    for _ in range(repeats):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            result = work()
            end.record()
            torch.cuda.synchronize(device)
            seconds.append(begin.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            result = work()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def device_rates(device: torch.device, size: int) -> dict:
    """Bytes per second: memory traffic (read and written) of a copy on the device, and copies from the host, pageable and pinned."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    seconds, _ = timed(lambda: target.copy_(source), device, 10)
    rates = {"memory traffic": 2 * size / seconds}
    if device.type == "cuda":
        for name, host in (("copy, pageable", torch.ones(size // 4)), ("copy, pinned", torch.ones(size // 4).pin_memory())):
            seconds, _ = timed(lambda host=host: target.copy_(host, non_blocking=True), device, 5)
            rates[name] = size / seconds
    return rates


def traffic_bytes(size_yx, frames: int, particles: int, patch: int, kept: int, polished: int) -> int:
    """Bytes that must pass through the device's memory for one movie, each datum read and written once where it is made anew.

    Frames arrive (1 B per px) and are read for cutting twice, by alignment and polishing. Patches (4 B per px) are written, read by the
    transform, and their half spectra (8 B) written; alignment reads them cropped to the band for the correlation and for the FCC;
    polishing reads them whole and reads and writes its sums once a frame.
    """
    half = lambda n: 8 * n * (n // 2 + 1)
    pixels = size_yx[0] * size_yx[1]
    align = 4 * patch ** 2 * 2 + half(patch) * 2 + half(kept) * 3
    polish = 4 * polished ** 2 * 2 + half(polished) * 2 + half(polished) * 2
    return frames * (3 * pixels + particles * (align + polish))


@dataclasses.dataclass
class Camera:
    """A project of large movies on a device; its job is prepared and calibrated, and a movie decoded, once for all numbers of particles."""

    mosaic: Mosaic
    most_particles: int
    device: torch.device
    threads: int
    rates: dict

    def __post_init__(self):
        set_threads(self.threads)
        spec = self._spec()
        movies = [star.read_movie_metadata(m.metadata_star, m.name) for m in star.read_corrected_micrographs(spec.inputs.movies)[0]]
        self.movie = movies[0]
        self.particles = star.read_particles(spec.references[0].particles, 0, self.movie.original_pixel_angstrom * self.movie.binning).table
        self.job = calibrate(movies[:2], self._first_of(100), prepare(spec, [self._particle_set(spec)], self.device, self.threads))
        start = time.perf_counter()
        self._decode()          # not kept: the next one is decoded to the same memory, as in a job
        self.decode_first_s = time.perf_counter() - start
        start = time.perf_counter()
        self.stack = self._decode()
        self.decode_s = time.perf_counter() - start

    def measure(self, count: int) -> dict:
        """All numbers with so many particles per movie but those of the whole command."""
        numbers = self._stages(count) | {"decode_only_per_hour": 3600 / self.decode_s}
        numbers["device_part_over_floor"] = (numbers["seconds"]["align"] + numbers["seconds"]["polish"]) / numbers["floor_s"]
        numbers["commands"] = {}
        return numbers

    def profile(self, count: int) -> str:
        """What the device does for one decoded movie: see :mod:`.gpu_profile`."""
        particles, weights, aligned = self._first_of(count)(self.movie), exposure_weights(self.movie), []
        texts = [profile_work(lambda: aligned.append(align_movie(self.movie, particles, self.job, self.stack)), self.device),
                 profile_work(lambda: polish_movie(self.movie, particles, aligned[-1].trajectories, weights, self.job, self.stack), self.device)]
        return "\n\n".join(f"{name}: {text}" for name, text in zip(("align", "polish"), texts))

    def _decode(self):
        return load_movie(self.movie, self.job.spec.inputs, threads=self.threads, pin=self.device if self.device.type == "cuda" else None)

    def _first_of(self, count):
        """The first particles of a movie: those of the list with so many in each."""
        return lambda movie: self.particles[np.flatnonzero(self.particles.micrograph == movie.micrograph)[:count]]

    def _particle_set(self, spec):
        return star.read_particles(spec.references[0].particles, 0, self.movie.original_pixel_angstrom * self.movie.binning)

    def _spec(self):
        options = dict(zip(*[iter(self.mosaic.command(self.most_particles))] * 2))
        reference = {name: options[f"--{name}"] for name in ("particles", "half1", "half2", "mask")}
        return JobSpec.build({"inputs": {"movies": options["--movies"]}, "references": [reference],
                              "compute": {"device": str(self.device), "threads": self.threads}})

    def _stages(self, count) -> dict:
        """Seconds of each stage of one decoded movie, most memory of the device, and the floor."""
        movie, job, stack, particles = self.movie, self.job, self.stack.without_copies(), self._first_of(count)(self.movie)
        seconds, weights = {"decode, first time": self.decode_first_s, "decode": self.decode_s}, exposure_weights(movie)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds["frames to the device"], _ = timed(lambda: [bool(stack.corrected(f, self.device).numel()) for f in range(stack.n_frames)], self.device)
        view = view_movie(movie, particles, job, stack)
        seconds["cut and transform"], _ = timed(lambda: [view.spectra.each_part(f, lambda part, spectrum: None) for f in range(stack.n_frames)], self.device)
        seconds["align"], aligned = timed(lambda: align_movie(movie, particles, job, stack), self.device)
        seconds["polish"], _ = timed(lambda: polish_movie(movie, particles, aligned.trajectories, weights, job, stack), self.device)
        box = output_boxes(job, 0, movie.original_pixel_angstrom)[0]
        traffic = traffic_bytes(self.mosaic.size_yx, self.mosaic.frames, count, view.grid.size_px, view.grid.kept_px, box)
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return {"seconds": seconds, "traffic_bytes": traffic, "floor_s": traffic / self.rates["memory traffic"], "peak_device_bytes": peak,
                "stop_reason": aligned.trajectories.stop_reason}

    def command(self, count: int, folder: Path, per_gpu: int) -> dict:
        """Seconds per movie of the whole command once it is under way: aligned and polished in one decode, with given weights.

        ``folder`` for the job; ``per_gpu``: movies at a time on the device, 0: as many as the command takes by itself.
        """
        out = folder / f"job_{count}_{per_gpu}"
        shutil.rmtree(out, ignore_errors=True)          # a finished job would have nothing to do
        save_weights(folder / "weights.npz", exposure_weights(self.movie))
        command = [sys.executable, str(ENGINE), "run", str(out), *self.mosaic.command(count), "--device", str(self.device),
                   "--threads", str(self.threads), "--dose-weights", str(folder / "weights.npz"), *(("--movies-per-gpu", str(per_gpu)) if per_gpu else ())]
        start = time.perf_counter()
        with open(out.with_suffix(".log"), "w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
        wall = time.perf_counter() - start
        events = [json.loads(line) for line in JobLayout(out).status.read_text().splitlines()]
        ends = sorted(e["time"] for e in events if e["event"] == "polish" and e.get("state") == "done")
        steady = ends[len(ends) // 4:]          # the first ones wait for devices and processes to start
        each = (steady[-1] - steady[0]) / (len(steady) - 1) if len(steady) > 1 else wall
        each = max(each, 1e-3)
        return {"wall_s": wall, "movies": len(ends), "seconds_per_movie": each, "movies_per_hour": 3600 / each,
                "share_of_decode_only": self.decode_s / each}


def exposure_weights(movie) -> DoseWeights:
    """Weights of the standard exposure curve: the pipeline needs some, whichever."""
    dose = movie.dose_per_frame_e_per_A2 * (np.arange(movie.n_frames) + 0.5)
    k = np.linspace(0, 0.5 / movie.original_pixel_angstrom, 200)
    weight = exposure_amplitude(dose, k, movie.voltage_kilovolt)
    zero = np.zeros((1, movie.n_frames))
    return DoseWeights(weight=(weight / weight.sum(0))[None], frequency_per_angstrom=k, dose_e_per_A2=dose, b_factor_A2=zero, scale=zero,
                       b_factor_error_A2=zero, scale_error=zero, normalisation="sum", source="exposure curve")
