"""The real window on a display without a screen: what the documentation photographs can be drawn, and wizards fill in a real form."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refmotion_plugin.headless import new_protocol

ROOT = Path(__file__).resolve().parents[2]
FILL = """
import sys
import pyworkflow
pyworkflow.Config.setDomain("pwem")
from pyworkflow.gui.project import ProjectWindow
from pyworkflow.gui.form import FormWindow
from refmotion_plugin import wizards
window = ProjectWindow(sys.argv[1])
protocol = next(r for r in window.project.getRuns() if r.getObjLabel() == "to fill in")
form = FormWindow("form", protocol, lambda *a, **k: None, window, updateProtocolCallback=lambda *a: None)
form.adjustSize()
for name, value in (("boxSize", 48), ("boxSize", ""), ("cropBoxSize", 24), ("resolutionLimit", 4.25), ("firstFrame", 2), ("lastFrame", 4),
                    ("coordinatePixel", 1.1), ("useGpu", 1), ("gpuList", "0 1"), ("numberOfThreads", 6)):
    wizards.set_field(form, name, value)
    window.root.update()
    print("FILLED", name, getattr(protocol, name).get())
print("BUTTONS", *sorted(form.wizards))
window.root.destroy()
"""


@pytest.fixture(scope="module")
def display():
    """The name of a display, started for these tests."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("Xvfb is not installed")
    pytest.importorskip("tkinter")
    read, write = os.pipe()
    server = subprocess.Popen([program, "-displayfd", str(write), "-screen", "0", "1600x1300x24", "-nolisten", "tcp"], pass_fds=[write],
                              stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    yield ":" + number
    server.terminate()
    server.wait()


def run(script, *arguments, display, **options):
    """Output of a Python program that opens windows."""
    environ = dict(os.environ, DISPLAY=display, MPLBACKEND="Agg")
    program = subprocess.Popen([sys.executable] + script + [str(a) for a in arguments], env=environ, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, universal_newlines=True, **options)
    try:
        text = program.communicate(timeout=300)[0]
    except subprocess.TimeoutExpired:
        program.kill()
        pytest.fail("a window waits for somebody: " + program.communicate()[0][-3000:])
    assert program.returncode == 0, text[-3000:]
    return text


@pytest.mark.slow
def test_wizards_fill_in_a_real_form(in_project, display):
    project, movies, volume, mask = in_project
    protocol = new_protocol(project, "ProtReferenceMotionCorrection", "to fill in", inputMovies=(movies, "outputMovies"),
                            inputParticles=(movies, "outputParticles"), inputVolume=(volume, "outputVolume"), inputMask=(mask, "outputMask"))
    project.saveProtocol(protocol)
    try:
        lines = run(["-c", FILL], project.path, display=display).splitlines()
    finally:
        project.deleteProtocol(protocol)
    filled = [line.split(None, 2)[1:] for line in lines if line.startswith("FILLED")]
    assert filled == [["boxSize", "48"], ["boxSize", "None"], ["cropBoxSize", "24"], ["resolutionLimit", "4.25"], ["firstFrame", "2"],
                      ["lastFrame", "4"], ["coordinatePixel", "1.1"], ["useGpu", "True"], ["gpuList", "0 1"], ["numberOfThreads", "6"]]
    buttons = next(line for line in lines if line.startswith("BUTTONS")).split()[1:]
    assert buttons == sorted(["boxSize", "cropBoxSize", "resolutionLimit", "firstFrame", "lastFrame", "coordinatePixel", "deviceWizard"])


@pytest.mark.slow
def test_pictures_for_the_documentation(correction, in_project, fake_engine, display, tmp_path):
    from PIL import Image
    project = in_project[0]
    project.launchProtocol(correction, wait=True)
    assert correction.isFinished(), correction.getErrorMessage()
    run([str(ROOT / "docs" / "make_screenshots.py")], tmp_path, project.getShortName(), tmp_path / "pictures", display=display)
    names = {p.name for p in (tmp_path / "pictures").glob("*.png")}
    assert {"scipion_project.png", "scipion_form_input.png", "scipion_form_motion_advanced.png", "scipion_wizard.png",
            "scipion_average_input.png"} <= names and len(names) >= 15
    for path in (tmp_path / "pictures").glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 400 and len(image.convert("RGB").getcolors(100000)) > 10, path.name
