"""The form: defaults are the spec's, and every wrong input gets one sentence before anything runs."""
import re

import mrcfile
import numpy as np
import pytest
from pwem.objects import SetOfMovies, SetOfParticles, Volume, VolumeMask
from pyworkflow.protocol import params
from pyworkflow.viewer import ProtocolViewer

from refmotion_plugin import protocols, viewers
from refmotion_plugin.contract import guidance
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.headless import new_protocol
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters
from refmotion_plugin.protocols import form_fields

from .relion_files import write_map


def test_defaults_of_the_form_are_those_of_the_spec(correction):
    assert form_fields.values_of(correction) == {}


def test_every_field_reaches_the_spec(correction):
    changed = {"velocitySigma": 0.5, "correlationDistance": 900.0, "accelerationSigma": 0.1, "searchThoroughness": 2, "targetParticles": 500,
               "fourierFraction": 0.4, "maxPriorStrength": 100.0, "searchCache": 1.0, "rigidOnly": True, "resolutionLimit": 4.0,
               "allComponents": False, "searchRadius": 6.0, "alignmentPasses": 3, "fitLowResolution": 25.0, "weightNormalisation": 1, "weightsTolerance": 0.002,
               "firstFrame": 2, "lastFrame": 4, "gainFile": "g.mrc", "gainRotation": 3, "gainFlip": 2, "movieFlip": 2, "defectFile": "d.txt",
               "hotPixelSigma": 5.0, "eerGrouping": 30, "preflight": False, "halfSetsFromOrder": True, "skipOtherFrameCounts": True, "stopAfter": 1, "boxSize": 64,
               "cropBoxSize": 32, "float16": True, "recenter": True, "reconstruct": True, "reconstructionSymmetry": "I2", "tracksStar": True, "particleDiameter": 120.0, "memory": 3.0, "gpuMemory": 8.0, "scratch": 2.0, "moviesPerGpu": 1, "oversubscription": 40.0, "slicingDevice": "cpu",
               "workers": 2, "clusterFile": "c.json", "schedulerAddress": "tcp://h:1", "readTimeout": 60.0, "workerTimeout": 60.0}
    assert set(changed) == {field.name for field in form_fields.ALL}
    for name, value in changed.items():
        getattr(correction, name).set(value)
    references = [{"half1": "1.mrc", "half2": "2.mrc", "mask": None}]
    spec = JobSpec.build(correction._jobData({"movies": "m.star", "references": references}))
    for field in form_fields.ALL:
        value = changed[field.name]
        assert getattr(getattr(spec, field.part), field.key) == (field.choices[value] if field.choices else value) != form_fields.default_of(field), field.name
    assert spec.compute.device == "cpu"


EVERY_FIELD = form_fields.ALL + form_fields.AVERAGE


def test_guidance_and_form_have_the_same_parameters():
    assert set(guidance.GUIDANCE) == {(f.part, f.key) for f in EVERY_FIELD}


@pytest.mark.parametrize("field", EVERY_FIELD, ids=lambda f: "%s-%s" % (f.part, f.name))
def test_every_help_says_unit_special_values_and_when(field):
    text = form_fields.help_of(field)
    assert "_When_: " in text and "A per" not in text and "/A^2" not in text
    if field.kind is params.FloatParam and field.key not in ("fourier_fraction", "max_prior_strength", "binning", "hot_pixel_sigma", "error_tolerance"):
        assert re.search(r"\((.*(Å|GiB).*|s)\)", field.label), "no unit in %r" % field.label
    if form_fields.default_of(field) is None and not field.choices:
        assert re.search("[Ee]mpty:", text), text


def test_names_of_other_programs_are_shown():
    by_name = {field.name: field for field in form_fields.ALL}
    assert "CryoSPARC: Override: spatial prior strength; RELION: Sigma for velocity." in form_fields.help_of(by_name["velocitySigma"])
    assert "_Elsewhere_" not in form_fields.help_of(by_name["preflight"])


def test_layout_of_the_form(correction):
    sections = [s.getLabel() for s in correction._definition.iterSections()]
    assert sections == ["General", "Input", "Motion and dose", "Movies", "Output", "Streaming", "Parallelization"]
    assert all(correction.getParam(f.name) is not None for f in form_fields.ALL)
    names = [n for n, _ in correction._definition.iterAllParams()]
    assert len(names) == len(set(names))


def test_fields_of_the_search_show_when_it_is_on(correction):
    for field in form_fields.SEARCH[1:]:
        shown = []
        for choice in (0, 1):
            correction.searchThoroughness.set(choice)
            shown.append(correction._definition.evalParamCondition(field.name))
        assert shown == [False, True], field.name


def test_complete_inputs_have_no_errors(correction):
    assert correction.validate() == [] and correction._warnings() == []


def test_one_of_three_strengths_alone(correction):
    correction.velocitySigma.set(0.4)
    assert "all three or not at all" in "".join(correction.validate())


@pytest.mark.parametrize("values, said", [
    ({"velocitySigma": 0.4}, "The form: only 'Spatial prior strength (Å per e/Å²)' given: spatial strength"),
    ({"velocitySigma": -1.0, "correlationDistance": 9.0, "accelerationSigma": 1.0}, "The form: 'Spatial prior strength (Å per e/Å²)': Input should be greater than 0"),
    ({"boxSize": 33}, "The form: 'Box size (movie px)' is 33: it must be even"), ({"firstFrame": 5, "lastFrame": 3}, "The form: the last frame 3 comes before the first frame 5"),
    ({"cropBoxSize": 34}, "as wide as the map: 32 px"), ({"cropBoxSize": 32}, ""), ({"defectFile": "/no/such.txt"}, "Defect file: /no/such.txt is not a file")])
def test_what_the_form_refuses_is_said_in_its_words(correction, values, said):
    for name, value in values.items():
        getattr(correction, name).set(value)
    errors = correction.validate()
    assert len(errors) == bool(said) and said in "".join(errors) and "_" not in "".join(errors)


def test_an_unknown_symmetry(correction):
    correction.reconstruct.set(True)
    correction.reconstructionSymmetry.set("D0")
    assert "symmetry is 'D0'" in "".join(correction.validate())


def test_the_symmetry_is_asked_for_with_the_reconstruction(correction):
    shown = []
    for choice in (False, True):
        correction.reconstruct.set(choice)
        shown.append(bool(correction._definition.evalParamCondition("reconstructionSymmetry")))
    assert shown == [False, True]
    correction.stopAfter.set(1)
    assert not any(correction._definition.evalParamCondition(name) for name in ("reconstruct", "reconstructionSymmetry"))


@pytest.mark.parametrize("name, value", (("velocitySigma", 0.4), ("rigidOnly", True)))
def test_a_search_that_will_not_be_made_is_told(correction, name, value):
    getattr(correction, name).set(value)
    assert not any("searched" in text for text in correction._warnings())
    correction.searchThoroughness.set(1)
    assert any("will not be searched" in text for text in correction._warnings())


@pytest.mark.parametrize("item", [protocols.ProtReferenceMotionCorrection, protocols.ProtAverageMovies, protocols.ProtImportDoseWeights, protocols.ProtImportHyperparameters,
                                  protocols.ProtExportMotionResults, protocols.ProtImportRelionMovies, viewers.ReferenceMotionCorrectionViewer,
                                  viewers.AverageMoviesViewer], ids=lambda item: item.__name__)
def test_every_field_has_its_help(item, in_project, correction):
    made = item(project=in_project[0])
    if isinstance(made, ProtocolViewer):
        made.setProtocol(correction)
    fields = [field for section in made._definition.iterSections() if section.getLabel() not in ("General", "Parallelization") for field in fields_of(section)]
    assert fields and [name for name, field in fields if len(str(field.help.get())) < 8] == []


def fields_of(group):
    """(name, field) of a section or group, those in groups too."""
    for name, field in group.iterParams():
        yield from fields_of(field) if isinstance(field, params.Group) else [(name, field)]


def test_odd_box(correction):
    correction.boxSize.set(33)
    assert "must be even" in "".join(correction.validate())


def replaced(correction, name, make):
    """Replace an input by a copy of its set that ``make`` has changed."""
    source = getattr(correction, name).get()
    copy = make(source)
    getattr(correction, name).set(copy)
    getattr(correction, name).setExtended(None)
    return correction.validate()


def particle_copy(in_project, change, set_change=None):
    def make(source):
        copy = SetOfParticles(filename=":memory:")
        copy.copyInfo(source)
        if set_change:
            set_change(copy)
        for particle in source:
            item = particle.clone()
            change(item)
            copy.append(item)
        return copy
    return make


def test_no_half_sets(correction, in_project):
    errors = replaced(correction, "inputParticles", particle_copy(in_project, lambda p: delattr(p, "_rlnRandomSubset")))
    assert len(errors) == 1 and "no half-sets" in errors[0] and "gold-standard" in errors[0]
    correction.halfSetsFromOrder.set(True)
    assert correction.validate() == [] and "made up" in "".join(correction._warnings())


def test_no_orientations(correction, in_project):
    errors = replaced(correction, "inputParticles", particle_copy(in_project, lambda p: p.setTransform(None), lambda s: s.setAlignment("None")))
    assert "no orientations" in "".join(errors)


def test_no_ctf_and_no_coordinates(correction, in_project):
    def strip(particle):
        particle.setCTF(None)
        particle.setCoordinate(None)
    errors = "".join(replaced(correction, "inputParticles", particle_copy(in_project, strip)))
    assert "no CTF" in errors and "no coordinates" in errors


def test_particles_of_other_movies(correction, in_project):
    def rename(particle):
        particle.getCoordinate().setMicName("elsewhere.mrc")
        particle.getCoordinate().setMicId(99)
    errors = replaced(correction, "inputParticles", particle_copy(in_project, rename))
    assert "None of the particles belongs to one of the movies" in errors[0] and "elsewhere.mrc" in errors[0]


def test_some_particles_of_other_movies_are_counted(correction, in_project):
    def rename(particle):
        if particle.getObjId() <= 5:
            particle.getCoordinate().setMicName("elsewhere.mrc")
    assert replaced(correction, "inputParticles", particle_copy(in_project, rename)) == []
    assert "7 of 12 particles belong to one of the movies" in "".join(correction._warnings())


def test_coordinates_outside_the_movie(correction):
    correction.coordinatePixel.set(5.5)
    errors = correction.validate()
    assert len(errors) == 1 and "movies are 96 x 80 px" in errors[0] and "pixel size" in errors[0]


def movie_copy(change_item=None, change_set=None):
    def make(source):
        copy = SetOfMovies(filename=":memory:")
        copy.copyInfo(source)
        if change_set:
            change_set(copy)
        for movie in source:
            item = movie.clone()
            if change_item:
                change_item(item)
            copy.append(item)
        return copy
    return make


def test_movies_without_alignment(correction):
    errors = replaced(correction, "inputMovies", movie_copy(lambda movie: movie.setAlignment(None)))
    assert "have no alignment" in errors[0]


def test_movies_without_dose(correction):
    def no_dose(of):
        of.getAcquisition().setDosePerFrame(None)
    errors = replaced(correction, "inputMovies", movie_copy(no_dose, no_dose))
    assert errors[0].startswith("The movies have no dose per frame")


def test_aligned_stacks_are_warned_of(correction):
    def zero(movie):
        alignment = movie.getAlignment()
        alignment._xshifts.set([0.0] * 5)
        alignment._yshifts.set([0.0] * 5)
        movie._rlnMotionModelCoeff.set("[]")
    assert replaced(correction, "inputMovies", movie_copy(zero)) == []
    assert "All shifts of the movies are zero" in "".join(correction._warnings())


def test_gain_orientation_is_warned_of_until_it_is_given(correction):
    replaced(correction, "inputMovies", movie_copy(None, lambda movies: movies.setGain("gain.mrc")))
    assert "gain reference is used as it was imported" in "".join(correction._warnings())
    correction.gainFlip.set(1)
    assert correction._warnings() == []


def volume_of(half1, half2, pixel=2.2):
    volume = Volume(location=half1)
    volume.setSamplingRate(pixel)
    if half2:
        volume.setHalfMaps([half1, half2])
    return volume


@pytest.mark.parametrize("box2, pixel, expected", [(20, 2.2, "give maps of the same box"), (16, 8.8, "one of the two pixel sizes is wrong")])
def test_maps_that_do_not_fit(correction, tmp_path, box2, pixel, expected):
    half1, half2 = write_map(tmp_path / "a.mrc"), write_map(tmp_path / "b.mrc", box=box2)
    correction.inputMask.set(None)
    assert expected in "".join(replaced(correction, "inputVolume", lambda _: volume_of(half1, half2, pixel)))


@pytest.mark.parametrize("says, count", [(0.0, 0), (1.0, 0), (2.2, 0), (1.9, 2)])
def test_a_header_of_another_voxel_size_is_warned_of(correction, tmp_path, says, count):
    halves = [write_map(tmp_path / name, pixel=says) for name in ("a.mrc", "b.mrc")]
    assert replaced(correction, "inputVolume", lambda _: volume_of(*halves)) == []
    found = correction._warnings()
    assert len(found) == count and all("says 1.9000 Å/px, but the volume has 2.2000" in text for text in found)


def test_no_half_maps(correction, tmp_path):
    errors = replaced(correction, "inputVolume", lambda _: volume_of(write_map(tmp_path / "a.mrc"), None))
    assert "no two half-maps" in "".join(errors)


def test_missing_half_map_file(correction, tmp_path):
    errors = replaced(correction, "inputVolume", lambda _: volume_of(write_map(tmp_path / "a.mrc"), str(tmp_path / "gone.mrc")))
    assert "Half-map 2 does not exist" in "".join(errors)


def test_half_map_that_is_no_cube(correction, tmp_path):
    paths = [str(tmp_path / name) for name in ("a.mrc", "b.mrc")]
    for path in paths:
        with mrcfile.new(path) as file:
            file.set_data(np.zeros((16, 16, 12), np.float32))
    assert "a cube was expected" in "".join(replaced(correction, "inputVolume", lambda _: volume_of(*paths)))


def test_mask_on_another_grid(correction, tmp_path):
    def mask(_):
        item = VolumeMask(location=write_map(tmp_path / "m.mrc", value=1.0))
        item.setSamplingRate(1.1)
        return item
    assert "The mask has 1.1000 Å/px, but the volume 2.2000" in "".join(replaced(correction, "inputMask", mask))


def test_the_same_particles_twice(correction, in_project):
    correction.numberOfReferences.set(1)
    correction.inputParticles2.copy(correction.inputParticles)
    correction.inputVolume2.copy(correction.inputVolume)
    assert "Two references have the same input particles" in "".join(correction.validate())


def test_missing_inputs_are_named_by_the_host(in_project):
    errors = new_protocol(in_project[0], "ProtReferenceMotionCorrection").validate()
    assert len(errors) == 3 and all("cannot be EMPTY" in error for error in errors)


def test_a_protocol_that_scipion_does_not_know_is_named_with_the_usual_reason(in_project):
    with pytest.raises(RuntimeError, match="and not ProtNobodyWrote.*python3-tk"):
        new_protocol(in_project[0], "ProtNobodyWrote")


OPTIONAL = [("inputMask", "Input mask"), ("inputHyperparameters", "Input hyperparameters"), ("inputDoseWeights", "Input dose weights")]


def connect_to_be_made(project, protocol, name):
    """Connect an input to an output of a run that was not started; returns a function that makes the output."""
    earlier = new_protocol(project, "ProtReferenceMotionCorrection")
    project.saveProtocol(earlier)
    getattr(protocol, name).set(earlier)
    getattr(protocol, name).setExtended("outputOfIt")
    return lambda item: setattr(earlier, "outputOfIt", item)


@pytest.mark.parametrize("name, label", OPTIONAL)
def test_an_optional_input_that_does_not_exist_yet_is_waited_for(correction, in_project, name, label):
    """The host starts a scheduled run when nothing is complained of."""
    make = connect_to_be_made(in_project[0], correction, name)
    errors = correction.validate()
    assert len(errors) == 1 and errors[0].startswith(label + ": the output that was chosen does not exist yet")
    assert correction.getInputStatus() == (False, False, True)         # with these the form offers to schedule, and asks nothing else
    make({"inputMask": in_project[3].outputMask, "inputHyperparameters": MotionHyperparameters(), "inputDoseWeights": EmpiricalDoseWeights()}[name])
    assert correction.validate() == []


def test_an_input_of_a_reference_that_is_not_used_is_not_waited_for(correction, in_project):
    connect_to_be_made(in_project[0], correction, "inputMask2")
    assert correction.validate() == []


def test_averages_wait_for_their_dose_weights(in_project):
    protocol = new_protocol(in_project[0], "ProtAverageMovies", inputMovies=(in_project[1], "outputMovies"), useGpu=False, numberOfThreads=1)
    make = connect_to_be_made(in_project[0], protocol, "inputDoseWeights")
    assert [text[:50] for text in protocol.validate()] == ["Dose weights: the output that was chosen does not "]
    make(EmpiricalDoseWeights())
    assert protocol.validate() == []
