"""Everything of the plugin but its engine, in processes whose torch cannot be imported: imports, a run, viewers, wizards."""
import os
import subprocess
import sys

import pytest

from .conftest import correction_of

TRAP = """
import traceback
with open(%r, "a") as file:
    file.write("".join(traceback.format_stack()))
raise ImportError("the host imported torch")
"""
LOOK = """
import os
import sys
import pyworkflow
pyworkflow.Config.setDomain("pwem")
domain = pyworkflow.Config.getDomain()
domain.getProtocols()
from pyworkflow.project import Manager
from pyworkflow.viewer import DESKTOP_TKINTER
from refmotion_plugin import wizards
from refmotion_plugin.protocols import ProtAverageMovies
project = Manager().loadProject(sys.argv[1])
run = next(r for r in project.getRuns() if r.getObjLabel() == sys.argv[2])
print("SAID", bool(run.validate() + run.summary() + run.methods() + run.warnings() + run.citations()))
for item in (run, run.outputDoseWeights, run.outputHyperparameters):
    for kind in domain.findViewers(item, DESKTOP_TKINTER):
        if not kind.__module__.startswith("refmotion_plugin."):
            continue
        viewer = kind(project=project, protocol=run)
        if hasattr(viewer, "setProtocol"):
            viewer.setProtocol(run)
        shown = viewer._getVisualizeDict().values() if item is run else [lambda: viewer._visualize(item)]
        for view in [view for show in shown for view in show()]:
            print("VIEW", type(view).__name__)
            if hasattr(view, "savefig"):
                view.savefig("figure.png")
average = project.newProtocol(ProtAverageMovies)
average.inputMovies.copy(run.inputMovies)
for wizard in vars(wizards).values():
    for kind, _ in getattr(wizard, "_targets", []):
        print("WIZARD", len(wizard().suggestions(run if isinstance(run, kind) else average)) > 0)
print("TORCH", "torch" in sys.modules)
"""


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A torch that fails and leaves the stack of whoever imported it in the returned file; other tests' torch is not touched."""
    folder = tmp_path / "trap"
    folder.mkdir()
    trace = folder / "trace.txt"
    (folder / "torch.py").write_text(TRAP % str(trace))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    return trace


@pytest.mark.slow
def test_the_hosts_processes_never_import_torch(in_project, fake_engine, trap):
    project = in_project[0]
    run = correction_of(in_project)
    run.setObjLabel("without torch")
    project.launchProtocol(run, wait=True)
    assert run.isFinished(), run.getErrorMessage()
    done = subprocess.run([sys.executable, "-c", LOOK, project.getShortName(), "without torch"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert not trap.exists(), trap.read_text()
    assert "SAID True" in lines and "TORCH False" in lines
    assert lines.count("VIEW FigureView") >= 8 and lines.count("WIZARD True") >= 9 and "WIZARD False" not in lines


def test_the_trap_catches(trap):
    done = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True)
    assert "the host imported torch" in done.stderr and "<module>" in trap.read_text()
