"""The engine on a GPU that is pretended: nothing mixes devices, nothing makes the host wait in the loops, memory holds its plan."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.engine.movies import buffers, upload
from refmotion_plugin.engine.stages import align, average, calibrate, load, memory, patches, polish, preflight, prepared, thumbnail, validate
from tests.pretend_gpu import OnDevice, PretendGpu
from tests.unit.test_stages_polish import exposure_weights

PER_FIT = ("maths/minimise.py", "motion/escape.py")        # one look per iteration whether it is done, per fit whether particles lie far


def on_gpu(project, **compute):
    """The tiny project's job prepared for the pretended GPU; to be called while it is active."""
    spec = project.prepared.spec
    spec = spec.model_copy(update=dict(compute=spec.compute.model_copy(update=compute)))
    return prepared.prepare(spec, [SimpleNamespace(optics=o) for o in project.prepared.optics], "cuda:0")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(memory, "_halvings", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    load.forget_stacks()
    yield
    load.forget_stacks()


def frames_used(job, last):
    return replace(job, spec=job.spec.model_copy(update=dict(inputs=job.spec.inputs.model_copy(update=dict(last_frame=last)))))


def test_a_whole_job_on_the_gpu_gives_what_the_cpu_gives(tiny, calibrated, aligned):
    movie, particles = tiny.movies[0], tiny.of(tiny.movies[0])
    expected = polish.polish_movie(movie, particles, aligned[0].trajectories, exposure_weights(), tiny.prepared)
    with PretendGpu():
        job = on_gpu(tiny)
        assert isinstance(job.references[0].spectrum, OnDevice) and job.budget.device > 10 * 2 ** 30
        report = preflight.preflight(tiny.movies, tiny.of, job)
        job = calibrate.calibrate(tiny.movies, tiny.of, job)
        found = align.align_movie(movie, particles, job)
        polished = polish.polish_movie(movie, particles, found.trajectories, exposure_weights(), job)
        tuning = validate.prepare_tuning(movie, particles, job)
        outcome = validate.try_hyperparameters(tuning, [job.hyperparameters])
    assert report.z["as configured"] > 20 and np.isfinite(outcome.score).all()
    np.testing.assert_allclose(job.amplitudes[0].factor, calibrated.amplitudes[0].factor, rtol=1e-6)
    np.testing.assert_allclose(found.trajectories.displacement_yx_angstrom, aligned[0].trajectories.displacement_yx_angstrom, atol=1e-4)
    np.testing.assert_allclose(found.fcc.cross, aligned[0].fcc.cross, rtol=1e-4, atol=1e-4 * np.abs(aligned[0].fcc.cross).max())
    np.testing.assert_allclose(polished.images, expected.images, atol=2e-3)


@pytest.mark.parametrize("together", [1, 5, 16])
def test_blocks_of_frames_give_what_single_frames_give(tiny, calibrated, aligned, monkeypatch, together):
    planned, expected = align.movie_memory, aligned[0]
    monkeypatch.setattr(align, "movie_memory", lambda *work: replace(planned(*work), frames_together=together))
    with PretendGpu():
        found = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), on_gpu(tiny).with_amplitudes(calibrated.amplitudes))
    np.testing.assert_allclose(found.trajectories.displacement_yx_angstrom, expected.trajectories.displacement_yx_angstrom, atol=1e-4)
    for one, other, names in ((found.fcc, expected.fcc, ("cross", "power_movie", "power_reference")),
                              (found.judged, expected.judged, [name for name, value in vars(expected.judged).items() if np.asarray(value).dtype.kind == "f"])):
        assert len(names) > 1
        for name in names:
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-3, atol=1e-4 * np.abs(getattr(other, name)).max(), err_msg=name)


def test_the_host_never_waits_frame_by_frame(tiny, calibrated):
    """What makes the host wait must not become more often with more frames, whatever loops there are."""
    movie, particles, counts = tiny.movies[0], tiny.of(tiny.movies[0]), []
    for last in (8, 16):
        with PretendGpu() as gpu:
            job = frames_used(on_gpu(tiny).with_amplitudes(calibrated.amplitudes), last)
            gpu.waits.clear()
            found = align.align_movie(movie, particles, job)
            polish.polish_movie(movie, particles, found.trajectories, exposure_weights(frames=last), job)
        counts.append({place: n for place, n in gpu.per_place().items() if not place.startswith(PER_FIT)})
    assert counts[0] == counts[1] and sum(counts[1].values()) < 90


def test_the_small_average_is_that_of_the_cpu_and_waits_once(tiny, calibrated):
    movie = tiny.movies[0]
    with PretendGpu() as gpu:
        job = on_gpu(tiny)
        stack, plan = load.load_stack(movie, job), patches.plan_frames(movie, job.spec.inputs)
        gpu.waits.clear()
        image, pixel = thumbnail.thumbnail(movie, stack, plan, job.device)
        assert sum(gpu.waits.values()) == 1
    expected, same = thumbnail.thumbnail(movie, stack, plan)
    assert pixel == same and image.any() and (image == expected).all()


def test_frames_go_up_once_from_pinned_memory_and_stay_if_there_is_room(tiny, calibrated, monkeypatch):
    movie, particles, sent = tiny.movies[0], tiny.of(tiny.movies[0]), []
    send = upload.Uploader._send
    monkeypatch.setattr(upload.Uploader, "_send", lambda self, f: sent.append(f) or send(self, f))
    with PretendGpu() as gpu:
        job = on_gpu(tiny).with_amplitudes(calibrated.amplitudes)
        monkeypatch.setattr(buffers, "_spare", {})
        stack = load.load_stack(movie, job)
        assert list(gpu.runtime.pinned.values()) == [stack.held_bytes]
        found = align.align_movie(movie, particles, job, stack=stack)
        polish.polish_movie(movie, particles, found.trajectories, exposure_weights(), job, stack=stack)
        assert sorted(sent) == list(range(16))
        plan = load.movie_memory(movie, len(particles), job)
        assert plan.frames_on_device_bytes == plan.movie_bytes
        tight = replace(job, budget=replace(job.budget, device=1))
        sent.clear()
        align.align_movie(movie, particles, tight, stack=load.load_stack(tiny.movies[0], job))
        assert len(sent) > 16
        uploaders = [upload.Uploader(s.frames, job.device) for s in (stack, load.load_stack(tiny.movies[1], job))]
        assert uploaders[0].stream is uploaders[1].stream           # else what one movie's frees, torch keeps from the next
        del stack, uploaders
        buffers._spare.clear()
        assert len(gpu.runtime.pinned) < 2


def test_averaging_on_the_gpu(tiny):
    spec = average_spec(tiny)
    plain = average.average_movie(tiny.movies[0], spec, load.load_stack(tiny.movies[0], tiny.prepared))
    with PretendGpu():
        found = average.average_movie(tiny.movies[0], spec, load.load_stack(tiny.movies[0], tiny.prepared), "cuda:0")
    for kind, image in plain.images.items():
        np.testing.assert_allclose(found.images[kind], image, atol=1e-4)


def average_spec(tiny):
    from refmotion_plugin.contract.average_spec import AverageSpec
    return AverageSpec.build({"inputs": {"movies": tiny.prepared.spec.inputs.movies}})


def test_references_on_a_device_of_their_own(tiny, calibrated, aligned):
    with PretendGpu() as gpu:
        job = on_gpu(tiny, slicing_device="cpu").with_amplitudes(calibrated.amplitudes)
        assert not isinstance(job.references[0].spectrum, OnDevice)
        found = align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), job)
        without = gpu.peak
    with PretendGpu() as gpu:
        align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), on_gpu(tiny).with_amplitudes(calibrated.amplitudes))
    assert without < gpu.peak - job.references[0].spectrum.nbytes / 2
    np.testing.assert_allclose(found.trajectories.displacement_yx_angstrom, aligned[0].trajectories.displacement_yx_angstrom, atol=1e-4)


def test_a_full_gpu_halves_the_batch_and_the_result_is_the_same(tiny, calibrated, aligned):
    """The plan is told of more memory than there is, as when another program takes some meanwhile."""
    movie, particles = tiny.movies[0], tiny.of(tiny.movies[0])
    with PretendGpu() as gpu:
        job = on_gpu(tiny).with_amplitudes(calibrated.amplitudes)
        align.align_movie(movie, particles, job)
        assert (gpu.plans.max_size, gpu.plans.cleared) == (prepared.MOST_PLANS, 0)
        gpu.capacity = int(0.95 * gpu.peak)
        found = align.align_movie(movie, particles, job)
        assert memory.halvings_of("cuda:0") >= 1 and gpu.plans.cleared == memory.halvings_of("cuda:0")
        gpu.capacity = 1000
        with pytest.raises(MovieError, match="does not fit into the memory of cuda:0, not even one particle at a time .CUDA out of memory"):
            align.align_movie(movie, particles, job)
    np.testing.assert_allclose(found.trajectories.displacement_yx_angstrom, aligned[0].trajectories.displacement_yx_angstrom, atol=1e-4)


def test_frames_on_a_full_gpu_are_given_up(tiny, calibrated, aligned, monkeypatch):
    """They are copied again; nothing else could make room for a single particle."""
    movie, particles = tiny.movies[0], tiny.of(tiny.movies[0])
    with PretendGpu():
        job = on_gpu(tiny).with_amplitudes(calibrated.amplitudes)
        stack, asked = load.load_stack(movie, job), []
        real = align.predictions

        def full(*of):
            asked.append(len(stack._uploader(job.device).kept))
            if len(asked) == 1:
                stack.keep_on(job.device, 2 ** 30)
                stack.recorded(0, job.device)
                assert len(stack._uploader(job.device).kept) == 1
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return real(*of)

        monkeypatch.setattr(align, "predictions", full)
        found = align.align_movie(movie, particles, job, stack=stack)
    assert asked == [0, 0]
    np.testing.assert_allclose(found.trajectories.displacement_yx_angstrom, aligned[0].trajectories.displacement_yx_angstrom, atol=1e-4)


def test_the_pretended_gpu_refuses_what_a_real_one_would():
    with PretendGpu() as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device == torch.device("cuda:0") and there.is_cuda and (there * 2).is_cuda and torch.zeros_like(there).is_cuda
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(RuntimeError, match="same device"):
            torch.stack([there, here])
        with pytest.raises(RuntimeError, match="same device"):
            here[there.long()]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert not gpu.waits
        assert float(there[0]) == 1.0 and there.sum().item() == 3.0 and bool((there > 0).all()) and there.cpu().tolist() == [1, 1, 1]
        here.to("cuda")
        here.to("cuda", non_blocking=True)
        there[there > 0]
        assert sum(gpu.waits.values()) == 6
        here += 1
        assert there.cpu().tolist() == [1, 1, 1]
        gpu.capacity = 2 ** 20
        with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
            torch.zeros(2 ** 20, device="cuda")
        for _ in range(3):
            torch.zeros(2 ** 17, device="cuda")         # freed in between
