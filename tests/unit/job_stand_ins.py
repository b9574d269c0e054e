"""A tiny job for the tests of its logic: real metadata files, stand-ins for movies and stages that take no time."""
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from refmotion_plugin.contract.conventions import dose_at_mid_frame
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.records import DoseWeights, FccTable, Trajectories
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec
from refmotion_plugin.contract.star import StarTable, write_tables
from refmotion_plugin.contract.verdict import Finding, JudgedMovie, Verdict
from refmotion_plugin.engine.run.recipes import Recipes

FRAMES, SHELLS, BOX, PIXEL = 4, 5, 8, 1.5


def write_project(folder, movies=3, particles=2, references=1):
    """Motion correction and particle files of a small project; returns its JobSpec."""
    (folder / "Movies").mkdir(parents=True)
    names = ["M/mic_%d.mrc" % i for i in range(movies)]
    for i in range(movies):
        (folder / "Movies" / ("mic_%d.tiff" % i)).write_bytes(b"movie %d" % i)
        general = {"rlnImageSizeX": ["200"], "rlnImageSizeY": ["100"], "rlnImageSizeZ": [str(FRAMES)],
                   "rlnMicrographMovieName": [str(folder / "Movies" / ("mic_%d.tiff" % i))], "rlnMicrographBinning": ["1"],
                   "rlnMicrographOriginalPixelSize": [str(PIXEL)], "rlnMicrographDoseRate": ["1.2"], "rlnVoltage": ["300"]}
        write_tables(folder / ("mic_%d.star" % i), [StarTable("general", general)], single_row=("general",))
    columns = {"rlnMicrographName": names, "rlnMicrographMetadata": [str(folder / ("mic_%d.star" % i)) for i in range(movies)],
               "rlnOpticsGroup": ["1"] * movies}
    write_tables(folder / "movies.star", [StarTable("micrographs", columns)])
    parts = [write_particles_file(folder / ("particles_%d.star" % r), names, particles, 30 + 10 * r) for r in range(references)]
    for name in ("half1.mrc", "half2.mrc"):
        (folder / name).write_bytes(b"map")
    maps = {"half1": str(folder / "half1.mrc"), "half2": str(folder / "half2.mrc")}
    return JobSpec.build({"inputs": {"movies": str(folder / "movies.star")}, "compute": {"device": "cpu", "threads": 1},
                          "references": [dict(maps, particles=str(p)) for p in parts]})


def write_particles_file(path, micrographs, per_movie, y=30):
    """Particles in all micrographs, 6 A apart in the line ``y``, interleaved as a refinement leaves them."""
    names = [m for _ in range(per_movie) for m in micrographs]
    n = len(names)
    zero = ["0"] * n
    rows = {"rlnMicrographName": names, "rlnCoordinateX": [str(20 + 4 * i) for i in range(n)], "rlnCoordinateY": [str(y)] * n,
            "rlnImageName": ["%d@old.mrcs" % (i + 1) for i in range(n)], "rlnAngleRot": zero, "rlnAngleTilt": zero, "rlnAnglePsi": zero,
            "rlnOriginXAngst": ["3.3"] * n, "rlnOriginYAngst": ["-1.6"] * n, "rlnDefocusU": ["9000"] * n, "rlnDefocusV": ["9000"] * n,
            "rlnDefocusAngle": zero, "rlnRandomSubset": [str(i % 2 + 1) for i in range(n)], "rlnOpticsGroup": ["1"] * n}
    optics = {"rlnOpticsGroup": ["1"], "rlnOpticsGroupName": ["g"], "rlnVoltage": ["300"], "rlnSphericalAberration": ["2.7"],
              "rlnAmplitudeContrast": ["0.1"], "rlnImagePixelSize": ["3.0"], "rlnImageSize": ["16"]}
    write_tables(path, [StarTable("optics", optics), StarTable("particles", rows)])
    return path


@dataclass(frozen=True)
class FakePrepared:
    spec: object
    hyperparameters: object = DEFAULT_HYPERPARAMETERS
    amplitudes: tuple = None
    warnings: tuple = ()
    device: str = "cpu"
    optics_groups: tuple = ("g",)
    references: tuple = ()

    def with_amplitudes(self, amplitudes):
        return replace(self, amplitudes=tuple(amplitudes))


class FakeStages:
    """Counts what is called; ``broken`` {micrograph number: exception} raises in ``broken_in``."""

    def __init__(self, broken=None, broken_in="align"):
        self.calls, self.broken, self.broken_in = [], broken or {}, broken_in

    def _call(self, name, movie=None):
        number = int(movie.micrograph[-5]) if movie is not None else None
        self.calls.append(name if movie is None else (name, number))
        if name == self.broken_in and number in self.broken:
            raise self.broken[number]

    def count(self, name):
        return sum(c == name or c[0] == name for c in self.calls)

    def calibrate(self, movies, particles_of, prepared):
        self._call("calibrate")
        return prepared.with_amplitudes([1.0])

    def load_stack(self, movie, prepared, n_particles=None, needed_again=False):
        self._call("load", movie)
        return "stack of " + movie.micrograph

    def align_movie(self, movie, particles, prepared, stack=None):
        self._call("align", movie)
        assert stack == "stack of " + movie.micrograph and prepared.amplitudes == (1.0,)
        n, dose = len(particles), dose_at_mid_frame(FRAMES, 1.2)
        track = np.full((n, FRAMES, 2), particles.row[:, None, None], np.float32)
        trajectories = Trajectories(movie.micrograph, particles.reference, particles.row, particles.position_yx_angstrom, track,
                                    np.zeros((n, FRAMES), np.float32), 0 * track, dose, "converged")
        shape = (1, FRAMES, SHELLS)
        fcc = FccTable(np.linspace(0, 0.3, SHELLS), dose, np.full(shape, 0.1 + n), np.ones(shape), np.ones(shape), np.ones(shape))
        judged = JudgedMovie(particles.reference, particles.row, np.full(n, 3.0), np.full(n, 2.0), np.zeros(n))
        return SimpleNamespace(trajectories=trajectories, fcc=fcc, notes={}, judged=judged)

    def fit_weights(self, tables, prepared):
        self._call("fit_weights")
        table, group = tables[0], (1, FRAMES)
        return DoseWeights(np.full((1, FRAMES, SHELLS), float(table.cross.mean())), table.frequency_per_angstrom, table.dose_e_per_A2,
                           np.ones(group), np.ones(group), np.zeros(group), np.zeros(group), "sum", "fit")

    def reach_verdict(self, evidence, prepared, warnings):
        self._call("reach_verdict")
        self.evidence = evidence
        nothing = Finding("not judged", None, None, "")
        return Verdict("cannot tell", "%d movies." % len(evidence.judged), nothing, nothing, nothing, None, None, None, tuple(warnings),
                       sum(len(m.row) for m in evidence.judged), len(evidence.judged))

    def load_weights(self, path, doses, normalisation, pixel):
        self._call("load_weights")
        assert pixel == PIXEL
        return replace(self.fit_weights([self.align_table(doses)], None), source=str(path))

    def align_table(self, doses):
        ones = np.ones((1, FRAMES, SHELLS))
        return FccTable(np.linspace(0, 0.3, SHELLS), doses, ones, ones, ones, ones)

    def polish_movie(self, movie, particles, trajectories, weights, prepared, stack=None):
        self._call("polish", movie)
        assert len(set(particles.reference)) == 1 and trajectories.row.tolist() == particles.row.tolist()
        images = np.ones((len(particles), BOX, BOX), np.float32) * (1 + particles.row[:, None, None])
        return SimpleNamespace(images=images, pixel_angstrom=PIXEL, rejected=[])

    def recipes(self):
        """The stand-ins as a job takes them."""
        return Recipes(
            prepare=lambda spec, sets, device, threads: FakePrepared(spec), preflight=self._preflight, calibrate=self.calibrate,
            save_amplitudes=lambda path, amplitudes: path.write_text("1"), load_amplitudes=lambda path: (1.0,),
            tune=self.tune, load_stack=self.load_stack,
            room_ahead=lambda movie, n_particles, prepared: True, align_movie=self.align_movie, fit_weights=self.fit_weights, load_weights=self.load_weights,
            reach_verdict=self.reach_verdict,
            polish_movie=self.polish_movie, outside_movie=self._outside,
            plan_frames=lambda movie, inputs: SimpleNamespace(
                dose_e_per_A2=dose_at_mid_frame(movie.n_frames, movie.dose_per_frame_e_per_A2)),
            recentering_yx_px=lambda particles, pixel: np.trunc(particles.origin_yx_angstrom / pixel))

    def tune(self, movies, particles_of, prepared, progress=None):
        self._call("tune")
        raise AssertionError("no search was asked for")

    def _preflight(self, movies, particles_of, prepared):
        self._call("preflight")
        return SimpleNamespace(text="as configured", warnings=())

    @staticmethod
    def _outside(movie, particles):
        size = np.array(movie.size_yx) * movie.original_pixel_angstrom
        return ((particles.position_yx_angstrom < 0) | (particles.position_yx_angstrom >= size)).any(axis=1)


__all__ = ["BOX", "FRAMES", "FakeStages", "InputError", "MovieError", "PIXEL", "write_particles_file", "write_project"]
