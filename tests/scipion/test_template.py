"""Templates load, connect, and name parameters that exist."""
import json

import pyworkflow as pw
import pytest
from pyworkflow.template import TemplateList
from refmotion_plugin.headless import create_project

VALUES = {"movies": "MotionCorr/corrected_micrographs.star", "particles": "particles.star", "pixel": "2.2", "maskpixel": "2.2", "gpus": "0"}


@pytest.fixture
def template(relion_folder):
    project = create_project("template")
    templates = TemplateList()
    templates.addPluginTemplates("refmotion_plugin-reference_motion_correction")
    found = templates.templates[0]
    found.replaceEnvVariables()
    found.parseContent()
    folder = relion_folder[0]
    for alias, value in dict(VALUES, project=folder, map=folder / "half1.mrc", half1=folder / "half1.mrc", half2=folder / "half2.mrc", mask=folder / "mask.mrc").items():
        found.setParamValue(alias, str(value))
    return project, found


def test_template_makes_a_connected_workflow(template):
    project, found = template
    project.loadProtocols(found.createTemplateFile())
    runs = {run.getClassName(): run for run in project.getRuns()}
    assert set(runs) == {"ProtImportRelionMovies", "ProtImportVolumes", "ProtImportMask", "ProtReferenceMotionCorrection"}
    correction = runs["ProtReferenceMotionCorrection"]
    for name, extended in (("inputMovies", "outputMovies"), ("inputParticles", "outputParticles"), ("inputVolume", "outputVolume"),
                           ("inputMask", "outputMask")):
        pointer = getattr(correction, name)
        assert pointer.getObjValue() is not None and pointer.getExtended() == extended
    assert runs["ProtImportVolumes"].half1map.get() == runs["ProtImportVolumes"].filesPath.get()


def test_template_names_only_parameters_that_exist(template):
    """Unknown keys are ignored by the host in silence: a renamed parameter would go unnoticed."""
    with open(template[1].createTemplateFile(), encoding="utf-8") as file:
        entries = json.load(file)
    protocols = pw.Config.getDomain().getProtocols()
    for entry in entries:
        protocol = protocols[entry["object.className"]]()
        assert [key for key in entry if not key.startswith("object.") and protocol.getParam(key) is None] == []
