"""The protocol with the real engine on tiny simulated movies of two species: outputs, gain against the truth, Continue after a kill."""
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.processes import start_of
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.headless import create_project, new_protocol, run_protocol

from .conftest import import_maps

pytest.importorskip("torch", reason="the engine is not installed in this interpreter")

from refmotion_plugin.engine.run.lock import holder  # noqa: E402
from refmotion_plugin.engine.simulate import SimulationSpec, simulate, trajectory_error  # noqa: E402

SPEC = SimulationSpec(movies=2, particles=14, frames=12, size_yx=(512, 512), box=96, species=2, seed=11, dose_per_frame=2.4,
                      spatial_correlation_angstrom=700.0, contrast_scale=2.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A simulated project imported into Scipion: (paths, project, imports, volumes and masks of both species)."""
    before = os.getcwd()
    paths = simulate(tmp_path_factory.mktemp("simulated"), SPEC)
    project = create_project("engine")
    imported = run_protocol(project, "ProtImportRelionMovies", projectFolder=str(paths.folder),
                            moviesStar=str(paths.corrected_micrographs), particlesStar=" ".join(map(str, paths.particles)))
    maps = [import_maps(project, paths.folder, SPEC.pixel_angstrom, suffix) for suffix in SPEC.species_suffixes]
    os.chdir(before)
    return paths, project, imported, maps


def correction_of(simulated, references=1, **parameters):
    """The protocol with inputs of one or both species, in the project's folder."""
    _, project, imported, maps = simulated
    os.chdir(project.path)
    inputs = {}
    for index, suffix in zip(range(references), ("", "2")):
        volume, mask = maps[index]
        inputs.update({"inputParticles" + suffix: (imported, "outputParticles" + suffix),
                       "inputVolume" + suffix: (volume, "outputVolume"), "inputMask" + suffix: (mask, "outputMask")})
    return new_protocol(project, "ProtReferenceMotionCorrection", inputMovies=(imported, "outputMovies"), useGpu=False,
                        numberOfThreads=1, numberOfReferences=references - 1, **inputs, **parameters)


def errors_against_truth(protocol, paths, reference):
    """Trajectory errors (rigid, estimated) of one species over all movies, Å."""
    results, rigid, estimated, true = JobResults(protocol._getExtraPath("job")), [], [], []
    for index in range(SPEC.movies):
        found = results.trajectories(SPEC.movie_name(index))
        own = found.reference == reference
        with np.load(paths.truth / (SPEC.movie_name(index) + SPEC.species_suffixes[reference] + ".npz")) as file:
            true.append(file["displacement_yx_angstrom"][found.row[own] - index * SPEC.particles])
        rigid.append(found.initial_yx_angstrom[own])
        estimated.append(found.displacement_yx_angstrom[own])
    return [trajectory_error(np.concatenate(t), np.concatenate(true)).all_frames for t in (rigid, estimated)]


@pytest.mark.slow
def test_two_species_are_corrected_together(simulated):
    paths, project, imported, _ = simulated
    protocol = correction_of(simulated, references=2)
    project.launchProtocol(protocol, wait=True)
    assert protocol.isFinished(), protocol.getErrorMessage()
    for reference, suffix in enumerate(("", "2")):
        output, source = (getattr(p, "outputParticles" + suffix) for p in (protocol, imported))
        assert output.getSize() == source.getSize() == SPEC.movies * SPEC.particles
        halves = {p.getObjId(): p._rlnRandomSubset.get() for p in source}
        assert {p.getObjId(): p._rlnRandomSubset.get() for p in output} == halves
        rigid, estimated = errors_against_truth(protocol, paths, reference)
        assert estimated < 0.8 * rigid, (reference, rigid, estimated)
    stacks = sorted({p.getFileName() for p in protocol.outputParticles} | {p.getFileName() for p in protocol.outputParticles2})
    assert len(stacks) == 2 * SPEC.movies and all(os.path.exists(s) for s in stacks)
    assert "2 of 2 movies aligned, 2 polished." in protocol.summary()
    assert Path(protocol._getExtraPath("job", "report.html")).exists()


@pytest.mark.slow
def test_continue_after_a_kill_redoes_only_unfinished_movies(simulated):
    """First the engine alone is killed, as the system does when memory runs out, then the protocol's process alone, then all of them."""
    project = simulated[1]
    protocol = correction_of(simulated, preflight=False)
    project.launchProtocol(protocol, wait=False)
    layout = JobLayout(protocol._getExtraPath("job"))
    wait_for(layout.calibrate_done.exists)
    killed = holder(layout)["process"]
    os.kill(killed, signal.SIGKILL)
    # the host may see the process gone before it reads the reason that was written last
    wait_for(lambda: "the engine stopped" in (updated(project, protocol).getErrorMessage() or ""))
    assert protocol.isFailed()
    amplitudes = layout.amplitudes.stat().st_mtime_ns
    project.launchProtocol(protocol, wait=False)
    wait_for(lambda: holder(layout).get("process") not in (None, killed))
    engine = holder(layout)["process"]
    assert start_of(engine) is not None
    os.kill(protocol.getPid(), signal.SIGKILL)
    wait_for(lambda: start_of(engine) is None, seconds=20)      # nobody waits for it any more
    project.stopProtocol(protocol)
    project.launchProtocol(protocol, wait=False)
    first = layout.done(SPEC.movie_name(0), "align")
    wait_for(first.exists)
    project.stopProtocol(protocol)
    assert layout.amplitudes.stat().st_mtime_ns == amplitudes
    before = first.stat().st_mtime_ns
    assert not layout.particles().exists()
    project.launchProtocol(protocol, wait=True)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert first.stat().st_mtime_ns == before
    assert protocol.outputParticles.getSize() == SPEC.movies * SPEC.particles


@pytest.mark.slow
def test_an_unreadable_movie_is_named_and_the_rest_is_done(simulated):
    project, imported = simulated[1], simulated[2]
    protocol = correction_of(simulated, preflight=False)
    movie = Path(project.path) / next(m.getFileName() for m in imported.outputMovies if m.getObjId() == 2)
    whole = os.path.realpath(movie)
    movie.unlink()
    try:
        movie.write_bytes(Path(whole).read_bytes()[:20000])
        project.launchProtocol(protocol, wait=True)
    finally:
        movie.unlink()
        movie.symlink_to(whole)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert protocol.outputParticles.getSize() == (SPEC.movies - 1) * SPEC.particles
    summary = "\n".join(protocol.summary())
    assert "1 movie failed:" in summary and "movie_002" in summary
    assert "%d left out" % SPEC.particles in summary


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_said_so(simulated, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    protocol = correction_of(simulated)
    protocol.useGpu.set(True)
    simulated[1].launchProtocol(protocol, wait=True)
    assert protocol.isFailed() and "cuda:0" in protocol.getErrorMessage(), protocol.getErrorMessage()


def updated(project, protocol):
    """The protocol as its own process left it."""
    project._updateProtocol(protocol)
    return protocol


def wait_for(condition, seconds=300):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
