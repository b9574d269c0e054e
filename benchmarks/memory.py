#!/usr/bin/env python3
"""Peak memory of one job on very large movies against the budget it was given.

    python benchmarks/memory.py OUT                                        # K3 super-resolution, 11520 x 8184 x 48, within 8 GB
    python benchmarks/memory.py OUT --camera K3 --limits 2 4 8

Movies are a small simulated one repeated side by side (see comparison/mosaic.py). For each limit (GB of 10^9 bytes, --memory of the job)
one run of the whole command; peak memory of its process tree is what the operating system says.
"""
from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.compare import demand_table  # noqa: E402
from comparison.measure import run_measured  # noqa: E402
from comparison.mosaic import CAMERAS, make_mosaic  # noqa: E402
from comparison.report import markdown_table, write_results  # noqa: E402

GB = 1e9


def main(argv: list[str] | None = None) -> int:
    """Run; returns the exit code: 1 if a bound was not held."""
    options = _parser().parse_args(argv)
    options.out = options.out.resolve()
    mosaic = make_mosaic(options.out / options.camera, options.camera, options.movies, options.particles_per_tile,
                         None if options.compression == "none" else options.compression)
    height, width = mosaic.size_yx
    print(f"{width} x {height} px x {mosaic.frames} frames, {options.particles} particles per movie", flush=True)
    rows, demands, data = [], [], {"camera": options.camera, "particles": options.particles, "threads": options.threads, "runs": {}}
    for limit in options.limits:
        job, log = (options.out / options.camera / f"{name}_{limit:g}{end}" for name, end in (("job", ""), ("log", ".txt")))
        shutil.rmtree(job, ignore_errors=True)          # a finished job would have nothing to do
        command = [sys.executable, str(HERE.parent / "refmotion_plugin" / "start_engine.py"), "run", str(job), *mosaic.command(options.particles),
                   "--memory", str(limit * GB / 2**30), "--threads", str(options.threads), "--device", "cpu", *options.option]
        used = run_measured(command, options.out, log, options.threads).numbers()
        peak = used["peak_GiB"] * 2**30 / GB
        said = next((line for line in log.read_text().splitlines() if "memory:" in line), "")
        print(said, flush=True)
        rows.append([f"{limit:g}", peak, used["wall_s"], used["cpu_s"], "no" if "do not fit" in said else "yes"])
        demands.append((f"peak memory within {limit:g} GB, GB", peak, f"≤ {limit:g}", limit, False))
        data["runs"][f"{limit:g}"] = {**used, "plan": said}
    sections = [(f"{options.camera}: {width} × {height} px × {mosaic.frames} frames, {options.particles} particles per movie, {options.movies} movies",
                 markdown_table(["--memory, GB", "peak of the process tree, GB", "wall s", "CPU s", "decoded movie fits"], rows)),
                ("Demands", demand_table(demands))]
    path = write_results(options.results, options.name or f"memory-{options.camera}", "Peak memory of large movies", sections, data)
    print(path.read_text(), flush=True)
    return 0 if all(peak <= bound for _, peak, _, bound, _ in demands) else 1


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="working folder")
    parser.add_argument("--camera", choices=sorted(CAMERAS), default="super-resolution", help="size of the movies (default %(default)s)")
    parser.add_argument("--particles", type=int, default=192, help="particles per movie (default %(default)s)")
    parser.add_argument("--particles-per-tile", type=int, default=16, help="particles simulated per tile (default %(default)s)")
    parser.add_argument("--movies", type=int, default=1, help="movies (default %(default)s)")
    parser.add_argument("--compression", choices=("lzw", "none"), default="lzw", help="of the TIFF movies (default %(default)s)")
    parser.add_argument("--limits", type=float, nargs="+", default=[8.0], metavar="GB", help="budgets, GB of 10^9 bytes (default 8)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default %(default)s)")
    parser.add_argument("--option", action="append", default=[], metavar="ARG", help="further argument of refmotion run, such as --option=--passes --option=1")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default benchmarks/results)")
    parser.add_argument("--name", help="name of the result files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
