"""A real GPU gives what the CPU gives. Without one these are skipped; the pretended GPU of test_device_path.py stands in for it."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.store import load_trajectories
from refmotion_plugin.engine.stages import align, average, calibrate, load, memory, patches, polish, preflight, thumbnail, validate
from tests.unit.test_device_path import PER_FIT, average_spec, frames_used, on_gpu
from tests.unit.test_stages_polish import exposure_weights

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from comparison.gpu_profile import host_waits  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA sees")


@pytest.fixture(autouse=True)
def fresh():
    load.forget_stacks()
    yield
    load.forget_stacks()


@pytest.fixture(scope="module")
def there(tiny):
    """The tiny project's job on the GPU, calibrated there."""
    job = on_gpu(tiny)
    return calibrate.calibrate(tiny.movies, tiny.of, job)


def test_references_and_calibration(tiny, calibrated, there):
    assert there.references[0].spectrum.is_cuda and there.budget.device > 2 ** 30
    np.testing.assert_allclose(there.amplitudes[0].factor, calibrated.amplitudes[0].factor, rtol=1e-4, atol=1e-4 * calibrated.amplitudes[0].factor.max())
    assert preflight.preflight(tiny.movies, tiny.of, there).z["as configured"] > 20


def test_alignment_and_polishing(tiny, aligned, there):
    movie, particles, expected = tiny.movies[0], tiny.of(tiny.movies[0]), aligned[0]
    found = align.align_movie(movie, particles, there)
    np.testing.assert_allclose(found.trajectories.displacement_yx_angstrom, expected.trajectories.displacement_yx_angstrom, atol=0.01)
    np.testing.assert_allclose(found.trajectories.deviation_sd_angstrom, expected.trajectories.deviation_sd_angstrom, rtol=0.01)
    for name in ("cross", "power_movie", "power_reference"):
        one, other = getattr(found.fcc, name), getattr(expected.fcc, name)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())
    same = polish.polish_movie(movie, particles, expected.trajectories, exposure_weights(), tiny.prepared)
    polished = polish.polish_movie(movie, particles, expected.trajectories, exposure_weights(), there)
    np.testing.assert_allclose(polished.images, same.images, atol=2e-3)


def test_the_same_twice(tiny, there):
    movie, particles = tiny.movies[0], tiny.of(tiny.movies[0])
    one, other = (align.align_movie(movie, particles, there).trajectories.displacement_yx_angstrom for _ in range(2))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_small_average(tiny, there):
    movie = tiny.movies[0]
    stack, plan = load.load_stack(movie, there), patches.plan_frames(movie, there.spec.inputs)
    (image, pixel), (expected, same) = (thumbnail.thumbnail(movie, stack, plan, device) for device in (there.device, "cpu"))
    assert pixel == same and image.any() and (image == expected).all()


def test_hyperparameters_get_the_same_scores(tiny, calibrated, there):
    movie, particles, scores = tiny.movies[0], tiny.of(tiny.movies[0]), []
    for job in (calibrated, there):
        tuning = validate.prepare_tuning(movie, particles, job)
        scores.append(validate.try_hyperparameters(tuning, [job.hyperparameters]).score)
    np.testing.assert_allclose(scores[1], scores[0], rtol=0.02)


def test_averages(tiny):
    spec = average_spec(tiny)
    plain, found = (average.average_movie(tiny.movies[0], spec, load.load_stack(tiny.movies[0], tiny.prepared), device) for device in ("cpu", "cuda:0"))
    for kind, image in plain.images.items():
        np.testing.assert_allclose(found.images[kind], image, atol=1e-3)


def test_few_particles_at_a_time_give_the_same(tiny, there, monkeypatch):
    """As after memory ran out: half as many at a time, and again."""
    movie, particles = tiny.movies[0], tiny.of(tiny.movies[0])
    whole = align.align_movie(movie, particles, there).trajectories.displacement_yx_angstrom
    monkeypatch.setattr(memory, "_halvings", {"cuda:0": 3})
    np.testing.assert_allclose(align.align_movie(movie, particles, there).trajectories.displacement_yx_angstrom, whole, atol=1e-3)


def test_nothing_makes_the_host_wait_frame_by_frame(tiny, there):
    """Waits by CUDA's own count do not grow with the frames, apart from the minimiser's looks."""
    movie, particles, counts = tiny.movies[0], tiny.of(tiny.movies[0]), []
    for last in (8, 16):
        job = frames_used(there, last)
        align.align_movie(movie, particles, job)
        waits = host_waits(lambda job=job: align.align_movie(movie, particles, job), torch.device("cuda:0"))
        counts.append(sum(n for place, n in waits if not place.startswith(PER_FIT)))
    assert counts[1] <= counts[0] + 2


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_a_whole_command_gives_what_the_cpu_gives(tiny, tmp_path, per_gpu):
    """Decoded ahead by one process, or by two processes that share the GPU; a run that hangs is ended here."""
    folder, found = tiny.folder, []
    files = [option for name in ("particles", "half1", "half2", "mask") for option in ("--" + name, str(folder / (name + (".star" if name == "particles" else ".mrc"))))]
    for out, device in (("cpu", ["--device", "cpu"]), ("gpu", ["--device", "cuda:0", "--movies-per-gpu", str(per_gpu)])):
        subprocess.run([sys.executable, "-m", "refmotion_plugin.engine", "run", str(tmp_path / out), "--movies", str(folder / "MotionCorr" / "corrected_micrographs.star"),
                        *files, *device], cwd=str(Path(__file__).resolve().parents[2]), check=True, timeout=300)
        layout = JobLayout(tmp_path / out)
        found.append([load_trajectories(layout.trajectories(key)).displacement_yx_angstrom for key in sorted(m.key for m in tiny.movies)])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, atol=0.02)
