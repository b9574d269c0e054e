#!/usr/bin/env python3
"""Where the CPU time of a whole run goes, stage by stage: ``refmotion run`` in this process with clocks around its parts.

    python benchmarks/stages.py DATA OUT [--threads 1] [--option=ARG …]
    python benchmarks/stages.py DATA OUT --device cuda:0        # wall time; the device has done its part before a clock is read

``DATA`` is a simulated data set. The first row is start-up: interpreter and imports. Every other row is the time spent in a part
and in nothing named below it, so rows add up to the whole. With one thread on the CPU it is CPU time of the process. On a GPU, and with more
threads, it is wall time of the main thread: others decode the next movie and write the last one meanwhile, which is not looked at; what the work
waits for them is in "other". The job goes to OUT/job, which is deleted before. Ends with the exit code of the run.
"""
from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

PARTS = (      # row, module below refmotion_plugin.engine, name in it
    ("read inputs", "run.job", "read_inputs"), ("references", "stages.prepared", "prepare"),
    ("preflight", "stages.preflight", "preflight"), ("calibration", "stages.calibrate", "calibrate"),
    ("decode", "movies.stack", "_decode"), ("decode", "movies.stack", "_decode_to_scratch"), ("bad pixels", "movies.stack", "find_outliers"),
    ("bad pixels", "movies.stack", "plan_replacement"),
    ("cut and transform, alignment", "stages.align", "PatchSpectra.__call__"),
    ("noise", "stages.align", "movie_noise"), ("predictions", "stages.align", "predictions"), ("predictions", "stages.preflight", "predict"),
    ("amplitude", "stages.align", "scaled_prediction"), ("correlation", "stages.align", "correlation_maps"),
    ("prior", "stages.align", "build_prior"), ("fit", "motion.escape", "fit_trajectories"),
    ("false peaks", "stages.align", "fit_out_of_false_peaks"),
    ("own strength", "stages.align", "adapt_strength"), ("blur pass", "stages.align", "renew_frames"), ("FCC", "stages.align", "fcc_sums"),
    ("align, rest", "stages.align", "align_movie"),
    ("weights fit", "stages.weigh", "fit_weights"), ("polish, rest", "stages.polish", "polish_movie"),
    ("weighted sum", "stages.polish", "combine_frames"), ("images", "stages.polish", "to_images"),
    ("images", "stages.polish", "normalise_background"), ("write images", "run.tasks", "write_mrc"),
    ("particle STAR files", "run.outputs", "write_particle_stars"), ("tracks STAR files", "run.outputs", "write_tracks"),
    ("report", "report", "write_report"))


class Clocks:
    """Exclusive seconds of named parts that may call each other; ``now()`` reads the clock, ``thread``: the only one that is looked at."""

    def __init__(self, now=time.process_time, thread=None):
        self.seconds, self.calls, self.stack, self.now, self.thread = {}, {}, ["other"], now, thread
        self.last = now()

    def lap(self):
        now = self.now()
        self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) + now - self.last
        self.last = now

    def around(self, name, function):
        """``function`` with its time booked to ``name``."""
        def timed(*args, **kwargs):
            if self.thread not in (None, threading.get_ident()):
                return function(*args, **kwargs)
            self.lap()
            self.stack.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.lap()
                self.stack.pop()
                self.calls[name] = self.calls.get(name, 0) + 1
        return timed

    def install(self):
        """Put clocks around all parts."""
        for row, module, name in PARTS:
            owner = importlib.import_module("refmotion_plugin.engine." + module)
            *outer, name = name.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, name, self.around(row, getattr(owner, name)))


def main(argv=None) -> int:
    """Run and print the table; returns the exit code of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="folder to work in; the job goes to OUT/job, which is deleted before")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0 (default %(default)s)")
    parser.add_argument("--particles", default="particles.star", help="particle STAR file in DATA (default %(default)s)")
    parser.add_argument("--option", action="append", default=[], metavar="ARG")
    options = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    data = options.data.resolve()
    out = options.out.resolve() / "job"
    shutil.rmtree(out, ignore_errors=True)
    os.chdir(data.parent)           # the simulator's STAR files name their movies from there
    alone = options.device == "cpu" and options.threads == 1
    clocks = Clocks() if alone else Clocks(time.perf_counter if options.device == "cpu" else _device_clock(options.device), threading.get_ident())
    begin = 0.0 if alone else clocks.now()
    from refmotion_plugin.engine import cli
    importlib.import_module("refmotion_plugin.engine.stages.polish")
    clocks.lap()
    clocks.install()
    clocks.last = clocks.now()
    clocks.seconds = {"start-up": clocks.last - begin}
    movies = f"{data}/MotionCorr/corrected_micrographs.star"
    code = cli.main(["run", str(out), "--movies", movies, "--particles", f"{data}/{options.particles}", "--half1", f"{data}/half1.mrc",
                     "--half2", f"{data}/half2.mrc", "--mask", f"{data}/mask.mrc", "--device", options.device, "--threads", str(options.threads),
                     "--tracks-star", *options.option])
    clocks.lap()
    _print(clocks)
    return code


def _device_clock(device):
    """Wall seconds once all that was given to the device is done."""
    import torch

    def now():
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return now


def _print(clocks):
    from comparison.report import markdown_table
    total = sum(clocks.seconds.values())
    rows = [[name, seconds, 100 * seconds / total, clocks.calls.get(name, 1)]
            for name, seconds in sorted(clocks.seconds.items(), key=lambda item: -item[1])]
    print(markdown_table(["part", "s", "%", "calls"], rows + [["all", total, 100.0, None]]))


if __name__ == "__main__":
    sys.exit(main())
