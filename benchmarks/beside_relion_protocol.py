#!/usr/bin/env python3
"""Polish the very same sets of one Scipion project with RELION's own protocol (scipion-em-relion) and with ours, and compare the outputs.

    python benchmarks/beside_relion_protocol.py OUT                 # simulates movies, imports them, runs both protocols
    python benchmarks/beside_relion_protocol.py OUT --data DIR      # on a data set that was simulated before

Both protocols run with their defaults on the same movies, particles, half-maps and mask. It needs the plugin (pip install
scipion-em-relion) beside this one, and RELION's programs; without them it says so and does nothing. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import mrcfile
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison import relion, scoring  # noqa: E402
from comparison.project import Journal, Project  # noqa: E402
from comparison.report import markdown_table, write_results  # noqa: E402

from refmotion_plugin.engine.simulate import SimulationSpec, simulate  # noqa: E402
from refmotion_plugin.headless import create_project, prepare_environment, run_protocol  # noqa: E402

NAME = "beside"

BANDS_ANGSTROM = ((40.0, 10.0), (10.0, 5.0), (5.0, 3.0))
SPEC = SimulationSpec(movies=3, particles=50, frames=16, dose_per_frame=1.8, size_yx=(768, 768), seed=21)


def main(argv: list[str] | None = None) -> int:
    """Run everything; returns the exit code."""
    options = _parser().parse_args(argv)
    missing = what_is_missing()
    if missing:
        print(f"nothing was done: {missing}")
        return 0
    out = options.out.resolve()
    data = options.data.resolve() if options.data else out / "data"
    if options.data is None and not (data / "truth" / "spec.json").exists():
        simulate(data, SPEC)
    project = Project.make(out / "relion", data)
    Journal(out / "steps.json").belongs_to(project)        # finished runs are taken, which were of these data
    sections, numbers = compared(both_protocols(out, project), project)
    for heading, table in sections:
        print(f"\n{heading}\n\n{table}")
    write_results(options.results, "beside_relion_protocol", "RELION's polishing protocol beside ours, on the same sets", sections, numbers)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to work in; made if absent")
    parser.add_argument("--data", type=Path, metavar="DIR", help="simulated data set (default: simulate one)")
    parser.add_argument("--results", type=Path, metavar="DIR", default=HERE / "results", help="where the tables go")
    return parser


def what_is_missing() -> str | None:
    """A sentence if the comparison cannot be made here, or None."""
    if importlib.util.find_spec("relion") is None:
        return "the RELION plugin of Scipion is not installed (pip install scipion-em-relion)"
    programs = relion.missing_programs()
    return f"{', '.join(programs)} not found on the PATH (Debian: apt-get install relion)" if programs else None


# ---- both protocols -----------------------------------------------------------------------------------------------------------

def both_protocols(out: Path, project: Project) -> dict:
    """Both protocols, run on the same inputs in one Scipion project: {input, RELION, ours}. Runs that finished before are taken as they are."""
    # The plugin looks for RELION below RELION_HOME/bin; it needs no activation of an environment there.
    os.environ.update(RELION_HOME=str(Path(shutil.which(relion.PROGRAMS[0])).resolve().parents[1]), RELION_ENV_ACTIVATION="true",
                      CONDA_ACTIVATION_CMD="true")
    prepare_environment(out / "scipion")
    host = _project()
    data, pixel = project.data, project.spec.pixel_angstrom
    half1, half2, mask = (str(data / name) for name in ("half1.mrc", "half2.mrc", "mask.mrc"))
    inputs = _finished(host, "ProtImportRelionMovies", projectFolder=str(data), moviesStar="MotionCorr/corrected_micrographs.star",
                          particlesStar="particles.star")
    volume = _finished(host, "ProtImportVolumes", filesPath=half1, samplingRate=pixel, setHalfMaps=True, half1map=half1, half2map=half2)
    solvent = _finished(host, "ProtImportMask", maskPath=mask, samplingRate=pixel)
    movies, particles = (inputs, "outputMovies"), (inputs, "outputParticles")
    # RELION's protocol takes its half-maps, mask and FSC from a post-processing run.
    post = _finished(host, "ProtRelionPostprocess", relionInput=False, inputType=0, inputVolume=(volume, "outputVolume"),
                        solventMask=(solvent, "outputMask"))
    threads = len(os.sched_getaffinity(0))
    theirs = _finished(host, "ProtRelionBayesianPolishing", inputMovies=movies, inputParticles=particles, inputPostprocess=post,
                          operation=1, saveFloat16=False, numberOfThreads=threads, numberOfMpi=1)
    ours = _finished(host, "ProtReferenceMotionCorrection", inputMovies=movies, inputParticles=particles,
                        inputVolume=(volume, "outputVolume"), inputMask=(solvent, "outputMask"), useGpu=False, numberOfThreads=threads,
                        tracksStar=True)
    return {"input": inputs, "RELION": theirs, "ours": ours}


def _project():
    """The Scipion project, begun before or new, with the working directory in it."""
    import pyworkflow
    from pyworkflow.project import Manager
    pyworkflow.Config.setDomain("pwem")
    pyworkflow.Config.getDomain().getProtocols()
    return Manager().loadProject(NAME) if Manager().hasProject(NAME) else create_project(NAME)


def _finished(host, class_name: str, **parameters):
    """The project's run of this protocol, made or continued if it is not finished yet; each is run once."""
    runs = [run for run in host.getRuns() if run.getClassName() == class_name]
    if not runs:
        return run_protocol(host, class_name, **parameters)
    if not runs[0].isFinished():
        host.launchProtocol(runs[0], wait=True)
    if not runs[0].isFinished():
        raise SystemExit(f"{runs[0]} did not finish: {runs[0].getErrorMessage()}")
    return runs[0]


# ---- comparison ---------------------------------------------------------------------------------------------------------------

def compared(run: dict, project: Project) -> tuple[list, dict]:
    """Sections of the report and the numbers in it."""
    sets = {name: _items(run[key].outputParticles) for name, key in (("input", "input"), ("RELION", "RELION"), ("ours", "ours"))}
    rows = [[name, len(items), [i for i, _ in items] == [i for i, _ in sets["input"]], _same_attributes(run, name), *_geometry(run, name)]
            for name, items in sets.items() if name != "input"]
    rings = image_correlation(*(_images(sets[name]) for name in ("RELION", "ours")), project.spec.pixel_angstrom)
    truth = [["rigidly aligned" if name == "input" else name, *_tracks(project, run, name), *_maps(project, sets[name], name)] for name in ("input", "RELION", "ours")]
    sections = [
        ("Both outputs", markdown_table(["protocol", "particles", "same ids in the same order as the input", "half-sets, CTF and orientations as the "
                                         "input's", "box, px", "Å/px", "image noise, σ"], rows)),
        ("Correlation of both images of a particle", markdown_table(
            ["band, Å", "mean over particles", "lowest"], [[f"{a:g} to {b:g}", float(r.mean()), float(r.min())] for (a, b), r in rings.items()])),
        ("Against the truth", markdown_table(["particles", "trajectory error, Å", "first five frames, Å", "resolution, Å (FSC of half-maps 0.143)",
                                              "mean FSC with the true map, 5 to 3 Å"], truth))]
    numbers = {"outputs": rows, "image_correlation": {f"{a:g}-{b:g}": [float(r.mean()), float(r.min())] for (a, b), r in rings.items()},
               "truth": truth}
    return sections, numbers


def _items(particles) -> list:
    """(id, (index, file)) of every particle of a set, in the set's order."""
    return [(p.getObjId(), p.getLocation()) for p in particles.iterItems()]


def _images(items) -> np.ndarray:
    stacks = {}
    for _, (_, name) in items:
        if name not in stacks:
            with mrcfile.mmap(name, mode="r", permissive=True) as file:
                stacks[name] = np.array(file.data, dtype=np.float32)
    return np.stack([stacks[name][index - 1] for _, (index, name) in items])


def _same_attributes(run: dict, name: str) -> bool:
    """Whether half-sets, CTFs and orientations came through."""
    for before, after in zip(run["input"].outputParticles.iterItems(), run[name].outputParticles.iterItems()):
        same = (before.getAttributeValue("_rlnRandomSubset") == after.getAttributeValue("_rlnRandomSubset")
                and before.getCTF().getDefocus() == after.getCTF().getDefocus()
                and np.allclose(before.getTransform().getMatrix(), after.getTransform().getMatrix()))
        if not same:
            return False
    return True


def _geometry(run: dict, name: str) -> list:
    output = run[name].outputParticles
    return [output.getDim()[0], float(output.getSamplingRate()), float(_images(_items(output)).std())]


def image_correlation(first: np.ndarray, second: np.ndarray, pixel_angstrom: float) -> dict:
    """Correlation (particle,) of two stacks of the same particles in each band."""
    size = first.shape[-1]
    a, b = np.fft.rfft2(first), np.fft.rfft2(second)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) / pixel_angstrom
    found = {}
    for low, high in BANDS_ANGSTROM:
        band = (k > 1 / low) & (k <= 1 / high)
        cross = (a[:, band] * b[:, band].conj()).real.sum(axis=1)
        found[low, high] = cross / np.sqrt((np.abs(a[:, band]) ** 2).sum(axis=1) * (np.abs(b[:, band]) ** 2).sum(axis=1))
    return found


def _tracks(project: Project, run: dict, name: str) -> list:
    if name == "input":
        found = scoring.score_rigid(project, project.movies)
    else:
        extra = Path(run[name]._getExtraPath()).resolve()
        found = scoring.score_tracks(Project(extra, project.data), ".", project.movies)
    return [found["all"], found["early"]]


def _maps(project: Project, items: list, name: str) -> list:
    """Reconstruct both halves of a set's images; resolution and FSC with the true map."""
    places = [f"{index:06d}@{Path(file).resolve()}" for _, (index, file) in items]
    star = project.with_images(f"set_{name}.star", lambda row: places[row])
    mask = f"mask_{name}.mrc"
    shutil.copyfile(project.data / "mask.mrc", project.folder / mask)
    found = scoring.score_maps(project, star, f"set_{name}", project.spec.symmetry, mask)
    return [found["resolution_angstrom"], found["true_fsc_5_3"]]


if __name__ == "__main__":
    sys.exit(main())
