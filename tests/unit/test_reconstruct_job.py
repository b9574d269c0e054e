"""The comparison by reconstruction as part of a job: into its verdict, once, and never at the cost of its particles."""
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout, along_input_beside
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.star import read_particles, read_tables, write_tables
from refmotion_plugin.contract.verdict import GIVEN_IMAGES, INPUT_MOTION
from refmotion_plugin.engine import cli
from refmotion_plugin.engine.run import job, reconstruct, tasks
from refmotion_plugin.engine.stages import reconstruct as stage


def wanted(project, **output):
    """The tiny project's job with a reconstruction."""
    data = project.prepared.spec.model_dump()
    data["output"].update(dict(dict(reconstruct=True, symmetry="O"), **output))
    data["compute"].update(device="cpu", threads=1)
    data["alignment"].update(passes=1)
    return type(project.prepared.spec).build(data)


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A job that was run with a reconstruction; what a test changes of it, it puts back."""
    folder = tmp_path_factory.mktemp("job") / "OUT"
    job.run_job(folder, wanted(tiny))
    return JobResults(folder)


def counted(monkeypatch, module, name):
    calls, real = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: (calls.append(args), real(*args, **kwargs))[1])
    return calls


def test_the_verdict_has_curves_and_the_change_with_its_error(finished):
    found, = finished.verdict().reconstructions
    assert (found.reference, found.particles, found.symmetry, found.before, found.fault) == (0, 24, "O", INPUT_MOTION, "")
    assert len(found.frequency_per_angstrom) == len(found.fsc_before) == len(found.fsc_after) > 40 and found.fsc_after[3] > 0.9
    assert found.error_angstrom > 0 and found.after_angstrom < found.before_angstrom + found.error_angstrom      # these particles move
    assert found.sentence in finished.verdict().sentences


def test_before_is_the_input_motion_with_the_standard_curve(finished, tiny):
    """Not the same images, but the same particles: the two agree far better than two particles do."""
    stack = finished.stacks()[0]
    with mrcfile.open(stack) as after, mrcfile.open(along_input_beside(stack)) as before:
        a, b = after.data.reshape(len(after.data), -1).astype(float), before.data.reshape(len(before.data), -1).astype(float)
    own = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)]
    other = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, np.roll(b, 1, 0))]
    assert 0.25 < min(own) and max(own) < 0.9999 and max(other) < 0.15
    weights = stage.standard_weights(np.arange(1.0, 40.0, 2.0), 300.0)
    assert np.allclose(weights.weight.sum(1), 1.0) and weights.weight[0, 0, 100] > 3 * weights.weight[0, -1, 100]


@pytest.fixture
def before(tiny, calibrated, aligned):
    """Images before of the first movie, with other particles or trajectories than its own; those themselves."""
    movie, tracks = tiny.movies[0], aligned[0].trajectories
    particles = tiny.of(movie)
    return lambda given=particles, **changed: stage.polish_along_input(movie, given, replace(tracks, **changed), calibrated).images, particles, tracks


def test_before_knows_nothing_of_the_trajectories_but_their_centre(before, calibrated):
    made, _, tracks = before
    plain, initial = made(), tracks.initial_yx_angstrom
    departure = tracks.displacement_yx_angstrom - initial
    share = stage._shares(stage.standard_weights(tracks.dose_e_per_A2, 300.0), calibrated.references[0].limit_angstrom)
    assert share.sum() == pytest.approx(1.0) and (np.diff(share) < 0).all()
    centre = (departure * share[:, None]).sum(1, keepdims=True)
    other = initial + centre + np.random.default_rng(1).normal(0, 5, departure.shape) * [1.0, 0.5]
    other += centre - ((other - initial) * share[:, None]).sum(1, keepdims=True)
    assert np.allclose(made(displacement_yx_angstrom=other), made(displacement_yx_angstrom=initial + centre), atol=1e-3)
    assert not np.allclose(made(initial_yx_angstrom=initial * 1.5), plain, atol=0.1)


def test_before_is_cut_at_the_true_centre(before):
    """Where the catalogue is off, as with coordinates that were rounded on extraction, trajectories have that offset, and before has it too."""
    made, particles, tracks = before
    off = np.random.default_rng(0).uniform(-3.0, 3.0, (len(particles), 2))
    misplaced = replace(particles, coordinate_yx_angstrom=particles.coordinate_yx_angstrom + off)
    found = made(misplaced, displacement_yx_angstrom=tracks.displacement_yx_angstrom - off[:, None])
    assert np.allclose(found, made(), atol=1e-3) and not np.allclose(made(misplaced), found, atol=0.1)


def test_the_same_command_makes_nothing_anew(finished, tiny, monkeypatch):
    tasks_run, made = counted(monkeypatch, tasks, "_polish"), counted(monkeypatch, reconstruct, "compare_images")
    job.run_job(finished.layout.folder, wanted(tiny))
    assert not tasks_run and not made and finished.verdict().reconstructions


def test_a_reconstruction_can_be_asked_for_later(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "OUT"
    job.run_job(folder, wanted(tiny, reconstruct=False))
    assert JobResults(folder).verdict().reconstructions == () and not list(folder.glob("movies/*/input_motion.mrcs"))
    aligned, polished = counted(monkeypatch, tasks, "_align"), counted(monkeypatch, tasks, "_polish")
    job.run_job(folder, wanted(tiny))
    assert not aligned and len(polished) == 2 and JobResults(folder).verdict().reconstructions[0].before == INPUT_MOTION
    job.run_job(folder, wanted(tiny, symmetry="C4"))
    assert len(polished) == 2 and JobResults(folder).verdict().reconstructions[0].symmetry == "C4"
    job.run_job(folder, wanted(tiny, reconstruct=False))
    assert len(polished) == 2


@pytest.mark.parametrize("fault, said", [(InputError("no such image"), "no such image"), (RuntimeError("bug in it"), "unexpected RuntimeError: bug in it")])
def test_its_failure_costs_nothing_else(finished, tiny, monkeypatch, caplog, fault, said):
    def fail(*args, **kwargs):
        raise fault
    monkeypatch.setattr(reconstruct, "compare_images", fail)
    finished.layout.reconstruction.unlink()
    outcome = job.run_job(finished.layout.folder, wanted(tiny))
    assert outcome.particles_written == 24 and not outcome.failed and finished.particle_stars()
    assert said in finished.verdict().reconstructions[0].fault and said in caplog.text
    monkeypatch.undo()
    job.run_job(finished.layout.folder, wanted(tiny))                       # the same command tries again
    assert not finished.verdict().reconstructions[0].fault


def test_a_damaged_stack_is_named(finished, tiny, tmp_path):
    path = along_input_beside(finished.stacks()[0])
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:1500])
        found, = reconstruct.reconstruct_job(finished, "C1")
        assert path.name in found.fault and "cannot be read" in found.fault
    finally:
        path.write_bytes(whole)


def test_a_few_particles_at_a_time_give_the_same(finished, monkeypatch):
    """Both kinds of images come out of many stacks by turns, each movie's among them."""
    whole, = reconstruct.reconstruct_job(finished, "C1")
    monkeypatch.setitem(stage.CHUNK_BYTES, "cpu", 1)
    one_by_one, = reconstruct.reconstruct_job(finished, "C1")
    np.testing.assert_allclose(one_by_one.fsc_after, whole.fsc_after, atol=1e-4)
    np.testing.assert_allclose(one_by_one.fsc_before, whole.fsc_before, atol=1e-4)


def test_a_progress_of_particles_reaches_the_end(finished):
    told = []
    reconstruct.reconstruct_job(finished, "C1", progress=lambda *numbers: told.append(numbers))
    done = [d for _, d, _ in told]
    assert done == sorted(done) and told[-1] == (0, 24, 24)


def test_the_command_compares_with_the_images_given_where_there_are_no_others(finished, tiny, tmp_path, capsys, monkeypatch):
    for path in finished.layout.folder.glob("movies/*/input_motion.mrcs"):
        path.rename(path.with_suffix(".aside"))
    try:
        assert cli.main(["reconstruct", str(finished.layout.folder), "--device", "cpu"]) == 0
        assert GIVEN_IMAGES in capsys.readouterr().out and finished.verdict().reconstructions[0].before == GIVEN_IMAGES
    finally:
        for path in finished.layout.folder.glob("movies/*/input_motion.aside"):
            path.rename(path.with_suffix(".mrcs"))
    assert cli.main(["reconstruct", str(finished.layout.folder), "--device", "cpu", "--symmetry", "D2"]) == 0
    assert "(D2)" in capsys.readouterr().out
    assert cli.main(["reconstruct", str(finished.layout.folder), "--symmetry", "X"]) == 2 and "point group" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["none", "recenter", "premultiplied"])
def test_images_that_are_centred_elsewhere_or_multiplied_already_are_not_compared_with(finished, tiny, tmp_path, change):
    spec, star = finished.spec, finished.layout.particles()
    table = read_particles(star).table
    after = [(str(tmp_path / "polished.mrcs"), n) for n in range(len(table))]          # none along the input motion beside it
    group = next(iter(read_particles(star).optics.values()))
    if change == "recenter":
        spec = spec.model_copy(update={"output": spec.output.model_copy(update={"recenter": True})})
    if change == "premultiplied":
        tables = read_tables(spec.references[0].particles)
        tables["optics"] = tables["optics"].with_columns(rlnCtfDataAreCtfPremultiplied=["1"])
        write_tables(tmp_path / "p.star", list(tables.values()))
        spec = spec.model_copy(update={"references": [spec.references[0].model_copy(update={"particles": str(tmp_path / "p.star")})]})
    found, what = reconstruct._before(after, table, reconstruct._geometry(group), spec, 0)
    assert what == ("" if change != "none" else GIVEN_IMAGES) and (found is None) == (change != "none")


def test_a_job_without_particles_has_nothing_to_reconstruct(tiny, tmp_path, capsys):
    layout = JobLayout(tmp_path)
    Path(layout.job).write_text(wanted(tiny).to_json())
    assert cli.main(["reconstruct", str(tmp_path)]) == 2 and "no polished particles" in capsys.readouterr().err


def test_each_reference_has_its_own_mask_and_curve(tiny, tmp_path):
    data = wanted(tiny).model_dump()
    tables, files = read_tables(data["references"][0]["particles"]), [str(tmp_path / ("%d.star" % i)) for i in (0, 1)]
    for i, file in enumerate(files):
        write_tables(file, [tables["optics"], tables["particles"].rows(list(range(i, len(tables["particles"]), 2)))])
    data["references"] = [dict(data["references"][0], particles=files[0]), dict(data["references"][0], particles=files[1], mask=None)]
    folder = tmp_path / "OUT"
    job.run_job(folder, type(tiny.prepared.spec).build(data))
    first, second = JobResults(folder).verdict().reconstructions
    assert (first.reference, second.reference) == (0, 1) and first.fsc_after != second.fsc_after and not first.fault + second.fault


def test_on_a_gpu(finished, monkeypatch):
    """The comparison on the pretended GPU finds what the CPU finds."""
    from tests.pretend_gpu import PretendGpu
    on_cpu, = reconstruct.reconstruct_job(finished, "C1")
    with PretendGpu():
        found, = reconstruct.reconstruct_job(finished, "C1", reconstruct.Place("cuda:0", 2 ** 30))
    assert np.allclose(found.fsc_after, on_cpu.fsc_after, atol=1e-3) and found.after_angstrom == pytest.approx(on_cpu.after_angstrom, abs=0.02)
