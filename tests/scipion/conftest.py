"""Projects and sets for the host's tests."""
import os

import pytest

pytest.importorskip("pwem", reason="Scipion is not installed in this interpreter")

from refmotion_plugin.headless import create_project, new_protocol, run_protocol  # noqa: E402

from . import relion_files  # noqa: E402


@pytest.fixture(scope="session")
def relion_folder(tmp_path_factory):
    """A RELION project of noise with two movies and twelve particles, half-maps and a mask."""
    folder = tmp_path_factory.mktemp("relion")
    columns = relion_files.write_project(folder)
    for name, seed in (("half1", 1), ("half2", 2)):
        relion_files.write_map(folder / (name + ".mrc"), seed=seed)
    relion_files.write_map(folder / "mask.mrc", value=1.0)
    return folder, columns


@pytest.fixture(autouse=True)
def back_to_where_we_were():
    """Scipion works in the project's folder; the next test starts where this one did."""
    before = os.getcwd()
    yield
    os.chdir(before)


def import_all(project, folder, particles="particles.star", pixel=relion_files.PARTICLE_PIXEL, suffix=""):
    """Run the imports of a RELION folder; returns the protocols (movies and particles, volume, mask)."""
    movies = run_protocol(project, "ProtImportRelionMovies", projectFolder=str(folder),
                          moviesStar="MotionCorr/corrected_micrographs.star", particlesStar=particles)
    return (movies,) + import_maps(project, folder, pixel, suffix)


def import_maps(project, folder, pixel, suffix=""):
    """Volume with half-maps, and mask."""
    half1, half2, mask = (str(folder / (name + suffix + ".mrc")) for name in ("half1", "half2", "mask"))
    volume = run_protocol(project, "ProtImportVolumes", filesPath=half1, samplingRate=pixel, setHalfMaps=True, half1map=half1, half2map=half2)
    return volume, run_protocol(project, "ProtImportMask", maskPath=mask, samplingRate=pixel)


@pytest.fixture(scope="session")
def imported(relion_folder):
    """A project with the small RELION folder imported: (project, movies and particles, volume, mask)."""
    before = os.getcwd()
    project = create_project("imported")
    protocols = import_all(project, relion_folder[0])
    os.chdir(before)
    return (project,) + protocols


@pytest.fixture
def in_project(imported):
    """The imported project, with the working directory in it."""
    os.chdir(imported[0].path)
    return imported


@pytest.fixture
def correction(in_project):
    """A correction protocol connected to the imported inputs, not run."""
    return correction_of(in_project)


def correction_of(imported):
    """A new correction protocol of an imported project (project, movies and particles, volume, mask)."""
    project, movies, volume, mask = imported
    return new_protocol(project, "ProtReferenceMotionCorrection", inputMovies=(movies, "outputMovies"),
                        inputParticles=(movies, "outputParticles"), inputVolume=(volume, "outputVolume"),
                        inputMask=(mask, "outputMask"), useGpu=False, numberOfThreads=1)


def use_fake_engine(folder, monkeypatch):
    """Let the protocols' engine be ``fake_engine.py``, started by a script in ``folder``."""
    import sys
    python = folder / "python"
    script = os.path.join(os.path.dirname(__file__), "fake_engine.py")
    python.write_text('#!/bin/sh\nshift\nexec "%s" "%s" "$@"\n' % (sys.executable, script))
    python.chmod(0o755)
    monkeypatch.setenv("REFMOTION_PYTHON", str(python))


@pytest.fixture
def fake_engine(tmp_path, monkeypatch):
    """The protocols' engine is ``fake_engine.py``; returns a function that says what shall go wrong."""
    use_fake_engine(tmp_path, monkeypatch)
    monkeypatch.delenv("FAKE_ENGINE", raising=False)
    return lambda text: monkeypatch.setenv("FAKE_ENGINE", text)
