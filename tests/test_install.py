"""A wheel and an editable install hold everything the host looks for."""
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytest.importorskip("pwem", reason="Scipion is not installed in this interpreter")
ROOT = Path(__file__).resolve().parents[1]

CHECK = """
import os, sys
from refmotion_plugin.headless import prepare_environment
prepare_environment(sys.argv[1])
import pyworkflow as pw
pw.Config.setDomain("pwem")
domain = pw.Config.getDomain()
module = domain.getPlugins()["refmotion_plugin"]
plugin = module._pluginInstance
print("protocols", *sorted(n for n, c in domain.getProtocols().items() if c.__module__.startswith("refmotion_plugin.protocols")))
print("viewers", *sorted(n for n, c in domain.getViewers().items() if c.__module__.startswith("refmotion_plugin.viewers")))
print("objects", *sorted(n for n, c in domain.getObjects().items() if c.__module__ == "refmotion_plugin.objects"))
print("templates", *sorted(t.getObjId() for t in plugin.getTemplates()))
print("bibtex", *sorted(module._bibtex))
print("files", *[n for n in (module._logo, "protocols.conf") if os.path.isfile(os.path.join(plugin.getPath(), n))])
print("errors", *plugin.validateInstallation())
print("where", module.__file__)
"""
EXPECTED = {
    "protocols": ["ProtAverageMovies", "ProtExportMotionResults", "ProtImportDoseWeights", "ProtImportHyperparameters", "ProtImportRelionMovies",
                  "ProtReferenceMotionCorrection"],
    "viewers": ["AverageMoviesViewer", "DoseWeightsViewer", "HyperparametersViewer", "ReferenceMotionCorrectionViewer"],
    "objects": ["EmpiricalDoseWeights", "MotionHyperparameters"],
    "templates": ["refmotion_plugin-reference_motion_correction", "refmotion_plugin-relion_refinement_and_motion_correction"],
    "bibtex": ["Grant2015", "Zivanov2019"],
    "files": ["icon.png", "protocols.conf"],
    "errors": []}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a checkout holds: building leaves files behind."""
    copy = tmp_path_factory.mktemp("checkout") / "refmotion_plugin"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", "build", "*.egg-info", "demo_output", "*.pyc"))
    return copy


def environment(folder):
    """An environment that sees this one's packages, but not this one's installation of the plugin."""
    venv.create(folder, with_pip=True)
    here = [p for p in sys.path if p.endswith("site-packages")]
    links = folder / "borrowed"
    links.mkdir()
    for site in here:
        for entry in Path(site).iterdir():
            if "refmotion" not in entry.name and not entry.name.startswith("__") and not (links / entry.name).exists():
                (links / entry.name).symlink_to(entry)
    own = next((folder / "lib").glob("python*")) / "site-packages"
    for old in own.glob("setuptools*"):      # the borrowed one shall build, it brings its own bdist_wheel
        shutil.rmtree(old)
    (own / "borrowed.pth").write_text(str(links) + "\n")
    return folder / "bin" / "python"


def run(*command, **options):
    """Run a command; its output is the message of a failure."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SCIPION", "REFMOTION", "PYTHONPATH"))}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=clean, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def found(python, folder):
    """What the host finds, by kind."""
    lines = [line.split() for line in run(python, "-c", CHECK, folder / "scipion", cwd=str(folder)).splitlines() if line]
    return {line[0]: line[1:] for line in lines if line[0] in EXPECTED or line[0] == "where"}


@pytest.mark.slow
def test_wheel(checkout, tmp_path):
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, checkout)
    wheel = next(tmp_path.glob("*.whl"))
    python = environment(tmp_path / "env")
    names = run(python, "-m", "zipfile", "-l", wheel).split()
    assert [n for n in names if n.endswith(".py") and not n.startswith("refmotion_plugin")] == []
    run(python, "-m", "pip", "install", "--no-deps", wheel)
    result = found(python, tmp_path)
    assert str(tmp_path / "env") in result.pop("where")[0]
    assert result == EXPECTED
    assert "simulate" in run(tmp_path / "env" / "bin" / "refmotion", "--help")


@pytest.mark.slow
def test_editable(checkout, tmp_path):
    python = environment(tmp_path / "env")
    run(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--editable", checkout)
    result = found(python, tmp_path)
    assert str(checkout) in result.pop("where")[0]
    assert result == EXPECTED


def test_make_says_what_python_lacks(tmp_path):
    """Debian's Python comes without tkinter, and Scipion's plugins cannot be imported without."""
    poor = tmp_path / "python3"
    poor.write_text("#!/bin/sh\necho \"No module named 'tkinter'\" >&2\nexit 1\n")
    poor.chmod(0o755)
    done = subprocess.run(["make", "install", "VENV=%s" % (tmp_path / "venv"), "PYTHON=%s" % poor], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "apt-get install python3-venv python3-tk" in done.stderr and not (tmp_path / "venv").exists()
    found = subprocess.run(["make", "-n", "install", "VENV=%s" % (tmp_path / "venv")], cwd=ROOT, capture_output=True, text=True,
                           env={**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]})
    assert found.returncode == 0 and "-m venv" in found.stdout
