"""Averaging movies in a Scipion project with the real engine: outputs, names and ids, dose weights as an input, faults."""
import os
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from pwem.objects import SetOfMicrographs
from pwem.protocols import ProtImportMovies

from refmotion_plugin import convert
from refmotion_plugin.contract.averages import AverageResults
from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.store import save_weights
from refmotion_plugin.headless import create_project, new_protocol, run_protocol

pytest.importorskip("torch", reason="the engine is not installed in this interpreter")

from tests.unit.average_movies import DOSE, PIXEL, write_list, write_movie  # noqa: E402

from .growing_sets import GrowingSet, wait_for  # noqa: E402

SHAPE, SHIFT = (6, 48, 64), np.arange(12).reshape(6, 2) * [0.5, -0.3]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A project with three movies and with dose weights that leave out the first frame: (folder, project, movies, weights)."""
    before, folder = os.getcwd(), tmp_path_factory.mktemp("averages")
    for i in range(3):
        write_movie(folder, "m%d" % i, np.random.default_rng(i).poisson(3.0, size=SHAPE), SHIFT,
                    coefficients=np.linspace(-0.01, 0.01, 36) if i == 1 else None)
    star = write_list(folder, ["m0", "m1", "m2"], groups=[1, 2, 1])
    table, zero = np.ones((1, 6, 2)), np.zeros((1, 6))
    table[:, 0] = 0
    save_weights(folder / "weights.npz", DoseWeights(table, np.array([0.0, 1.0]), DOSE * (np.arange(6) + 0.5), zero, zero, zero, zero,
                                                     "sum", "test"))
    project = create_project("averages")
    movies = run_protocol(project, "ProtImportRelionMovies", projectFolder=str(folder), moviesStar=str(star))
    weights = run_protocol(project, "ProtImportDoseWeights", weightsFile=str(folder / "weights.npz"))
    os.chdir(before)
    return folder, project, movies, weights


@pytest.fixture
def averaging(imported):
    """Function that makes the protocol, not run, in the project's folder."""
    os.chdir(imported[1].path)

    def make(**parameters):
        return new_protocol(imported[1], "ProtAverageMovies", **dict(dict(inputMovies=(imported[2], "outputMovies"), useGpu=False,
                                                                          numberOfThreads=1), **parameters))
    return make


def finished(project, protocol):
    project.launchProtocol(protocol, wait=True)
    assert protocol.isFinished(), protocol.getErrorMessage()
    return protocol


def image(item):
    with mrcfile.open(item.getFileName()) as file:
        return np.array(file.data)


def test_standard_curve_names_ids_and_pixel(averaging, imported):
    protocol = finished(imported[1], averaging(binning=2.0, evenOdd=1))
    movies = imported[2].outputMovies
    expected = [(m.getObjId(), m.getMicName(), m.getAttributeValue("_rlnOpticsGroup")) for m in movies]
    names = [name for name, _ in protocol.iterOutputAttributes()]
    assert sorted(names) == ["outputMicrographs", "outputMicrographsDoseWeighted", "outputMicrographsEven", "outputMicrographsOdd"]
    for name in names:
        output = getattr(protocol, name)
        assert [(m.getObjId(), m.getMicName(), m.getAttributeValue("_rlnOpticsGroup")) for m in output] == expected
        assert output.getSamplingRate() == pytest.approx(2 * PIXEL) and output.getDim()[:2] == (32, 24)
        assert output.getAcquisition().getDosePerFrame() == DOSE and output.getAcquisition().getVoltage() == 300
        assert float(output.getFirstItem().getSamplingRate()) == pytest.approx(2 * PIXEL)
        assert {row["rlnMicrographPixelSize"] for row in convert.optics_rows(output.getAcquisition())} == {"3.0"}
    first = protocol.outputMicrographsDoseWeighted.getFirstItem()
    steps = np.linalg.norm(np.diff(SHIFT, axis=0), axis=1) * PIXEL
    early = DOSE * np.arange(2, 7) <= 4.0
    for name, expected in (("Total", steps.sum()), ("Early", steps[early].sum()), ("Late", steps[~early].sum())):
        assert first.getAttributeValue("_rlnAccumMotion" + name) == pytest.approx(expected, rel=1e-4), name
    plain, even, odd = (image(getattr(protocol, n).getFirstItem()) for n in ("outputMicrographs", "outputMicrographsEven", "outputMicrographsOdd"))
    assert np.allclose(even + odd, plain, atol=1e-3) and plain.mean() == pytest.approx(18, rel=0.05)
    weighted = image(protocol.outputMicrographsDoseWeighted.getFirstItem())
    assert weighted.mean() == pytest.approx(18 / np.sqrt(6), rel=0.05)
    assert protocol.summary() == ["3 of 3 movies averaged."] and "standard exposure curve" in protocol.methods()[0]


def test_measured_weights_are_used(averaging, imported):
    project, weights = imported[1], imported[3]
    protocol = finished(project, averaging(inputDoseWeights=(weights, "outputDoseWeights"), float16=True, unweighted=False))
    spec = AverageSpec.read(protocol._getExtraPath("averages", "average.json"))
    assert spec.dose.weights_file == weights.outputDoseWeights.getFileName() and not spec.output.unweighted
    assert not hasattr(protocol, "outputMicrographs")
    first = image(protocol.outputMicrographsDoseWeighted.getFirstItem())
    assert first.dtype == np.float16 and first.mean(dtype=float) == pytest.approx(3 * np.sqrt(5), rel=0.05)     # five frames of equal weight
    assert "with given dose weights" in protocol.methods()[0]


def test_kinds_that_are_not_asked_for_any_more_are_taken_away(averaging, imported):
    protocol = finished(imported[1], averaging(evenOdd=1))
    protocol.evenOdd.set(0)
    protocol.unweighted.set(False)
    finished(imported[1], protocol)
    assert [name for name, _ in protocol.iterOutputAttributes()] == ["outputMicrographsDoseWeighted"]


def test_micrographs_of_another_binning_go_at_the_start(averaging, imported):
    """Their images are written over one by one: a set of the old ones would have a wrong pixel size if this start were stopped."""
    protocol = finished(imported[1], averaging())
    protocol.numberOfThreads.set(2)
    protocol.makePathsAndClean()
    assert protocol.outputMicrographs.getSize() == protocol.outputMicrographsDoseWeighted.getSize() == 3
    protocol.binning.set(2.0)
    protocol.makePathsAndClean()
    assert list(protocol.iterOutputAttributes()) == []


def test_a_broken_movie_is_listed_and_the_rest_is_done(averaging, imported):
    folder, project = imported[:2]
    path = folder / "Movies" / "m1.mrcs"
    whole, protocol = path.read_bytes(), averaging()
    path.write_bytes(whole[:20000])
    try:
        finished(project, protocol)
    finally:
        path.write_bytes(whole)
    assert [m.getObjId() for m in protocol.outputMicrographsDoseWeighted] == [1, 3]
    assert protocol.summary()[0] == "2 of 3 movies averaged." and "m1" in protocol.summary()[2]
    assert [m.state for m in AverageResults(protocol._getExtraPath("averages")).movies()] == ["done", "failed", "done"]
    protocol.outputMicrographsDoseWeighted.close()      # its file is made anew
    finished(project, protocol)         # Continue, with the movie as it was
    assert [m.getObjId() for m in protocol.outputMicrographsDoseWeighted] == [1, 2, 3] and protocol.summary() == ["3 of 3 movies averaged."]


def test_movies_that_still_come(averaging, imported):
    """Micrographs are published as movies finish; a broken first movie does not stop the stream and is tried again with the next batch."""
    folder, project = imported[:2]
    movies = GrowingSet(project, ProtImportMovies, "outputMovies", imported[2].outputMovies, lambda m: m.getObjId() == 2)
    path = folder / "Movies" / "m1.mrcs"
    whole = path.read_bytes()
    path.write_bytes(whole[:20000])
    protocol = averaging(inputMovies=movies.pointer, batchMovies=1, unweighted=False)
    assert protocol.validate() == [] and protocol.worksInStreaming()
    project.launchProtocol(protocol, wait=False)
    state = Path(protocol._getExtraPath("averages", "status.jsonl"))
    wait_for(lambda: state.exists() and "finished" in state.read_text())
    path.write_bytes(whole)
    movies.add(lambda m: m.getObjId() != 2)
    wait_for(lambda: size_of(protocol) >= 2)
    movies.close()
    wait_for(lambda: not updated(project, protocol).isActive())
    assert protocol.isFinished(), protocol.getErrorMessage()
    output = protocol.outputMicrographsDoseWeighted
    assert output.isStreamClosed() and output.getSize() == 3
    assert [(m.getObjId(), m.getMicName()) for m in output] == [(m.getObjId(), m.getMicName()) for m in imported[2].outputMovies]
    assert protocol.summary() == ["3 of 3 movies averaged."] and not hasattr(protocol, "outputMicrographs")


def size_of(protocol):
    """Micrographs in the output's file now."""
    path = protocol._getPath("micrographs_weighted.sqlite")
    return SetOfMicrographs(filename=path).getSize() if os.path.exists(path) else 0


def updated(project, protocol):
    project._updateProtocol(protocol)
    return protocol


def test_what_the_form_refuses(averaging, imported):
    assert averaging(binning=0.5).validate()[0].startswith("The form: 'Binning")
    assert "comes before the first frame 5" in averaging(firstFrame=5, lastFrame=3).validate()[0]
    assert averaging(gainFile="/no/such.mrc").validate() == ["Gain reference: /no/such.mrc is not a file: correct the path, or leave the field empty."]
    assert averaging().validate() == []
    bare = averaging()
    movies = bare._createSetOfMovies("_bare")
    movies.copyInfo(imported[2].outputMovies)
    bare.inputMovies.set(movies)
    assert "empty set" in bare.validate()[0]


def test_the_form_offers_what_the_spec_has(averaging):
    protocol = averaging()
    from refmotion_plugin.protocols.protocol_average_movies import FIELDS
    offered = {f.key for f in FIELDS}
    spec = {key for part in ("inputs", "output", "compute") for key in AverageSpec.model_fields[part].annotation.model_fields}
    assert offered == spec - {"movies", "growing", "device", "threads"} and all(hasattr(protocol, f.name) for f in FIELDS)
