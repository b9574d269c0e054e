"""Stands in for the engine: same command, same files, no calculation. What goes wrong is said by FAKE_ENGINE.

``fail:<key>`` that movie fails; ``input-error`` the job stops with a sentence; ``crash:<stage>`` ends without a word.
Which stages were run is appended to calls.txt in the job's folder.
"""
import argparse
import os
import sys
import tempfile

import mrcfile
import numpy as np

from refmotion_plugin.contract import layout as files
from refmotion_plugin.contract.records import DoseWeights, FccTable, Trajectories
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec
from refmotion_plugin.contract.star import (match_micrographs, read_corrected_micrographs, read_movie_metadata, read_particles,
                                            write_particles)
from refmotion_plugin.contract.store import save_fcc, save_hyperparameters, save_trajectories, save_weights

BOX, FREQUENCY = 32, np.linspace(0.0, 0.4, 9)


class Job:
    """The job's inputs, and events as the engine writes them."""

    def __init__(self, folder, spec):
        self.layout, self.spec = files.JobLayout(folder), spec
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        micrographs, _ = read_corrected_micrographs(spec.inputs.movies)
        self.movies = [read_movie_metadata(m.metadata_star, m.name) for m in micrographs]
        self.sets = [read_particles(r.particles, i, 1.1) for i, r in enumerate(spec.references)]
        self.owners = [match_micrographs(s.table.micrograph, [m.micrograph for m in self.movies]) for s in self.sets]
        self.failing = [w[5:] for w in os.environ.get("FAKE_ENGINE", "").split() if w.startswith("fail:")]

    def event(self, **values):
        """Append a line to status.jsonl."""
        import json
        with open(self.layout.status, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def good_movies(self):
        """Movies that do not fail, with their index."""
        return [(i, m) for i, m in enumerate(self.movies) if m.key not in self.failing]

    def align(self):
        """Trajectories of straight lines and FCC sums of ones."""
        save_hyperparameters(self.layout.hyperparameters, DEFAULT_HYPERPARAMETERS)
        self.event(event="movies", movies=[{"key": m.key, "micrograph": m.micrograph, "align": "todo", "polish": "todo", "n_particles": 6}
                                           for m in self.movies])
        for index, movie in self.good_movies():
            dose = np.arange(movie.n_frames) + 0.5
            table = self.sets[0].table[self.owners[0] == index]
            track = np.broadcast_to(dose[None, :, None], (len(table), len(dose), 2)).astype(np.float32)
            save_trajectories(self.layout.trajectories(movie.key), Trajectories(
                movie.micrograph, table.reference, table.row, table.position_yx_angstrom, track, track[..., 0], 0.9 * track, dose, "converged"))
            ones = np.ones((1, len(dose), len(FREQUENCY)))
            save_fcc(self.layout.fcc_total, FccTable(FREQUENCY, dose, ones, ones, ones, ones))
            self.event(event="align", movie=movie.key, state="done")
        for key in self.failing:
            self.event(event="align", movie=key, state="failed", reason="movie %s ends after frame 3 of 5: copy it again" % key)

    def weigh(self):
        """Even weights."""
        frames = self.movies[0].n_frames
        weight = np.full((1, frames, len(FREQUENCY)), 1.0 / frames)
        one = np.ones((1, frames))
        save_weights(self.layout.weights, DoseWeights(weight, FREQUENCY, np.arange(frames) + 0.5, 4 * one, one, one, one, "sum", "measured"))

    def polish(self):
        """Images of ones for the particles of the good movies."""
        good = [i for i, _ in self.good_movies()]
        for index, _ in self.good_movies():
            self.event(event="polish", movie=self.movies[index].key, state="done")
        for particles, owner in zip(self.sets, self.owners):
            rows, star = np.flatnonzero(np.isin(owner, good)), self.layout.particles(particles.reference, len(self.sets))
            if not len(rows):           # the engine writes no empty list, and leaves none of before
                star.unlink(missing_ok=True)
                continue
            stack = self.layout.folder / ("stack_%d.mrcs" % particles.reference)
            with mrcfile.new(str(stack), overwrite=True) as file:
                file.set_data(np.ones((len(rows), BOX, BOX), np.float32))
            write_particles(star, particles, rows, ["%06d@%s" % (i + 1, stack) for i in range(len(rows))], {n: (1.1, BOX) for n in particles.optics})
        self.layout.report.write_text("<html></html>")


def main():
    """``run OUT --job FILE --stage STAGE``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run"])
    parser.add_argument("out")
    parser.add_argument("--job")
    parser.add_argument("--stage")
    values = parser.parse_args()
    job = Job(values.out, JobSpec.read(values.job))
    with open(job.layout.folder / "calls.txt", "a", encoding="utf-8") as file:
        file.write("%s %s threads=%d visible=%s\n" % (values.stage, job.spec.compute.device, job.spec.compute.threads,
                                                      os.environ.get("CUDA_VISIBLE_DEVICES")))
    (job.layout.folder / "scratch.txt").write_text(tempfile.gettempdir())
    job.layout.job.write_text(job.spec.to_json())
    wanted = os.environ.get("FAKE_ENGINE", "")
    if "input-error" in wanted:
        job.event(event="stopped", reason="half-map 1 half1.mrc holds 3 voxels that are not numbers: give an intact map")
        return 2
    stages = {"all": ("align", "weigh", "polish"), "movies": ("align",)}
    for stage in stages.get(values.stage, (values.stage,)):
        if "crash:" + stage in wanted:
            return 1
        getattr(job, stage)()
    job.event(event="finished", failed=len(job.failing))
    return 3 if job.failing else 0


if __name__ == "__main__":
    sys.exit(main())
