"""The host's side runs on the oldest Python that Scipion still ships: nothing in it is newer, in syntax or in the standard library."""
import subprocess
import sys

import pytest

from .test_architecture import HOST_FILES, PACKAGE, files_below

pytest.importorskip("vermin", reason="the extra 'test' is not installed")

PATHS = [str(path) for path in files_below("refmotion_plugin/contract", *HOST_FILES)] + [str(PACKAGE / "start_engine.py")]


def verdict_on(*paths):
    """Exit code and text of vermin: 0 if Python 3.8 is enough for the files."""
    done = subprocess.run([sys.executable, "-c", "import vermin; vermin.main()", "--target=3.8-", "--violations", "--no-tips", "--eval-annotations",
                           *paths], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_host_needs_no_python_newer_than_3_8():
    code, text = verdict_on(*PATHS)
    assert code == 0, text


@pytest.mark.parametrize("line", ["def f(a: list[int]): pass", "'abc'.removeprefix('a')", "import zoneinfo", "d = {} | {}"])
def test_newer_things_would_be_seen(tmp_path, line):
    path = tmp_path / "newer.py"
    path.write_text(line + "\n")
    code, text = verdict_on(str(path))
    assert code != 0 and "require" in text and "3.9" in text
