"""A tiny simulated data set, read and calibrated once for all tests of the stages."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from refmotion_plugin.contract import star
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.engine.maths.lanes import set_lanes
from refmotion_plugin.engine.simulate import SimulationSpec, simulate
from refmotion_plugin.engine.simulate.score import damage_weights
from refmotion_plugin.engine.stages import align, calibrate, prepared

TINY = SimulationSpec(movies=2, particles=12, frames=16, size_yx=(512, 544), box=96, pixel_angstrom=2.0, dose_per_frame=1.5,
                      contrast_scale=1.5, seed=5, reference_resolution_angstrom=6.0, spatial_correlation_angstrom=1500.0,
                      defocus_angstrom=(6000.0, 8000.0))


@dataclass(frozen=True)
class Project:
    """A simulated project as the stages are given it: job, movies, particles; and the truth."""

    folder: Path
    prepared: prepared.Prepared
    movies: list
    table: object

    def of(self, movie):
        """Particles of a movie."""
        return self.table[np.flatnonzero(self.table.micrograph == movie.micrograph)]

    def truth(self, movie):
        """True displacement (P, F, 2), A."""
        with np.load(self.folder / "truth" / (Path(movie.micrograph).stem + ".npz")) as file:
            return file["displacement_yx_angstrom"]

    @property
    def weights(self):
        """Frames' weights by which trajectory errors take out constants."""
        return damage_weights(self.folder / "truth")


def open_project(folder, **parts):
    """Read a simulated project; ``parts`` are sections of the job."""
    reference = dict(particles=str(folder / "particles.star"), half1=str(folder / "half1.mrc"), half2=str(folder / "half2.mrc"),
                     mask=str(folder / "mask.mrc"))
    inputs = dict(movies=str(folder / "MotionCorr" / "corrected_micrographs.star"), **parts.pop("inputs", {}))
    spec = JobSpec.build(dict(dict(inputs=inputs, references=[reference]), **parts))
    micrographs, _ = star.read_corrected_micrographs(spec.inputs.movies)
    movies = [star.read_movie_metadata(m.metadata_star, m.name) for m in micrographs]
    pixel = movies[0].original_pixel_angstrom * movies[0].binning
    sets = [star.read_particles(part.particles, i, pixel) for i, part in enumerate(spec.references)]
    return Project(Path(folder), prepared.prepare(spec, sets, "cpu"), movies, sets[0].table)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors: threads cost more than they give, and results do not depend on the machine."""
    torch.set_num_threads(1)
    set_lanes(1)


@pytest.fixture(autouse=True)
def one_thread_again():
    """Jobs that ran in this process left the number they were given."""
    yield
    torch.set_num_threads(1)
    set_lanes(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny project, not calibrated; tests must not write into its folder."""
    folder = tmp_path_factory.mktemp("tiny")
    simulate(folder, TINY)
    return open_project(folder)


@pytest.fixture(scope="session")
def calibrated(tiny):
    """The tiny project's job with calibrated amplitudes."""
    return calibrate.calibrate(tiny.movies, tiny.of, tiny.prepared)


@pytest.fixture(scope="session")
def aligned(tiny, calibrated):
    """Both movies aligned."""
    return [align.align_movie(m, tiny.of(m), calibrated) for m in tiny.movies]
