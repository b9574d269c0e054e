"""The launcher, in an interpreter in which the package is not installed: as Scipion's engine environment is."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "refmotion_plugin"
HIDING = """
import os, sys
sys.path[:] = [path for path in sys.path if os.path.realpath(path or ".") != %r]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
"""


def test_worker_processes_find_the_package(tiny, tmp_path):
    pytest.importorskip("distributed", reason="several workers need dask.distributed")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDING % str(PACKAGE.parent))
    folder, environment = tiny.folder, {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}
    start = lambda *words: subprocess.run([sys.executable, *words], cwd=str(tmp_path), env=environment, capture_output=True, text=True, timeout=300)
    assert "No module named 'refmotion_plugin'" in start("-c", "import refmotion_plugin").stderr
    done = start(str(PACKAGE / "start_engine.py"), "run", str(tmp_path / "OUT"), "--movies", str(folder / "MotionCorr" / "corrected_micrographs.star"),
                 "--particles", str(folder / "particles.star"), "--half1", str(folder / "half1.mrc"), "--half2", str(folder / "half2.mrc"),
                 "--mask", str(folder / "mask.mrc"), "--device", "cpu", "--threads", "2", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "2 worker processes" in done.stderr and (tmp_path / "OUT" / "particles.star").exists()
