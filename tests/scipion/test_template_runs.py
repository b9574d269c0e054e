"""The templates' workflows run to their end on tiny simulated movies, with the real engine."""
import json
import os

import pytest

from refmotion_plugin.headless import create_project

from .test_template import NAMES, answers, entries_of, load

pytest.importorskip("torch", reason="the engine is not installed in this interpreter")

from refmotion_plugin.engine.simulate import SimulationSpec, simulate  # noqa: E402

SPEC = SimulationSpec(movies=2, particles=14, frames=10, size_yx=(512, 512), box=96, seed=5, dose_per_frame=2.4, contrast_scale=2.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A simulated RELION project."""
    return simulate(tmp_path_factory.mktemp("simulated"), SPEC)


def self_contained(paths):
    """Entries of the self-contained template for the simulated project."""
    return entries_of(load(NAMES[0], movies=paths.corrected_micrographs, particles=paths.particles[0], binning=2.0,
                           **answers(paths.folder, SPEC.pixel_angstrom)))


def run_all(project, entries):
    """Run a workflow's protocols in its order: {id in the template: protocol}."""
    protocols = project.loadProtocols(jsonStr=json.dumps(entries))
    for protocol in protocols.values():
        project.launchProtocol(protocol, wait=True)
        assert protocol.isFinished(), "%s: %s" % (protocol.getRunName(), protocol.getErrorMessage())
    return protocols


def listing(folder):
    """{path: (size, time of change)} of everything below a folder."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


@pytest.mark.slow
def test_self_contained_workflow(simulated):
    """It ends well, and nothing is written where the movies are: their storage may be read-only."""
    before = listing(simulated.folder)
    runs = run_all(create_project("template_run"), self_contained(simulated))
    assert runs["40"].outputParticles.getSize() == SPEC.movies * SPEC.particles
    micrographs = runs["50"].outputMicrographsDoseWeighted
    assert micrographs.getSize() == SPEC.movies and micrographs.getDim()[:2] == (256, 256)
    with open(runs["50"]._getExtraPath("averages", "average.json"), encoding="utf-8") as file:
        assert json.load(file)["dose"]["weights_file"] == runs["40"].outputDoseWeights.getFileName()
    assert listing(simulated.folder) == before


@pytest.mark.slow
def test_hyperparameters_then_weights_then_production(simulated):
    """The part of the large workflow that is ours, on imported movies, particles and maps instead of RELION's."""
    larger = entries_of(load(NAMES[1], usegpu="false", threads=1, weightmovies=1, searchparticles=10, coordinates=SPEC.pixel_angstrom))
    own = json.dumps([e for e in larger if e["object.id"] in ("300", "350", "400", "450", "500")])
    for theirs, imported in (("50.outputMovies", "2.outputMovies"), ("200.outputParticles", "2.outputParticles"),
                             ("200.outputVolume", "20.outputVolume"), ("250.outputMask", "30.outputMask")):
        assert theirs in own
        own = own.replace('"%s"' % theirs, '"%s"' % imported)
    imports = [e for e in self_contained(simulated) if e["object.id"] in ("2", "20", "30")]
    runs = run_all(create_project("template_production"), imports + json.loads(own))
    searched, weights, particles = runs["300"], runs["400"], runs["450"]
    assert hasattr(searched, "outputHyperparameters") and not hasattr(searched, "outputDoseWeights")
    assert hasattr(weights, "outputDoseWeights") and not hasattr(weights, "outputParticles")
    assert len(os.listdir(weights._getExtraPath("job", "movies"))) == 1
    assert particles.outputParticles.getSize() == SPEC.movies * SPEC.particles
    assert [s.funcName.get() for s in particles.loadSteps()] == ["convertInputStep", "alignAndPolishStep", "createOutputStep"]
    assert runs["500"].outputMicrographsDoseWeighted.getSize() == SPEC.movies
