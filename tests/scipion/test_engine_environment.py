"""The environment that the engine is started in, and the one that 'installb' builds for it: no package is installed here."""
import os
import subprocess
import sys
import venv
from importlib import metadata

import pytest

import refmotion_plugin
from refmotion_plugin import scipion_plugin

Plugin = refmotion_plugin.Plugin


@pytest.fixture
def with_paths(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/the/hosts/packages")


def test_a_venv_made_of_scipions_python_is_another_environment(tmp_path, with_paths, monkeypatch):
    venv.create(str(tmp_path / "engine_env"), symlinks=True, with_pip=False)
    python = str(tmp_path / "engine_env" / "bin" / "python")
    assert os.path.realpath(python) == os.path.realpath(sys.executable)
    monkeypatch.setattr(Plugin, "getEnginePython", lambda: python)
    assert "PYTHONPATH" not in Plugin.getEnviron()


def test_scipions_own_python_keeps_its_paths(tmp_path, with_paths, monkeypatch):
    (tmp_path / "linked").symlink_to(os.path.dirname(sys.executable))
    for python in (sys.executable, str(tmp_path / "linked" / os.path.basename(sys.executable))):
        monkeypatch.setattr(Plugin, "getEnginePython", lambda python=python: python)
        assert Plugin.getEnviron()["PYTHONPATH"] == "/the/hosts/packages", python


def program(folder, name, version):
    """A stand-in for a Python of some version: it answers the question for it, and makes an environment of a pip that does nothing."""
    path = folder / name
    path.write_text('#!/bin/sh\nif [ "$1" = -c ]; then exec "%s" -c "import sys; sys.version_info = (3, %d); $2"; fi\n'
                    'echo %s "$@" >> made.txt; mkdir -p engine_env/bin; printf "#!/bin/sh\\n" > engine_env/bin/python; chmod 755 engine_env/bin/python\n'
                    % (sys.executable, version, name))
    path.chmod(0o755)


def build(folder, monkeypatch, host_version):
    """Run the command that 'installb' would, with nothing but ``folder`` and the system's own tools on the PATH."""
    added = []
    monkeypatch.setattr(scipion_plugin.sys, "version_info", host_version)
    Plugin.defineBinaries(type("Environment", (), {"addPackage": lambda self, *args, **values: added.append(values["commands"][0][0])})())
    tools = folder / "tools"
    tools.mkdir()
    for name in ("mkdir", "chmod", "touch"):
        (tools / name).symlink_to("/bin/" + name)
    return subprocess.run(added[0], shell=True, cwd=str(folder), capture_output=True, text=True, env={"PATH": "%s:%s" % (folder, tools)})


@pytest.mark.parametrize("versions, expected", [({"python3": 8, "python3.11": 11}, "python3.11"), ({"python3": 12}, "python3"),
                                                ({"python3.13": 9, "python3.10": 10, "python3": 8}, "python3.10")])
def test_the_engines_environment_is_made_of_a_python_that_is_new_enough(tmp_path, monkeypatch, versions, expected):
    for name, version in versions.items():
        program(tmp_path, name, version)
    done = build(tmp_path, monkeypatch, (3, 8))
    assert done.returncode == 0 and (tmp_path / "engine_installed").exists(), done.stderr
    assert (tmp_path / "made.txt").read_text() == "%s -m venv engine_env\n" % expected


def test_without_a_python_that_is_new_enough_it_is_said(tmp_path, monkeypatch):
    program(tmp_path, "python3", 8)
    done = build(tmp_path, monkeypatch, (3, 8))
    assert done.returncode != 0 and "No Python 3.10 or later" in done.stderr and not (tmp_path / "engine_env").exists()


def test_the_engines_environment_has_what_gpus_and_clusters_need(monkeypatch):
    named = ["scipion-em", "torch>=2.1", "numpy", 'distributed; extra == "gpus"', 'distributed; extra == "cluster"',
             'dask-jobqueue; extra == "cluster"', 'pytest; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: named)
    assert Plugin._engineRequirements() == ["numpy", "distributed", "dask-jobqueue"]
