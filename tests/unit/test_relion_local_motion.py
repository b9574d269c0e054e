"""The input motion of a movie with a local motion model, held against RELION's own evaluation of the same files.

relion_motion_refine with no iterations writes the tracks it starts from: global shifts plus polynomials.
"""
import shutil
import subprocess

import numpy as np
import pytest

from refmotion_plugin.contract import star
from refmotion_plugin.contract.spec import InputSpec
from refmotion_plugin.engine.simulate import SimulationSpec, simulate
from refmotion_plugin.engine.stages.patches import initial_displacement, plan_frames

pytestmark = pytest.mark.skipif(shutil.which("relion_motion_refine") is None, reason="relion_motion_refine is not installed")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A movie with a strong local motion model and what RELION starts its tracks from, (particle, frame, 2)."""
    folder = tmp_path_factory.mktemp("local_motion")
    simulate(folder, SimulationSpec(movies=1, particles=12, frames=12, size_yx=(512, 544), box=96, seed=5))
    rng = np.random.default_rng(3)
    coefficients = rng.normal(0.0, 1.0, (2, 6, 3)) * [0.6, 0.03, 0.001]
    with open(folder / "MotionCorr" / "movie_001.star", "a", encoding="utf-8") as file:
        file.write("\ndata_local_motion_model\n\nloop_\n_rlnMotionModelCoeffsIdx #1\n_rlnMotionModelCoeff #2\n")
        file.writelines("%d %.6f\n" % pair for pair in enumerate(coefficients.ravel()))
        file.write("\n")        # RELION loses a table that ends without an empty line
    metadata = folder / "MotionCorr" / "movie_001.star"
    text = metadata.read_text(encoding="utf-8").split("\n")
    metadata.write_text("\n".join("_rlnMotionModelVersion 1" if "MotionModelVersion" in line else line for line in text), encoding="utf-8")
    rows = "\n".join("%d %.5f %.3f %.4f" % (i, i / 105.6, 999.0 if i == 0 else 105.6 / i, 1 / (1 + np.exp((i - 26) / 2))) for i in range(49))
    (folder / "post.star").write_text(
        "\ndata_general\n\n_rlnFinalResolution 4.0\n_rlnMaskName mask.mrc\n\ndata_fsc\n\nloop_\n_rlnSpectralIndex #1\n_rlnResolution #2\n"
        "_rlnAngstromResolution #3\n_rlnFourierShellCorrelationCorrected #4\n" + rows + "\n", encoding="utf-8")
    command = ("relion_motion_refine --i particles.star --o polish/ --f post.star --m1 half1.mrc --m2 half2.mrc --mask mask.mrc --corr_mic "
               "MotionCorr/corrected_micrographs.star --first_frame 1 --last_frame -1 --s_vel 1 --s_div 10000 --s_acc 4 --max_iters 0 --j 1")
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, timeout=300)
    return folder, star.read_tracks_star(next((folder / "polish").rglob("movie_001_tracks.star")))


def ours(folder, turned=lambda displacement: displacement):
    name = "MotionCorr/movie_001.mrc"
    movie = star.read_movie_metadata(folder / "MotionCorr" / "movie_001.star", name)
    table = star.read_particles(folder / "particles.star", 0, movie.original_pixel_angstrom).table
    motion = initial_displacement(movie, table.position_yx_angstrom, plan_frames(movie, InputSpec(movies="unused")))
    rigid = motion.mean(0, keepdims=True)
    return rigid + turned(motion - rigid)


def from_first(tracks):
    return tracks - tracks[:, :1]


def rms(tracks):
    return float(np.sqrt(np.square(tracks).sum(-1).mean()))


def test_the_input_motion_is_relions(project):
    folder, theirs = project
    local = ours(folder) - ours(folder).mean(0, keepdims=True)
    assert rms(local) > 1.0
    assert rms(from_first(theirs) - from_first(ours(folder))) < 0.03 * rms(local)


@pytest.mark.parametrize("turned", [lambda d: -d, lambda d: d[..., ::-1], lambda d: 0 * d], ids=["sign", "axes", "left out"])
def test_turned_local_motion_is_not(project, turned):
    folder, theirs = project
    local = ours(folder) - ours(folder).mean(0, keepdims=True)
    assert rms(from_first(theirs) - from_first(ours(folder, turned))) > 0.5 * rms(local)
