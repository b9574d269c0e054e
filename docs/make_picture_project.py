"""The Scipion project whose windows the pictures of the documentation show: the demonstration's with every plot in it.

    python docs/make_picture_project.py OUT

Writes OUT/data (simulated movies) and OUT/scipion (the project *demo*) with three runs of ours: the correction with a search and the reconstruction before and
after, averages of the movies, and last the correction again while one movie is missing and one is cut off, so that there are failures to look at.
"""
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import demo  # noqa: E402

from refmotion_plugin.engine.simulate import SimulationSpec, simulate  # noqa: E402
from refmotion_plugin.headless import run_protocol  # noqa: E402

THREADS = min(2, os.cpu_count() or 1)
SPEC = SimulationSpec(movies=6, particles=70, seed=4, threads=THREADS)
LABEL_FAILURES = "two movies damaged"


def main():
    """Make the project."""
    output = Path(sys.argv[1]).resolve()
    shutil.rmtree(output, ignore_errors=True)
    paths = simulate(output / "data", SPEC)
    correction = demo.run_in_scipion(output, paths, SPEC, False, searchThoroughness=2, targetParticles=SPEC.particles, reconstruct=True,
                                     reconstructionSymmetry=SPEC.symmetry)
    project = correction.getProject()
    weights = {"inputDoseWeights": (correction, "outputDoseWeights"), "useGpu": False, "numberOfThreads": THREADS}
    run_protocol(project, "ProtAverageMovies", "dose-weighted micrographs", evenOdd=1, inputMovies=pointed_at(correction.inputMovies), **weights)
    mend = damage(sorted((paths.folder / "Movies").iterdir()))
    inputs = {name: pointed_at(getattr(correction, name)) for name in ("inputMovies", "inputParticles", "inputVolume", "inputMask")}
    try:
        run_protocol(project, "ProtReferenceMotionCorrection", LABEL_FAILURES, inputHyperparameters=(correction, "outputHyperparameters"), **inputs, **weights)
    finally:
        mend()
    demo.say("Scipion project: %s" % project.path)


def pointed_at(pointer):
    """(run, name of its output) of a pointer."""
    return pointer.getObjValue(), pointer.getExtended()


def damage(movies):
    """Take the third movie away and cut the fifth one; returns what puts both back."""
    kept = [(movies[place], movies[place].with_suffix(".kept")) for place in (2, 4)]
    for movie, aside in kept:
        movie.rename(aside)
    kept[1][0].write_bytes(kept[1][1].read_bytes()[:-kept[1][1].stat().st_size // 3])

    def mend():
        for movie, aside in kept:
            aside.replace(movie)
    return mend


if __name__ == "__main__":
    main()
