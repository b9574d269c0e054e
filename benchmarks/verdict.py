#!/usr/bin/env python3
"""Is the verdict right? Small simulated data sets of known kind, with good inputs and with wrong ones.

    python benchmarks/verdict.py OUT                  # all cases
    python benchmarks/verdict.py OUT --seed 3 11 23     # other structures, motion and noise
    python benchmarks/verdict.py OUT --cases none few

Each case is simulated (or made of another case's data with one thing changed) below OUT and run to its dose weights. A job that stops
with a sentence about its inputs has said that they look wrong. The half-maps of the two half-set cases are made with
relion_reconstruct. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.maps import read_map, write_map  # noqa: E402
from comparison.measure import run_measured  # noqa: E402
from comparison.report import markdown_table, write_results  # noqa: E402

from refmotion_plugin.contract.errors import InputError  # noqa: E402
from refmotion_plugin.contract.results import JobResults  # noqa: E402
from refmotion_plugin.contract.spec import JobSpec  # noqa: E402
from refmotion_plugin.contract.star import StarTable, read_tables, write_tables  # noqa: E402
from refmotion_plugin.contract.verdict import CANNOT_TELL, GAIN, NO_GAIN, WRONG  # noqa: E402
from refmotion_plugin.engine.run.job import run_job  # noqa: E402
from refmotion_plugin.engine.simulate import SimulationSpec, simulate  # noqa: E402

BASE = SimulationSpec(movies=6, particles=30, frames=20, size_yx=(512, 544), box=96, pixel_angstrom=2.0, dose_per_frame=1.8,
                      reference_resolution_angstrom=6.0, defocus_angstrom=(6000.0, 9000.0), seed=3)
GENTLE = dict(motion="gentle")
STILL = dict(motion="none", rigid_shift_error_px=0.0)
STOPPED = "stopped"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is simulated (changes of ``BASE``), what is then spoilt (a function of the case's folder and its files), what is right."""

    meaning: str
    simulated: dict
    right: tuple[str, ...]
    spoil: object = None


def main(argv: list[str] | None = None) -> int:
    """Run the cases; returns the exit code: 0 if all verdicts are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for data and jobs")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="default: all")
    parser.add_argument("--seed", type=int, nargs="+", default=[BASE.seed], help="of the simulation, one or several (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
    parser.add_argument("--name", default="verdict", help="name of the result files")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = {}
    for seed in options.seed:
        for name in options.cases:
            case = found["%s, seed %d" % (name, seed)] = dict(judge_case(options.out, name, seed), meaning=CASES[name].meaning, seed=seed, expected=CASES[name].right)
            print("%-12s %d %-18s %s  %s" % (name, seed, case["verdict"], "right" if case["right"] else "WRONG", case["text"]), flush=True)
    tables = [("%d of %d right with seed %d" % (sum(f["right"] for f in cases), len(cases), seed), markdown_table(
        ["case", "verdict", "expected", "right", "in its words"],
        [[f["meaning"], f["verdict"], " or ".join(f["expected"]), "yes" if f["right"] else "**no**", f["text"]] for f in cases]))
        for seed, cases in ((seed, [f for f in found.values() if f["seed"] == seed]) for seed in options.seed)]
    path = write_results(options.results, options.name, "Verdicts", tables, found)
    print(path.read_text())
    return 0 if all(f["right"] for f in found.values()) else 1


def judge_case(out: Path, name: str, seed: int = BASE.seed) -> dict:
    """Simulate, spoil, run; the verdict's word, whether it is right, its sentence and the seconds of CPU that the job took."""
    case = CASES[name]
    folder = simulated(out, dataclasses.replace(BASE, seed=seed, **case.simulated))
    files = {n: folder / (n + e) for n, e in (("particles", ".star"), ("half1", ".mrc"), ("half2", ".mrc"), ("mask", ".mrc"))}
    options = {"movies": folder / "MotionCorr" / "corrected_micrographs.star"}
    work = out / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if case.spoil is not None:
        case.spoil(work, folder, files, options)
    spec = JobSpec.build({"inputs": {n: str(v) if isinstance(v, Path) else v for n, v in options.items()},
                          "references": [{n: str(p) for n, p in files.items()}], "output": {"stop_after": "dose-weights"},
                          "compute": {"device": "cpu", "threads": 1}})
    start = time.process_time()
    try:
        run_job(work / "job", spec)
        verdict = JobResults(work / "job").verdict()
        word, text = verdict.word, verdict.text
    except InputError as error:
        word, text = STOPPED, str(error)
    return {"verdict": word, "right": word in case.right, "text": without_folder(text, out), "cpu_seconds": time.process_time() - start}


def without_folder(text: str, out: Path) -> str:
    """``text`` with OUT for the folder in paths, absolute ones or as it was given."""
    for folder in (out.resolve(), out):
        text = re.sub(r"(?<![\w./-])%s/" % re.escape(str(folder)), "OUT/", text)
    return text


def simulated(out: Path, spec: SimulationSpec) -> Path:
    """The data set of a spec, simulated unless it is there."""
    folder = out / "data" / _short_name(spec)
    if not (folder / "truth" / "spec.json").exists() or SimulationSpec.read(folder / "truth" / "spec.json") != spec:
        shutil.rmtree(folder, ignore_errors=True)
        simulate(folder, spec)
    return folder


def _short_name(spec):
    plain = dataclasses.asdict(BASE)
    return "_".join(["base"] + ["%s_%s" % item for item in dataclasses.asdict(spec).items() if plain[item[0]] != item[1]]).replace(" ", "")


# ---- what can be wrong ------------------------------------------------------------------------------------------------------------

def change_particles(work, files, change):
    """Another particle STAR file; ``change(columns)`` changes the lists in the dictionary."""
    tables = read_tables(files["particles"])
    columns = {n: list(v) for n, v in tables["particles"].columns.items()}
    columns = change(columns) or columns
    files["particles"] = work / "particles.star"
    write_tables(files["particles"], [tables["optics"], StarTable("particles", columns)])


def reconstructed_halves(work, folder, files):
    """Half-maps made of the data set's own rigidly aligned particles."""
    for half in (1, 2):
        target = folder / ("reconstructed_half%d.mrc" % half)
        if not target.exists():
            run_measured(["relion_reconstruct", "--i", "particles.star", "--o", target.name, "--ctf", "--sym", "O", "--pad", 1,
                          "--subset", half], folder, work / "reconstruct.log")
        files["half%d" % half] = target


def own_halves(work, folder, files, options):
    reconstructed_halves(work, folder, files)


def exchanged_halves(work, folder, files, options):
    reconstructed_halves(work, folder, files)
    files["half1"], files["half2"] = files["half2"], files["half1"]


def redealt_halves(work, folder, files, options):
    reconstructed_halves(work, folder, files)
    rng = np.random.default_rng(0)
    change_particles(work, files, lambda c: c.update(rlnRandomSubset=[str(h) for h in rng.integers(1, 3, len(c["rlnRandomSubset"]))]))


def noise_halves(work, folder, files, options):
    volume, pixel = read_map(files["half1"])
    for half in (1, 2):
        files["half%d" % half] = work / ("half%d.mrc" % half)
        write_map(files["half%d" % half], np.random.default_rng(half).normal(size=volume.shape) * volume.std(), pixel)


def other_structure(work, folder, files, options):
    other = simulated(folder.parents[1], dataclasses.replace(BASE, seed=SimulationSpec.read(folder / "truth" / "spec.json").seed + 50, movies=1, symmetry="C1"))
    for name in ("half1", "half2", "mask"):
        files[name] = other / (name + ".mrc")


def other_hand(work, folder, files, options):
    for name in ("half1", "half2", "mask"):
        volume, pixel = read_map(files[name])
        files[name] = work / (name + ".mrc")
        mirrored = np.roll(volume[:, :, ::-1], 1, axis=2)             # about the voxel at n // 2
        write_map(files[name], mirrored, pixel)


def shuffled_poses(work, folder, files, options):
    order = np.random.default_rng(0).permutation

    def change(columns):
        turn = order(len(columns["rlnAngleRot"]))
        for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
            columns[name] = [columns[name][i] for i in turn]

    change_particles(work, files, change)


def upside_down(work, folder, files, options):
    options["movie_flip_y"] = False


def scaled_pixel(factor):
    """Half-maps whose header says a voxel of another size."""
    def spoil(work, folder, files, options):
        for name in ("half1", "half2", "mask"):
            volume, pixel = read_map(files[name])
            files[name] = work / (name + ".mrc")
            write_map(files[name], volume, factor * pixel)
    return spoil


def few_particles(work, folder, files, options):
    """Three of each movie."""
    def change(columns):
        seen, kept = {}, []
        for i, name in enumerate(columns["rlnMicrographName"]):
            seen[name] = seen.get(name, 0) + 1
            kept += [i] if seen[name] <= 3 else []
        return {n: [v[i] for i in kept] for n, v in columns.items()}

    change_particles(work, files, change)


def noise_movies(work, folder, files, options):
    """The frames of each movie replaced by counts of an even beam."""
    target = work / "data"
    shutil.copytree(folder, target)
    for path in sorted((target / "Movies").glob("movie_*")):
        with mrcfile.mmap(path, mode="r+", permissive=True) as file:
            file.data[:] = np.random.default_rng(len(path.name)).poisson(float(file.data.mean()), file.data.shape)
    options["movies"] = target / "MotionCorr" / "corrected_micrographs.star"


NOISE = dict(STILL, format="mrc")
CASES = {
    "strong": Case(meaning="strong motion", simulated={}, right=(GAIN,)),
    "gentle": Case(meaning="gentle motion", simulated=GENTLE, right=(GAIN,)),
    "none": Case(meaning="no motion, input shifts right", simulated=STILL, right=(NO_GAIN,)),
    "own": Case(meaning="half-maps of the particles themselves", simulated=GENTLE, spoil=own_halves, right=(GAIN,)),
    "exchanged": Case(meaning="half-maps exchanged", simulated=GENTLE, spoil=exchanged_halves, right=(WRONG,)),
    "redealt": Case(meaning="half-sets dealt anew", simulated=GENTLE, spoil=redealt_halves, right=(WRONG,)),
    "noise": Case(meaning="movies of pure noise", simulated=NOISE, spoil=noise_movies, right=(STOPPED, WRONG)),
    "noise-maps": Case(meaning="half-maps of pure noise", simulated=GENTLE, spoil=noise_halves, right=(STOPPED, WRONG)),
    "structure": Case(meaning="another structure", simulated=GENTLE, spoil=other_structure, right=(STOPPED, WRONG)),
    "hand": Case(meaning="other hand", simulated=dict(GENTLE, symmetry="C1"), spoil=other_hand, right=(STOPPED, WRONG)),
    "poses": Case(meaning="poses shuffled", simulated=dict(GENTLE, symmetry="C1"), spoil=shuffled_poses, right=(STOPPED, WRONG)),
    "flipped": Case(meaning="movies upside down", simulated=GENTLE, spoil=upside_down, right=(STOPPED,)),
    "pixel": Case(meaning="half-maps' voxel size 15 % off", simulated=GENTLE, spoil=scaled_pixel(0.85), right=(STOPPED, WRONG)),
    "pixel-4": Case(meaning="half-maps' voxel size 4 % too large", simulated=GENTLE, spoil=scaled_pixel(1.04), right=(STOPPED, WRONG)),
    "pixel-2": Case(meaning="half-maps' voxel size 2 % too small", simulated=dict(GENTLE, symmetry="C1"), spoil=scaled_pixel(0.98), right=(STOPPED, WRONG)),
    "few": Case(meaning="18 particles", simulated=GENTLE, spoil=few_particles, right=(CANNOT_TELL,)),
}


if __name__ == "__main__":
    sys.exit(main())
