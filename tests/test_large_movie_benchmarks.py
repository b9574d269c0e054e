"""The benchmarks of large movies run from end to end on small ones, without a GPU."""
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both benchmarks use the same movies."""
    return tmp_path_factory.mktemp("large")


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_gpu_benchmark_on_the_cpu(folder, capsys):
    import gpu
    assert gpu.main([str(folder), "--device", "cpu", "--small", "--threads", "1", "--results", str(folder / "results")]) == 0
    data = json.loads(next((folder / "results").glob("gpu-cpu*.json")).read_text())
    case = data["cases"]["small 24"]
    assert set(gpu.STAGES) <= set(case["seconds"]) and min(case["seconds"][s] for s in ("decode", "align", "polish")) > 0
    assert case["stop_reason"] == "converged" and case["commands"]["0"]["movies"] == 2
    assert case["floor_s"] == pytest.approx(case["traffic_bytes"] / data["rates_bytes_per_s"]["memory traffic"])
    run = case["commands"]["0"]
    assert run["share_of_decode_only"] == pytest.approx(run["movies_per_hour"] / case["decode_only_per_hour"])
    assert "movies / hour" in capsys.readouterr().out and data["where"]["command"].startswith("python benchmarks/")


def test_gpu_benchmark_without_a_gpu_says_so(folder, monkeypatch, capsys):
    import gpu
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.main([str(folder)]) == 2 and "sees no GPU" in capsys.readouterr().out


def test_memory_benchmark(folder):
    """The limit leaves an eighth to chance; the same movies held as float32, or averages of them kept, would pass it."""
    import memory
    arguments = ["--camera", "small super-resolution", "--particles", "24", "--particles-per-tile", "12", "--movies", "2", "--threads", "1",
                 "--results", str(folder / "results"), "--name", "memory"]
    assert memory.main([str(folder), *arguments, "--limits", "0.62"]) == 0
    run = json.loads((folder / "results" / "memory.json").read_text())["runs"]["0.62"]
    assert run["plan"].startswith("memory: 0.58 GiB of the host (as asked for)") and run["peak_GiB"] > 0.3


def test_a_mosaic_repeats_movie_and_particles(folder):
    from comparison.mosaic import CAMERAS, make_mosaic
    from refmotion_plugin.contract import star
    from refmotion_plugin.contract.spec import InputSpec
    from refmotion_plugin.engine.movies.stack import load_movie
    mosaic = make_mosaic(folder / "small", "small", 2, 12)
    (height, width), frames, pixel = CAMERAS["small"].tile_yx, CAMERAS["small"].frames, CAMERAS["small"].pixel_angstrom
    rows = star.read_particles(mosaic.particles_star(40), 0, pixel).table
    movie = star.read_movie_metadata(mosaic.folder / "MotionCorr" / "large_002.star", str(mosaic.folder / "MotionCorr" / "large_002.mrc"))
    stack = load_movie(movie, InputSpec(movies="x"))
    assert stack.shape_yx == (2 * height, 2 * width) and stack.n_frames == frames and len(rows) == 80
    assert (stack.frames[3, :height, :width] == stack.frames[3, height:, width:]).all()
    own = rows[rows.micrograph == movie.micrograph]
    step = (own.coordinate_yx_angstrom[3] - own.coordinate_yx_angstrom[0]) / pixel
    np.testing.assert_allclose(step, [height, width], atol=1e-3)       # the same particle in the fourth tile
