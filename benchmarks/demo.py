"""The main job in one command: simulate movies with known truth, correct them in a Scipion project, compare with the truth.

    python benchmarks/demo.py OUTPUT [--movies N --particles N --frames N --size PX --gpu]

Writes OUTPUT/data (the simulated RELION project), OUTPUT/scipion (the Scipion project), figures as PNG and the run's report.
"""
import argparse
import os
import shutil
import time
from pathlib import Path

import mrcfile
import numpy as np

from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.engine.simulate import (SimulationSpec, particle_ring_correlation, simulate, trajectory_error, true_projections,
                                              weight_agreement)
from refmotion_plugin.engine.simulate.score import damage_weights, true_amplitude
from refmotion_plugin.figures.style import BLUE, GREY, ORANGE, ResultFigure, resolution_axis, styled
from refmotion_plugin.headless import create_project, prepare_environment, run_protocol

BANDS_ANGSTROM = ((20.0, 10.0), (10.0, 6.0), (6.0, 4.5), (4.5, 3.5))


def main():
    """Run the demonstration."""
    options = parse_options()
    output = Path(options.output).resolve()
    shutil.rmtree(output, ignore_errors=True)
    start = time.monotonic()
    spec = SimulationSpec(movies=options.movies, particles=options.particles, frames=options.frames,
                          size_yx=(options.size, options.size), threads=min(2, os.cpu_count() or 1))
    say("Simulating %d movies of %d x %d px and %d frames, %d particles each" % (
        spec.movies, options.size, options.size, spec.frames, spec.particles))
    paths = simulate(output / "data", spec, lambda done, total, sentence: say("  %s (%d of %d)" % (sentence, done, total)))
    protocol = run_in_scipion(output, paths, spec, options.gpu)
    results = JobResults(protocol._getExtraPath("job"))      # paths in it are relative to the project, which we are in
    score = Score(spec, paths, results)
    print_table(score)
    figures = output / "figures"
    shutil.copytree(results.layout.figures, figures)
    score.correlation_figure().savefig(figures / "truth_ring_correlation.png", dpi=110)
    score.trajectory_figure().savefig(figures / "truth_trajectories.png", dpi=110)
    shutil.copyfile(results.layout.report, output / "report.html")
    say("\nDone in %.0f s." % (time.monotonic() - start))
    say("Figures:         %s" % figures)
    say("Report:          %s" % (output / "report.html"))
    say("Scipion project: %s" % protocol.getProject().path)


def parse_options():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", nargs="?", default="demo_output", help="folder to write to; what is in it is deleted")
    parser.add_argument("--movies", type=int, default=4)
    parser.add_argument("--particles", type=int, default=60, help="per movie")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=1024, help="width and height of the movies, px")
    parser.add_argument("--gpu", action="store_true", help="use the first GPU instead of the CPU")
    return parser.parse_args()


def say(text):
    """A line for the reader, at once."""
    print(text, flush=True)


def run_in_scipion(output, paths, spec, gpu, **parameters):
    """Import everything into a new Scipion project and run the protocol, with these parameters besides its inputs; returns it."""
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    prepare_environment(output / "scipion")
    project = create_project("demo")
    say("Scipion project %s" % project.path)
    imported = run_protocol(project, "ProtImportRelionMovies", "simulated movies and particles", projectFolder=str(paths.folder),
                            moviesStar=str(paths.corrected_micrographs), particlesStar=str(paths.particles[0]))
    half1, half2, mask = str(paths.half1[0]), str(paths.half2[0]), str(paths.mask[0])
    volume = run_protocol(project, "ProtImportVolumes", "half-maps", filesPath=half1, samplingRate=spec.pixel_angstrom,
                          setHalfMaps=True, half1map=half1, half2map=half2)
    masks = run_protocol(project, "ProtImportMask", "mask", maskPath=mask, samplingRate=spec.pixel_angstrom)
    say("  imported: %s; %s; %s" % (imported.outputMovies, imported.outputParticles, volume.outputVolume))
    say("Reference-based motion correction ...")
    start = time.monotonic()
    protocol = run_protocol(project, "ProtReferenceMotionCorrection", "reference-based motion correction",
                            inputMovies=(imported, "outputMovies"), inputParticles=(imported, "outputParticles"),
                            inputVolume=(volume, "outputVolume"), inputMask=(masks, "outputMask"), useGpu=gpu,
                            numberOfThreads=os.cpu_count() or 1, **parameters)
    say("  finished in %.0f s" % (time.monotonic() - start))
    for line in protocol.summary():
        say("  " + line)
    return protocol


class Score:
    """What was found, against what was drawn. Particles of the set are in the order of the simulation, movie by movie."""

    def __init__(self, spec, paths, results):
        self.spec, self.paths, self.results = spec, paths, results
        self.names = [spec.movie_name(i) for i in range(spec.movies)]
        self._trajectories()
        self._rings()
        self._weights()

    def _truth(self, name, key):
        with np.load(self.paths.truth / (name + ".npz")) as file:
            return file[key]

    def _trajectories(self):
        weights = damage_weights(self.paths.truth)
        true, rigid, estimated = [], [], []
        for index, name in enumerate(self.names):
            found = self.results.trajectories(name)
            true.append(self._truth(name, "displacement_yx_angstrom")[self._aligned(index, found)])
            rigid.append(found.initial_yx_angstrom)
            estimated.append(found.displacement_yx_angstrom)
        self.first = true[0], rigid[0], estimated[0], self.results.trajectories(self.names[0]).position_yx_angstrom
        true = np.concatenate(true)
        self.error_before, self.error_after = (trajectory_error(np.concatenate(t), true, weights) for t in (rigid, estimated))

    def _aligned(self, index, trajectories):
        """Which particles of a movie, 0-based, have trajectories: some may have been left out."""
        return trajectories.row - index * self.spec.particles

    def _rings(self):
        after = self.results.polished_images()
        before, polished, counts = [], [], []
        for index, name in enumerate(self.names):
            rows = [i for i, (stack, _) in enumerate(after) if name in Path(stack).parts]
            own = self._aligned(index, self.results.trajectories(name))
            if len(rows) != len(own):
                raise SystemExit("%d of %d particles of %s have no polished image: the job's report says why" % (len(own) - len(rows), len(own), name))
            images = read_images(after[rows[0]][0])[[after[i][1] for i in rows]]
            truth = true_projections(self.paths.truth, name, self.spec.box, self.spec.pixel_angstrom)[own]
            before.append(particle_ring_correlation(read_images(self.paths.folder / "Particles" / (name + ".mrcs"))[own], truth))
            polished.append(particle_ring_correlation(images, truth))
            counts.append(len(images))
        self.ring_before, self.ring_after = np.average(before, axis=0, weights=counts), np.average(polished, axis=0, weights=counts)
        self.frequency = np.arange(len(self.ring_before)) / (self.spec.box * self.spec.pixel_angstrom)

    def _weights(self):
        with np.load(self.paths.truth / "damage.npz") as damage:
            frequency = damage["frequency_per_angstrom"]
        amplitude = true_amplitude(self.paths.truth)
        found = self.results.weights()
        weights = np.stack([np.interp(frequency, found.frequency_per_angstrom, row) for row in found.weight[0]])
        self.weight_correlation, self.snr_kept = weight_agreement(weights, amplitude, frequency)

    def band(self, curve, coarse, fine):
        """Mean of a curve between two resolutions."""
        inside = (self.frequency >= 1 / coarse) & (self.frequency < 1 / fine)
        return float(curve[inside].mean())

    @styled
    def correlation_figure(self):
        """Ring correlation with the true projections before and after."""
        figure = ResultFigure(6.5, 4)
        axes = figure.subplots()
        k = self.frequency[1:]
        for label, curve, colour in (("before (rigid shifts)", self.ring_before, GREY), ("after", self.ring_after, BLUE)):
            axes.plot(k, curve[1:], label=label, color=colour)
        axes.set(ylabel="ring correlation with the truth", ylim=(0, None))
        resolution_axis(axes, k[k <= 1 / 3.0])
        axes.legend(loc="upper right")
        figure.headline("Single particles against their true projections")
        return figure

    @styled
    def trajectory_figure(self, shown=16):
        """True, rigid and estimated tracks of some particles of the first movie, each from its first frame."""
        true, rigid, estimated, position = self.first
        figure = ResultFigure(9, 9)
        panels = figure.subplots(4, 4).ravel()
        for particle, axes in zip(range(min(shown, len(true))), panels):
            for label, tracks, style in (("truth", true, dict(color="black", linewidth=2.2)), ("rigid", rigid, dict(color=ORANGE, linestyle="--")),
                                         ("estimated", estimated, dict(color=BLUE))):
                track = tracks[particle] - tracks[particle].mean(axis=0)
                axes.plot(track[:, 1], track[:, 0], label=label, **style)
            axes.set_aspect("equal", adjustable="datalim")
            axes.set_title("at (%.0f, %.0f) nm" % tuple(position[particle][::-1] / 10), fontsize="small")
        panels[0].legend(fontsize="small")
        figure.supxlabel("x (Å)")
        figure.supylabel("y (Å)")
        figure.headline("True, rigid and estimated tracks of some particles, each around its mean")
        return figure


def read_images(path):
    """A stack as float32 (n, box, box)."""
    with mrcfile.open(path, permissive=True) as file:
        return np.array(file.data, dtype=np.float32)


def print_table(score):
    """Before and after, against the truth."""
    say("\nAgainst the truth                                    before    after")
    say("trajectory error, 2D rms, all frames (Å)           %8.2f %8.2f" % (score.error_before.all_frames, score.error_after.all_frames))
    say("trajectory error, first five frames (Å)            %8.2f %8.2f" % (score.error_before.first_five, score.error_after.first_five))
    for coarse, fine in BANDS_ANGSTROM:
        say("ring correlation with true projections, %4.1f-%4.1f Å %7.3f %8.3f" % (
            coarse, fine, score.band(score.ring_before, coarse, fine), score.band(score.ring_after, coarse, fine)))
    say("dose weights: correlation with the true relative amplitudes %.3f, share of the attainable SNR kept %.3f" % (
        score.weight_correlation, score.snr_kept))


if __name__ == "__main__":
    main()
