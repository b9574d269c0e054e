"""Dose weights and hyperparameters come in from files, go out to files, and are shown."""
import os

import numpy as np
import pytest
import pyworkflow as pw
from pyworkflow.viewer import DESKTOP_TKINTER

from refmotion_plugin.contract import exchange, store
from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, relion_prior
from refmotion_plugin.headless import new_protocol, run_protocol
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters
from refmotion_plugin.viewers import DoseWeightsViewer, HyperparametersViewer

FRAMES, BINS = 5, 64


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Files of other programs: refm_empirical_dw.npy, bfactors.star, opt_params.txt."""
    folder = tmp_path_factory.mktemp("files")
    table = exposure_amplitude(np.arange(FRAMES) + 0.5, np.linspace(0, 1, BINS))
    np.save(str(folder / "refm_empirical_dw.npy"), table, allow_pickle=False)
    exchange.write_bfactors_star(folder / "bfactors.star", np.arange(FRAMES) * 5.0, np.ones(FRAMES))
    (folder / "opt_params.txt").write_text("0.5 5000 2\n")
    return folder


@pytest.fixture(scope="session")
def brought_in(imported, files):
    """Both imports, run: (dose weights, hyperparameters)."""
    before = os.getcwd()
    os.chdir(imported[0].path)
    weights = run_protocol(imported[0], "ProtImportDoseWeights", weightsFile=str(files / "refm_empirical_dw.npy"),
                           inputMovies=(imported[1], "outputMovies"))
    prior = run_protocol(imported[0], "ProtImportHyperparameters", hyperparametersFile=str(files / "opt_params.txt"))
    os.chdir(before)
    return weights, prior


def test_imports_make_the_objects_that_a_run_takes(in_project, brought_in, correction):
    weights, prior = brought_in
    movies = in_project[1].outputMovies
    assert weights.outputDoseWeights.getFrames() == FRAMES and weights.summary()[0] == str(weights.outputDoseWeights)
    kept = exchange.read_weights(weights.outputDoseWeights.getFileName())
    dose = movies.getAcquisition().getDosePerFrame()
    assert kept.frequency_per_angstrom[-1] == pytest.approx(1.0 / movies.getSamplingRate())
    np.testing.assert_allclose(np.diff(kept.dose_e_per_A2), dose, rtol=1e-5)
    assert exchange.read_hyperparameters(prior.outputHyperparameters.getFileName()) == relion_prior(0.5, 5000.0, 2.0)
    for name, protocol, output in (("inputDoseWeights", weights, "outputDoseWeights"), ("inputHyperparameters", prior, "outputHyperparameters")):
        getattr(correction, name).set(protocol)
        getattr(correction, name).setExtended(output)
    assert correction.validate() == []
    data = correction._jobData({"movies": "m.star", "references": [{"half1": "1", "half2": "2"}]})
    assert data["dose"]["weights_file"].endswith("weights.npz") and data["motion_prior"]["hyperparameters_file"].endswith("hyperparameters.json")


def test_exports_in_every_format(in_project, brought_in, tmp_path):
    weights, prior = brought_in
    common = dict(inputDoseWeights=(weights, "outputDoseWeights"), inputHyperparameters=(prior, "outputHyperparameters"), folder=str(tmp_path),
                  pixelSize=1.1)
    for choice in (2, 3, 4):
        protocol = new_protocol(in_project[0], "ProtExportMotionResults", weightsFormat=choice, hyperparametersFormat=min(choice - 1, 2),
                                bins=40, **common)
        assert protocol.validate() == []
        protocol.exportStep("")
    stored = exchange.read_weights(weights.outputDoseWeights.getFileName())
    assert np.load(str(tmp_path / "refm_empirical_dw.npy")).shape == (FRAMES, 40)
    np.testing.assert_allclose(exchange.read_weights(tmp_path / "weights.json").weight, stored.weight, rtol=1e-7)
    assert len(exchange.read_weights(tmp_path / "bfactors.star", stored.dose_e_per_A2).scale[0]) == FRAMES
    assert [float(v) for v in (tmp_path / "opt_params_all_groups.txt").read_text().split()] == [0.5, 5000.0, 2.0]
    assert exchange.read_hyperparameters(tmp_path / "hyperparameters.json") == relion_prior(0.5, 5000.0, 2.0)


def test_an_export_as_the_host_runs_it(in_project, brought_in):
    protocol = run_protocol(in_project[0], "ProtExportMotionResults", inputDoseWeights=(brought_in[0], "outputDoseWeights"),
                            frames=8, dosePerFrame=0.5)
    written = protocol.summary()[0].partition("Written: ")[2]
    assert exchange.read_weights(written).dose_e_per_A2.tolist() == [0.25 + 0.5 * f for f in range(8)]


def test_continue_sees_changed_parameters_inputs_and_files(in_project, files, tmp_path):
    project, path = in_project[0], tmp_path / "bfactors.star"
    path.write_bytes((files / "bfactors.star").read_bytes())
    weights = run_protocol(project, "ProtImportDoseWeights", weightsFile=str(path), dosePerFrame=1.0)
    export = run_protocol(project, "ProtExportMotionResults", inputDoseWeights=(weights, "outputDoseWeights"))

    def last_dose():
        return exchange.read_weights(export.summary()[0].partition("Written: ")[2]).dose_e_per_A2[-1]
    assert last_dose() == FRAMES - 0.5
    weights.dosePerFrame.set(2.0)
    for protocol in (weights, export):          # the export's input has changed
        project.launchProtocol(protocol, wait=True)
    assert last_dose() == 2 * FRAMES - 1
    exchange.write_bfactors_star(path, np.arange(FRAMES + 1) * 5.0, np.ones(FRAMES + 1))
    project.launchProtocol(weights, wait=True)
    assert weights.outputDoseWeights.getFrames() == FRAMES + 1
    export.frames.set(2)
    project.launchProtocol(export, wait=True)
    assert export.isFinished() and last_dose() == 3.0


@pytest.mark.parametrize("name, values, part", [
    ("ProtImportDoseWeights", {}, "Give the file"), ("ProtImportHyperparameters", {}, "Give the file"),
    ("ProtImportDoseWeights", {"weightsFile": "refm_empirical_dw.npy"}, "give the pixel size"),
    ("ProtImportDoseWeights", {"weightsFile": "refm_empirical_dw.npy", "pixelSize": 1.0}, "give the dose per frame"),
    ("ProtImportDoseWeights", {"weightsFile": "bfactors.star", "preExposure": 2.0}, "give the dose per frame too"),
    ("ProtImportDoseWeights", {"weightsFile": "opt_params.txt"}, "was expected"),
    ("ProtImportHyperparameters", {"hyperparametersFile": "bfactors.star"}, "was expected"),
    ("ProtImportDoseWeights", {"weightsFile": "bfactors.star"}, "Dose weights "), ("ProtImportDoseWeights", {"weightsFile": "bfactors.star"}, "dose per frame (e/Å²) of"),
    ("ProtExportMotionResults", {}, "Nothing to export")])
def test_what_is_missing_is_said_before_anything_runs(in_project, files, name, values, part):
    values = {k: str(files / v) if k.endswith("File") else v for k, v in values.items()}
    errors = new_protocol(in_project[0], name, **values).validate()
    assert len(errors) == 1 and part in errors[0]


def test_an_export_says_what_its_format_leaves_out(in_project, tmp_path):
    one, project = np.ones((2, 3)), in_project[0]
    store.save_weights(tmp_path / "w.npz", DoseWeights(np.ones((2, 3, 4)), np.linspace(0, 0.25, 4), np.arange(1.0, 4.0), one, one, one, one, "sum", "x"))
    exchange.write_hyperparameters(tmp_path / "h.json", DEFAULT_HYPERPARAMETERS)
    weights = run_protocol(project, "ProtImportDoseWeights", weightsFile=str(tmp_path / "w.npz"))
    prior = run_protocol(project, "ProtImportHyperparameters", hyperparametersFile=str(tmp_path / "h.json"))
    export = new_protocol(project, "ProtExportMotionResults", inputDoseWeights=(weights, "outputDoseWeights"), inputHyperparameters=(prior, "outputHyperparameters"),
                          weightsFormat=3, hyperparametersFormat=2, opticsGroup=2, folder=str(tmp_path))
    export.exportStep("")
    said = export.summary()
    assert [text.partition(" ")[0] for text in said] == ["Written:", "This", "Its", "Written:", "RELION's"]
    assert "number 2 of 2" in said[1] and "to within" in said[2] and "early factor" in said[4]
    export.weightsFormat.set(2)
    export.hyperparametersFormat.set(1)
    export.exportStep("")
    assert len(export.summary()) == 2
    export.weightsFormat.set(0)
    assert export.validate() == []
    export.hyperparametersFormat.set(0)
    assert export.validate() == ["Nothing to export: choose a format for what is given."]


def test_exports_that_cannot_be(in_project, brought_in):
    protocol = new_protocol(in_project[0], "ProtExportMotionResults", inputDoseWeights=(brought_in[0], "outputDoseWeights"), weightsFormat=4,
                            opticsGroup=2, folder="nowhere", frames=-1)
    text = "\n".join(protocol.validate())
    for part in ("1 or more", "give 1 to 1", "needs a pixel size", "nowhere is not a folder"):
        assert part in text


def test_what_is_chosen_and_does_not_exist_yet_is_waited_for(in_project, brought_in, files):
    project, later = in_project[0], new_protocol(in_project[0], "ProtImportHyperparameters")
    project.saveProtocol(later)
    export = new_protocol(project, "ProtExportMotionResults", inputDoseWeights=(brought_in[0], "outputDoseWeights"),
                          inputHyperparameters=(later, "outputHyperparameters"))
    imported = new_protocol(project, "ProtImportDoseWeights", weightsFile=str(files / "bfactors.star"), dosePerFrame=1.0, inputMovies=(later, "outputMovies"))
    for protocol, label in ((export, "Hyperparameters: "), (imported, "Movies: ")):
        errors = protocol.validate()
        assert len(errors) == 1 and errors[0].startswith(label) and "does not exist yet" in errors[0]


def test_both_objects_are_shown(in_project, brought_in, tmp_path):
    domain = pw.Config.getDomain()
    for item, viewer, kind in ((brought_in[0].outputDoseWeights, DoseWeightsViewer, EmpiricalDoseWeights),
                               (brought_in[1].outputHyperparameters, HyperparametersViewer, MotionHyperparameters)):
        assert viewer in domain.findViewers(kind(), DESKTOP_TKINTER)
        path = tmp_path / (viewer.__name__ + ".png")
        viewer(project=in_project[0])._visualize(item)[0].savefig(str(path))
        assert path.stat().st_size > 10000


def test_a_prior_that_knows_the_dose_is_shown_too(in_project, tmp_path):
    item = MotionHyperparameters()
    exchange.write_hyperparameters(tmp_path / "h.json", DEFAULT_HYPERPARAMETERS)
    item.setFileName(str(tmp_path / "h.json"))
    figure = HyperparametersViewer(project=in_project[0])._visualize(item)[0].figure
    velocity = figure.axes[0].lines[0].get_ydata()
    assert velocity[0] == pytest.approx(DEFAULT_HYPERPARAMETERS.velocity_sigma * (1 + DEFAULT_HYPERPARAMETERS.early_factor))
    shown = [text.get_text() for text in figure.axes[2].texts]
    assert "1500 Å" in shown and "matern" in shown and len(shown) == 2 * len(vars(DEFAULT_HYPERPARAMETERS))     # each with its name
