#!/usr/bin/env python3
"""Speed on one GPU: movies of the usual cameras with 100, 300 and 500 particles each.

    python benchmarks/gpu.py OUT                    # K2, K3 and super-resolution on cuda:0
    python benchmarks/gpu.py OUT --device cpu --small   # a run through everything without a GPU
    python benchmarks/gpu.py OUT --profile --cameras K3 --particles 300     # kernels, launches and waits of one movie

Movies are made from small simulated ones (see comparison/mosaic.py). Printed per case: movies per hour of the whole command once it is
under way, its share of the rate of decoding alone, seconds of the stages by the device's own events, the floor that the device's memory
traffic sets (bytes that must move, over the rate measured on this device), and the most memory used. Written to results/gpu-DEVICE.
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402

from comparison.gpu_case import Camera, device_rates  # noqa: E402
from comparison.mosaic import make_mosaic  # noqa: E402
from comparison.report import cpu_model, markdown_table, write_results  # noqa: E402

GIB = 2**30
PER_TILE = {"K2": 125, "K3": 42, "super-resolution": 42, "small": 12, "small super-resolution": 12}
PER_GPU = {"0": "its choice"}
STAGES = ("decode", "frames to the device", "cut and transform", "align", "polish")


def main(argv: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = _options(argv)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no GPU here: check nvidia-smi and that torch was installed with CUDA, or use --device cpu --small")
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({cpu_model()})"
    rates = device_rates(device, 16 * 2**20 if options.small else GIB)
    data = {"device": name, "compression": options.compression, "threads": options.threads, "rates_bytes_per_s": rates, "cases": {}}
    for camera in options.cameras:
        mosaic = make_mosaic(options.out / camera, camera, options.movies, PER_TILE[camera], None if options.compression == "none" else "lzw")
        print(f"… {camera}: decode, prepare, calibrate", flush=True)
        case = Camera(mosaic, max(options.particles), device, options.threads, rates)
        for particles in options.particles:
            print(f"… {camera}, {particles} particles", flush=True)
            if options.profile:
                text = case.profile(particles)
                (options.out / f"profile-{camera}-{particles}.txt").write_text(text)
                print(text, flush=True)
                continue
            file = options.name or "gpu-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            found = data["cases"][f"{camera} {particles}"] = case.measure(particles)
            for per_gpu in [None] + (options.per_gpu if particles in options.commands else []):
                if per_gpu is not None:
                    print(f"… {camera}, {particles} particles, the whole command, {PER_GPU.get(str(per_gpu), per_gpu)} at a time", flush=True)
                    found["commands"][str(per_gpu)] = case.command(particles, options.out / camera, per_gpu)
                path = write_results(options.results, file, f"Speed on {name}", _sections(data, options.movies), data)      # of what is done
    if not options.profile:
        print(path.read_text(), flush=True)
    return 0


def _sections(data, movies):
    cases = data["cases"].items()
    memory = lambda size: None if size is None else size / GIB
    speed = [[name, PER_GPU.get(n, n), run["movies_per_hour"], c["decode_only_per_hour"], run["share_of_decode_only"], run["wall_s"]]
             for name, c in cases for n, run in c["commands"].items()]
    stages = [[name, *(c["seconds"][s] for s in STAGES), c["traffic_bytes"] / 1e9, c["floor_s"], c["device_part_over_floor"],
               memory(c["peak_device_bytes"])] for name, c in cases]
    rates = [[name, rate / 1e9] for name, rate in data["rates_bytes_per_s"].items()]
    return [(f"Whole command, {movies} movies, compression {data['compression']}, {data['threads']} CPU threads", markdown_table(
                ["camera, particles", "movies at a time", "movies / hour", "decoding alone / hour", "share", "wall s of the command"], speed)),
            ("Seconds per movie and the floor of memory traffic", markdown_table(
                ["camera, particles", *STAGES, "must move, GB", "floor s", "(align + polish) / floor", "peak device GiB"], stages)),
            ("Rates of this device", markdown_table(["", "GB/s"], rates))]


def _options(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="working folder; movies that are there are used again")
    parser.add_argument("--device", default="cuda:0", help="cuda:0 or cpu (default %(default)s)")
    parser.add_argument("--small", action="store_true", help="tiny movies with few particles: does everything run?")
    parser.add_argument("--cameras", nargs="+", choices=sorted(PER_TILE), help="sizes of movies (default K2 K3 super-resolution)")
    parser.add_argument("--particles", type=int, nargs="+", help="particles per movie (default 100 300 500)")
    parser.add_argument("--commands", type=int, nargs="*", help="numbers of particles with which the whole command is run, too (default: all)")
    parser.add_argument("--compression", choices=("lzw", "none"), default="lzw", help="of the movies (default %(default)s)")
    parser.add_argument("--per-gpu", type=int, nargs="+", default=[0], help="movies at a time on the device, a command for each (default: its own choice)")
    parser.add_argument("--movies", type=int, help="movies of the whole command (default 16)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads (default: all)")
    parser.add_argument("--profile", action="store_true", help="print what the device does for one movie of each case, and nothing else")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default benchmarks/results)")
    parser.add_argument("--name", help="name of the result files (default gpu-DEVICE)")
    given = parser.parse_args(argv)
    given.cameras = given.cameras or (["small", "small super-resolution"] if given.small else ["K2", "K3", "super-resolution"])
    given.particles = given.particles or ([24] if given.small else [100, 300, 500])
    given.movies = given.movies or (2 if given.small else 16)
    given.commands = given.particles if given.commands is None else given.commands
    return given


if __name__ == "__main__":
    sys.exit(main())
