"""RELION reads what the simulator writes: the check of all conventions at once, where RELION is installed."""
import os
import shutil
import subprocess

import mrcfile
import numpy as np
import pytest

from refmotion_plugin.engine.simulate import SimulationSpec, simulate, trajectory_error
from refmotion_plugin.engine.simulate.score import damage_weights

pytestmark = pytest.mark.skipif(shutil.which("relion_reconstruct") is None or shutil.which("relion_motion_refine") is None,
                                reason="RELION's programs are not on the PATH, so its reading of the data set is not checked.")

TILTED = SimulationSpec(movies=2, particles=40, frames=6, dose_per_frame=4.0, size_yx=(768, 768), box=96, symmetry="C1",
                        pixel_angstrom=1.5, motion="none", beam_tilt_mrad_yx=(0.8, -1.2), optics_groups=2, contrast_scale=2.0,
                        astigmatism_angstrom=(2000, 3000), pose_error_degree=0.0)
MOVING = SimulationSpec(movies=1, particles=30, frames=16, size_yx=(768, 768), box=128, pixel_angstrom=1.4, dose_per_frame=1.5,
                        contrast_scale=1.0, seed=2)


def run(folder, *command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def shell_correlation(first, second):
    """Fourier shell correlation of two maps, per shell."""
    size = first.shape[0]
    a, b = np.fft.rfftn(first), np.fft.rfftn(second)
    full, half = np.fft.fftfreq(size, 1 / size), np.arange(size // 2 + 1)
    shell = np.rint(np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + half**2)).astype(int).ravel()
    cross, power_a, power_b = (np.bincount(shell, v.ravel())[: size // 2]
                               for v in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2))
    return cross / np.sqrt(power_a * power_b)


def reconstruct(folder, star, symmetry):
    run(folder, "relion_reconstruct", "--i", star, "--o", "rec.mrc", "--ctf", "--sym", symmetry, "--pad", "1")
    mask = mrcfile.read(folder / "mask.mrc")
    return shell_correlation(mrcfile.read(folder / "rec.mrc") * mask, mrcfile.read(folder / "truth" / "map.mrc") * mask)


def test_relion_reconstructs_the_true_map(tmp_path):
    """Asymmetric, astigmatic, tilted: hand, ZYZ, CTF, origins and beam tilt must all be RELION's."""
    simulate(tmp_path, TILTED)
    right = reconstruct(tmp_path, "particles.star", "C1")
    resolution = TILTED.box * TILTED.pixel_angstrom / np.maximum(np.arange(len(right)), 1)
    assert right[(resolution > 10) & (resolution < 60)].min() > 0.85
    text = (tmp_path / "particles.star").read_text()
    lines = [" ".join(turn_tilt(line.split())) if line.startswith("opticsGroup") else line for line in text.splitlines()]
    (tmp_path / "wrong.star").write_text("\n".join(lines) + "\n")
    wrong = reconstruct(tmp_path, "wrong.star", "C1")
    fine = (resolution < 5.5) & (resolution > 4.0)
    assert right[fine].mean() > wrong[fine].mean() + 0.1


def turn_tilt(words):
    """The optics row with both beam tilts (last two columns) of the other sign."""
    return words[:-2] + [str(-float(word)) for word in words[-2:]]


def test_relion_tracks_the_true_motion(tmp_path):
    simulate(tmp_path, MOVING)
    write_postprocess(tmp_path)
    run(tmp_path, "relion_motion_refine", "--i", "particles.star", "--o", "polish/", "--f", "postprocess.star", "--m1", "half1.mrc",
        "--m2", "half2.mrc", "--mask", "mask.mrc", "--corr_mic", "MotionCorr/corrected_micrographs.star", "--first_frame", "1",
        "--last_frame", "-1", "--s_vel", "1.5", "--s_div", "10000", "--s_acc", "4", "--j", "1")
    with np.load(tmp_path / "truth" / "movie_001.npz") as truth:
        true, shift = truth["displacement_yx_angstrom"], truth["shift_yx_px"]
    weights = damage_weights(tmp_path / "truth")
    tracked = read_tracks(next(tmp_path.glob("polish/**/movie_001_tracks.star")))
    rigid = np.broadcast_to(-MOVING.pixel_angstrom * shift, true.shape)
    assert trajectory_error(tracked, true, weights).all_frames < 0.7 * trajectory_error(rigid, true, weights).all_frames


def write_postprocess(folder):
    mask = mrcfile.read(folder / "mask.mrc")
    fsc = shell_correlation(mrcfile.read(folder / "half1.mrc") * mask, mrcfile.read(folder / "half2.mrc") * mask)
    length = mask.shape[0] * MOVING.pixel_angstrom
    rows = "\n".join(f"{i} {i / length:.6f} {length / max(i, 0.2):.4f} {value:.6f}" for i, value in enumerate(np.append(fsc, 0)))
    (folder / "postprocess.star").write_text(
        f"\ndata_general\n\n_rlnFinalResolution {length / np.argmax(fsc < 0.143):.4f}\n\ndata_fsc\n\nloop_\n_rlnSpectralIndex #1\n"
        "_rlnResolution #2\n_rlnAngstromResolution #3\n_rlnFourierShellCorrelationCorrected #4\n" + rows + "\n")


def read_tracks(path):
    """Displacement (particle, frame, 2) in A, (y, x), of a RELION tracks file: one block a particle."""
    blocks = path.read_text().split("data_")[2:]
    return np.array([[[float(words[1]), float(words[0])] for words in map(str.split, block.splitlines())
                      if len(words) == 2 and not words[0].startswith("_")] for block in blocks])
