"""Templates: every parameter and output they name exists, placeholders are filled wherever they stand, and the workflows run."""
import json
import os
from pathlib import Path

import pytest
import pyworkflow as pw
from pyworkflow.protocol import params
from pyworkflow.template import TemplateList

from refmotion_plugin.headless import create_project

DATA = Path(__file__).resolve().parents[1] / "data"
NAMES = ("reference_motion_correction", "relion_refinement_and_motion_correction")
every_template = pytest.mark.parametrize("name", NAMES)


def load(name, **values):
    """A template of ours as the host loads it, with the values of its placeholders."""
    templates = TemplateList()
    templates.addPluginTemplates("refmotion_plugin-" + name)
    assert [t.name for t in templates.templates] == [name]
    found = templates.templates[0]
    found.replaceEnvVariables()
    found.parseContent()
    for alias, value in values.items():
        assert found.setParamValue(alias, str(value)) == 1
    return found


def entries_of(template):
    """The workflow as a list of dictionaries."""
    path = template.createTemplateFile()
    with open(path, encoding="utf-8") as file:
        entries = json.load(file)
    os.remove(path)
    return entries


def foreign():
    """Parameters and outputs of the protocols of another plugin, as recorded: {class: (parameters, outputs)}."""
    known = json.loads((DATA / "scipion_em_relion.json").read_text(encoding="utf-8"))
    return {name: (set(p["parameters"].split()), set(p["outputs"].split())) for name, p in known.items() if name != "_source"}


def interface(class_name):
    """(parameters, outputs) of a protocol; outputs are None where the host declares none."""
    protocol_class = pw.Config.getDomain().getProtocols().get(class_name)
    if protocol_class is None:
        return foreign()[class_name]
    protocol = protocol_class()
    outputs = protocol._possibleOutputs
    names = None if outputs is None else set(outputs) if isinstance(outputs, dict) else {o.name for o in outputs}
    return {name for name, _ in protocol.iterDefinitionAttributes()}, names


def test_every_template_is_tested():
    templates = TemplateList()
    templates.addPluginTemplates()
    assert sorted(t.name for t in templates.templates if t.source == "refmotion_plugin") == sorted(NAMES)


@every_template
def test_names_only_parameters_and_outputs_that_exist(name):
    """Unknown keys are ignored by the host in silence: a renamed parameter would go unnoticed."""
    entries = entries_of(load(name))
    outputs = {}
    for entry in entries:
        parameters, outputs[entry["object.id"]] = interface(entry["object.className"])
        assert {key for key in entry if not key.startswith("object.")} - parameters == set(), entry["object.className"]
        for value in entry.values():
            source, dot, output = str(value).partition(".output")
            if dot:
                assert source in outputs, "%s is not defined before it is used" % value
                assert outputs[source] is None or "output" + output in outputs[source], value


@every_template
def test_choices_and_values_are_valid(name):
    for entry in entries_of(load(name)):
        protocol_class = pw.Config.getDomain().getProtocols().get(entry["object.className"])
        if protocol_class is None:
            continue
        for key, value in entry.items():
            parameter = protocol_class().getParam(key)
            if isinstance(parameter, params.EnumParam):
                assert isinstance(value, int) and 0 <= value < len(parameter.choices), key
            elif isinstance(parameter, params.BooleanParam):
                assert isinstance(value, bool), key
            elif isinstance(parameter, (params.IntParam, params.FloatParam)):
                assert isinstance(value, (int, float)), key


@every_template
def test_defaults_of_placeholders_are_accepted(name):
    template = load(name)
    assert [(p.getTitle(), p.validate()) for p in template.getParams().values() if p.validate()] == []
    titles, aliases = [p.getTitle() for p in template.getParams().values()], [p.getAlias() for p in template.getParams().values()]
    assert len(set(aliases)) == len(titles) and max(map(len, titles)) < 40


@every_template
def test_a_placeholder_is_filled_wherever_it_stands(name):
    entries = entries_of(load(name, gpus="3 5", threads="7", usegpu="false"))
    own = [e for e in entries if e["object.className"] in ("ProtReferenceMotionCorrection", "ProtAverageMovies")]
    assert len(own) >= 2 and {(e["gpuList"], e["numberOfThreads"], e["useGpu"]) for e in own} == {("3 5", 7, False)}


@every_template
def test_plugins_that_are_needed_are_named(name):
    missing = [e["object.className"] for e in entries_of(load(name)) if e["object.className"] in foreign()]
    assert bool(missing) == ("Needs the plugin scipion-em-relion" in load(name).description)


def test_the_record_of_the_other_plugin_is_right():
    pytest.importorskip("relion", reason="scipion-em-relion is not installed")
    for class_name, (parameters, outputs) in foreign().items():
        protocol = pw.Config.getDomain().getProtocols()[class_name]()
        assert parameters == {n for n, _ in protocol.iterDefinitionAttributes()}
        assert outputs == set(protocol._possibleOutputs if isinstance(protocol._possibleOutputs, dict)
                              else [o.name for o in protocol._possibleOutputs])


def answers(folder, pixel, **more):
    """Values of the placeholders of the self-contained template for a RELION folder."""
    return dict(project=folder, half1=folder / "half1.mrc", half2=folder / "half2.mrc", mask=folder / "mask.mrc", pixel=pixel,
                usegpu="false", threads=1, **more)


def test_self_contained_workflow_is_connected(relion_folder):
    project = create_project("template")
    template = load(NAMES[0], **answers(relion_folder[0], 2.2, movies="MotionCorr/corrected_micrographs.star", particles="particles.star"))
    project.loadProtocols(template.createTemplateFile())
    runs = {run.getClassName(): run for run in project.getRuns()}
    assert set(runs) == {"ProtImportRelionMovies", "ProtImportVolumes", "ProtImportMask", "ProtReferenceMotionCorrection", "ProtAverageMovies"}
    correction = runs["ProtReferenceMotionCorrection"]
    for name, extended in (("inputMovies", "outputMovies"), ("inputParticles", "outputParticles"), ("inputVolume", "outputVolume"),
                           ("inputMask", "outputMask")):
        pointer = getattr(correction, name)
        assert pointer.getObjValue() is not None and pointer.getExtended() == extended
    weights = runs["ProtAverageMovies"].inputDoseWeights
    assert weights.getObjValue().getObjId() == correction.getObjId() and weights.getExtended() == "outputDoseWeights"
    assert runs["ProtImportVolumes"].half1map.get() == runs["ProtImportVolumes"].filesPath.get()
