"""The memory planner, what it reads from the system, and what happens when memory runs out nevertheless."""
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.spec import ComputeSpec
from refmotion_plugin.engine.maths.lanes import SHARED
from refmotion_plugin.engine.run.workers import choose_workers
from refmotion_plugin.engine.stages import align, budget, load, memory, patches, polish, prepared
from refmotion_plugin.engine.stages.budget import GIB, Budget
from refmotion_plugin.engine.stages.memory import Load, plan_memory

SUPER_RESOLUTION = Load(size_yx=(8184, 11520), frames=48, particles=300, patch_px=640, kept_px=172, window_px=39, polished_px=640)
K3 = Load(size_yx=(4092, 5760), frames=40, particles=300, patch_px=320, kept_px=172, window_px=39, polished_px=320)


def bytes_of(plan, load):
    """What a plan takes on the host when the CPU computes: while aligning and while polishing."""
    held = load.movie_bytes * (2 if plan.ahead else 1) if load.movie_bytes <= plan.held_bytes else 0
    held += load.decoding_bytes
    cut = plan.particles_cut * load.cut_bytes
    aligning = load.fixed_bytes + plan.cache_bytes + cut + held
    return aligning, 2 * load.frame_bytes + cut + held + plan.particles_summed * load.polished_bytes


@pytest.mark.parametrize("work", [SUPER_RESOLUTION, K3, replace(K3, particles=1000, patch_px=512, polished_px=512), replace(K3, bytes_per_px=4), replace(K3, threads=16)])
@pytest.mark.parametrize("gib", [3, 4, 6, 8, 16])
def test_a_plan_holds_its_budget(work, gib):
    plan = plan_memory(Budget(host=gib * GIB, program=GIB // 2), work)
    assert max(bytes_of(plan, work)) <= (gib - 0.5) * GIB
    assert 1 <= plan.particles_cut <= work.particles and 1 <= plan.particles_summed <= work.particles


def test_patches_are_cut_for_the_caches_of_all_cores():
    one, four = (plan_memory(Budget(host=16 * GIB), replace(K3, threads=threads)).particles_cut for threads in (1, 4))
    assert SHARED * 4 * one <= four < SHARED * 4 * (one + 1)


def test_more_memory_is_used_for_spectra_then_for_the_movie_then_for_the_next_one():
    plans = [plan_memory(Budget(host=int(gib * GIB)), K3) for gib in np.arange(1.0, 8.0, 0.1)]
    cache = [p.cache_bytes for p in plans]
    held = [K3.movie_bytes <= p.held_bytes for p in plans]
    ahead = [p.ahead for p in plans]
    assert cache == sorted(cache) and held == sorted(held) and ahead == sorted(ahead)
    assert cache[-1] == K3.cache_bytes and cache[0] < K3.cache_bytes and ahead[-1] and not held[0]
    assert cache.index(K3.cache_bytes) <= held.index(True) < ahead.index(True)


def test_a_movie_of_super_resolution_is_streamed_by_default_and_its_spectra_kept():
    plan = plan_memory(Budget(program=GIB // 2), SUPER_RESOLUTION)
    assert plan.held_bytes < SUPER_RESOLUTION.movie_bytes and plan.cache_bytes == SUPER_RESOLUTION.cache_bytes
    assert "decoded anew" in plan.text and "100 % of the spectra" in plan.text and "11520 x 8184 px x 48 frames" in plan.text


def test_the_gpu_keeps_the_spectra_and_the_host_the_frames():
    plan = plan_memory(Budget(host=4 * GIB, device=8 * GIB), K3, "cuda")
    small = plan_memory(Budget(host=4 * GIB, device=GIB), K3, "cuda")
    assert plan.ahead and plan.held_bytes >= K3.movie_bytes and plan.cache_bytes == K3.cache_bytes
    assert small.held_bytes == plan.held_bytes and small.cache_bytes < K3.cache_bytes
    assert small.particles_cut * K3.cut_bytes + small.cache_bytes + K3.fixed_bytes <= GIB
    assert "4.00 GiB of the host and 1.00 GiB of the GPU" in small.text


@pytest.mark.parametrize("gib", [1, 2, 4, 8, 40])
@pytest.mark.parametrize("halvings", [0, 2])
def test_frames_worked_on_together_fit_the_gpu_too(gib, halvings):
    plan = plan_memory(Budget(host=8 * GIB, device=gib * GIB), K3, "cuda", halvings)
    working = plan.frames_together * K3.together_bytes if plan.frames_together > 1 else 0
    assert max(working, plan.particles_cut * K3.cut_bytes) + plan.cache_bytes + plan.frames_on_device_bytes + K3.fixed_bytes <= gib * GIB
    assert 1 <= plan.frames_together <= K3.frames and plan_memory(Budget(host=8 * GIB), K3).frames_together == 1
    assert (plan.frames_together > 1) == (gib >= (4 if halvings == 0 else 8))


def test_halving():
    plans = [plan_memory(Budget(host=6 * GIB), K3, halvings=h) for h in range(12)]
    cut = [p.particles_cut for p in plans]
    assert all(later in (earlier // 2, 1) for earlier, later in zip(cut, cut[1:])) and cut[-1] == 1
    assert plans[1].particles_summed == plans[0].particles_summed // 2 and plans[-1].cache_bytes < K3.cache_bytes / 1000


# ---- what the system says ---------------------------------------------------------------------------------------------------

def system(folder, available_kib=8 * 2 ** 20, own="0::/a/b\n", **files):
    """A copy of the files the kernel shows: /proc and control groups."""
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  %d kB\n" % available_kib)
    (folder / "proc" / "self" / "cgroup").write_text(own)
    for name, text in files.items():
        path = folder / "cg" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return budget.free_host_bytes(folder / "proc", folder / "cg")


def group(where, limit, used, droppable=0):
    return {where + "memory.max": str(limit), where + "memory.current": str(used), where + "memory.stat": "inactive_file %d\n" % droppable}


@pytest.mark.parametrize("files, expected", [
    ({}, 8 * GIB), (group("a__b__", "max", 5), 8 * GIB), (group("a__b__", 4 * GIB, GIB), 3 * GIB),
    (group("a__b__", 4 * GIB, 2 * GIB, GIB), 3 * GIB), (group("a__", 2 * GIB, GIB), GIB), (group("", 2 * GIB, 3 * GIB), 0)])
def test_control_groups_limit_what_is_free(tmp_path, files, expected):
    assert system(tmp_path, **files) == expected


def test_control_groups_of_the_first_version(tmp_path):
    files = {"memory__job__memory.limit_in_bytes": str(2 * GIB), "memory__job__memory.usage_in_bytes": str(GIB),
             "memory__job__memory.stat": "total_inactive_file 0\n", "memory__memory.limit_in_bytes": str(1 << 63 - 1)}
    assert system(tmp_path, own="3:cpu:/other\n4:memory:/job\n", **files) == GIB


def test_a_system_that_says_nothing(tmp_path):
    assert budget.free_host_bytes(tmp_path / "no", tmp_path / "no") == budget.UNKNOWN_FREE


def pretend_memory(monkeypatch, free_gib, total_gib):
    """GPUs of this size, of which so much is free now."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free_gib * GIB), int(total_gib * GIB)))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=total_gib * GIB))


@pytest.fixture
def first_look(monkeypatch):
    """This process has not asked yet what is free on a GPU."""
    monkeypatch.setattr(budget, "_free_at_most", {})


def test_budget_from_the_options(monkeypatch, first_look):
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 8 * GIB)
    find = lambda processes=1, **compute: budget.find_budget(ComputeSpec(**compute), "cpu", processes)
    assert find().host == 4 * GIB and find(4).host == GIB and find(4, memory_gib=3.0).host == 3 * GIB
    assert find().device is None and "8.0 GiB free" in find().source
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 500 * GIB)
    assert find().host == budget.MOST_HOST_GIB * GIB and find().measured().program > 50 * 2 ** 20
    pretend_memory(monkeypatch, 39, 40)
    beside_gpu = lambda processes: budget.find_budget(ComputeSpec(), "cuda:0", processes).host
    assert beside_gpu(2) == budget.MOST_BESIDE_GPU_GIB * GIB and beside_gpu(100) == 2.5 * GIB


def device_bytes(**compute):
    return budget.find_budget(ComputeSpec(**compute), "cuda:0").device


def test_gpu_memory_is_divided_by_the_movies_that_share_it(monkeypatch, first_look):
    monkeypatch.setattr(budget.importlib.util, "find_spec", lambda name: name)
    pretend_memory(monkeypatch, 36, 40)
    assert device_bytes() == int(0.9 * 18 * GIB) and device_bytes(movies_per_gpu=1) == int(0.9 * 36 * GIB) and device_bytes(movies_per_gpu=4) == int(0.9 * 9 * GIB)
    assert device_bytes(oversubscription_gib=48) == int(0.9 * 36 * GIB) and device_bytes(gpu_memory_gib=5) == 5 * GIB
    pretend_memory(monkeypatch, 3, 40)
    assert device_bytes(movies_per_gpu=1) == int(0.9 * 3 * GIB)                       # another program has the rest


def test_all_processes_of_a_gpu_together_plan_with_what_is_free(monkeypatch, first_look):
    """24 GiB of which another program has 10: neither process plans with what the other one leaves, nor with less when it looks again."""
    pretend_memory(monkeypatch, 14, 24)
    share = device_bytes(movies_per_gpu=2)
    assert share == int(0.9 * 7 * GIB)
    pretend_memory(monkeypatch, 14 - share / GIB, 24)
    assert device_bytes(movies_per_gpu=2) == share
    pretend_memory(monkeypatch, 2, 24)
    assert device_bytes(movies_per_gpu=2) == int(0.9 * 2 * GIB)
    monkeypatch.setattr(budget, "_free_at_most", {})               # the second process, had it come after all that
    assert device_bytes(movies_per_gpu=2) == int(0.9 * 1 * GIB)
    pretend_memory(monkeypatch, 20, 24)                             # once the others are gone
    assert device_bytes(movies_per_gpu=2) == int(0.9 * 10 * GIB)


@pytest.mark.parametrize("elsewhere", [{"scheduler": "tcp://head:8786"}, {"cluster": "cluster.json"}])
def test_a_worker_of_a_scheduler_or_cluster_has_its_gpu_alone(monkeypatch, first_look, elsewhere):
    monkeypatch.setattr(budget.importlib.util, "find_spec", lambda name: name)
    pretend_memory(monkeypatch, 80, 80)
    assert device_bytes(**elsewhere) == int(0.9 * 80 * GIB) and device_bytes(movies_per_gpu=2, **elsewhere) == int(0.9 * 40 * GIB)


def test_the_number_of_workers_is_found_without_taking_memory_of_every_gpu(monkeypatch):
    pretend_memory(monkeypatch, 80, 80)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", None)
    assert budget.movies_per_gpu(ComputeSpec(oversubscription_gib=100), ["cuda:0", "cuda:1"]) == 1


@pytest.mark.parametrize("gib, options, expected", [(24, {}, 2), (16, {}, 1), (16, {"movies_per_gpu": 3}, 3), (80, {"movies_per_gpu": 1}, 1),
                                                    (16, {"oversubscription_gib": 12}, 2)])
def test_large_gpus_work_on_two_movies_each_by_a_worker(monkeypatch, gib, options, expected):
    monkeypatch.setattr(budget.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=(gib if device == "cuda:0" else 100) * GIB))
    workers = choose_workers(ComputeSpec(**options), ["cuda:0", "cuda:1"], 8)
    assert sorted(workers.local) == sorted(("cuda:0", "cuda:1") * expected) and workers.threads == max(1, 8 // (2 * expected))
    alone = choose_workers(ComputeSpec(**options), ["cuda:0"], 8)
    assert (alone is None) == (expected == 1) and (alone is None or alone.local == ("cuda:0",) * expected)
    assert choose_workers(ComputeSpec(**options), ["cpu"], 8) is None                           # the CPU knows no such thing
    assert choose_workers(ComputeSpec(workers=2, **options), ["cuda:0"], 8).local == ("cuda:0",) * 2
    assert budget.movies_at_once(ComputeSpec(workers=4, device="cuda:0,cuda:1"), 1) == 2


def test_without_dask_a_large_gpu_works_on_one_movie(monkeypatch):
    monkeypatch.setattr(budget.importlib.util, "find_spec", lambda name: None)
    assert budget.movies_at_once(ComputeSpec(), 80 * GIB) == 1 and budget.movies_at_once(ComputeSpec(movies_per_gpu=2), 80 * GIB) == 2


# ---- out of memory ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def forgetful(monkeypatch):
    """What was learnt about memory is forgotten after the test."""
    monkeypatch.setattr(memory, "_halvings", {})


class Full:
    """A stand-in for a transform whose memory is full beyond some patches at a time."""

    def __init__(self, transform, most, error):
        self.transform, self.most, self.error, self.refused = transform, most, error, 0

    def __call__(self, patches, *args, **kwargs):
        if len(patches) > self.most:
            self.refused += 1
            raise self.error
        return self.transform(patches, *args, **kwargs)


ERRORS = [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), MemoryError(),
          RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
          RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")]


@pytest.mark.parametrize("error", ERRORS)
def test_the_batch_is_halved_until_it_fits_and_results_are_the_same(tiny, calibrated, aligned, forgetful, monkeypatch, caplog, error):
    full = Full(patches.low_half_spectrum, 3, error)
    monkeypatch.setattr(patches, "low_half_spectrum", full)
    with caplog.at_level(logging.WARNING):
        results = [align.align_movie(m, tiny.of(m), calibrated) for m in tiny.movies]
    for result, expected in zip(results, aligned):
        np.testing.assert_array_equal(result.trajectories.displacement_yx_angstrom, expected.trajectories.displacement_yx_angstrom)
        np.testing.assert_array_equal(result.fcc.cross, expected.fcc.cross)
    lines = [r.getMessage() for r in caplog.records]
    assert full.refused == 2 and len(lines) == 2                       # 12 -> 6 -> 3, and the second movie begins there
    assert "memory ran out on cpu in" in lines[0] and "1/2 of the particles" in lines[0] and "1/4" in lines[1] and "\n" not in lines[0]


def test_polishing_is_halved_too(tiny, aligned, forgetful, monkeypatch):
    from test_stages_polish import exposure_weights
    movie, particles = tiny.movies[0], tiny.of(tiny.movies[0])
    polished = lambda: polish.polish_movie(movie, particles, aligned[0].trajectories, exposure_weights(), tiny.prepared).images
    expected = polished()
    full = Full(torch.fft.irfft2, 5, ERRORS[0])
    monkeypatch.setattr(torch.fft, "irfft2", full)
    np.testing.assert_array_equal(polished(), expected)
    assert full.refused == 2


def test_a_movie_that_does_not_fit_at_all_is_a_failed_movie(tiny, calibrated, forgetful, monkeypatch):
    monkeypatch.setattr(patches, "low_half_spectrum", Full(patches.low_half_spectrum, 0, ERRORS[0]))
    with pytest.raises(MovieError, match="does not fit into the memory of cpu, not even one particle at a time .CUDA out of memory"):
        align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), calibrated)


def test_a_movie_that_does_not_fit_at_all_costs_no_other_movie(tiny, calibrated, forgetful, monkeypatch):
    """The next one begins with as many particles at a time as this one did; what helped a movie is kept."""
    memory._halvings["cpu"] = 1
    real, (first, second) = patches.low_half_spectrum, tiny.movies[:2]
    monkeypatch.setattr(patches, "low_half_spectrum", Full(real, 0, ERRORS[0]))
    with pytest.raises(MovieError, match="does not fit"):
        align.align_movie(first, tiny.of(first), calibrated)
    assert memory.halvings_of("cpu") == 1
    monkeypatch.setattr(patches, "low_half_spectrum", Full(real, 3, ERRORS[0]))
    align.align_movie(second, tiny.of(second), calibrated)
    assert memory.halvings_of("cpu") == 2


def test_a_gpu_is_named_by_what_makes_it_the_first(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert memory.called(torch.device("cuda:0")) == "cuda:0 (CUDA_VISIBLE_DEVICES=3)" and memory.called("cpu") == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert memory.called("cuda:1") == "cuda:1"


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny, calibrated, forgetful, monkeypatch):
    full = Full(patches.low_half_spectrum, 0, RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"))
    monkeypatch.setattr(patches, "low_half_spectrum", full)
    with pytest.raises(RuntimeError, match="CUFFT"):
        align.align_movie(tiny.movies[0], tiny.of(tiny.movies[0]), calibrated)
    assert full.refused == 1 and not memory._halvings


def test_a_movie_whose_decoding_runs_out_of_memory_is_streamed(tiny, monkeypatch, caplog):
    load.forget_stacks()
    real, asked = load.load_movie, []

    def tight(*args, held_bytes, **kwargs):
        asked.append(held_bytes)
        if held_bytes:
            raise MemoryError
        return real(*args, held_bytes=held_bytes, **kwargs)

    monkeypatch.setattr(load, "load_movie", tight)
    stack = load.load_stack(tiny.movies[1], tiny.prepared)
    assert stack.held_bytes == 0 and len(asked) == 2 and asked[1] == 0 and "decoded when they are needed" in caplog.text


def test_the_plan_is_said_once_for_every_kind_of_movie(tiny, caplog, monkeypatch):
    load.forget_stacks()
    monkeypatch.setattr(memory, "_said", set())
    with caplog.at_level(logging.INFO):
        for movie in tiny.movies:
            load.load_stack(movie, tiny.prepared)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("memory:")]
    assert len(lines) == 1 and "544 x 512 px x 16 frames" in lines[0] and "held decoded, the next one too" in lines[0]


def test_lists_of_bad_pixels_do_not_grow_without_end(tiny, monkeypatch):
    monkeypatch.setattr(load, "_bad_pixels", load.OrderedDict())
    monkeypatch.setattr(load, "KNOWN_BYTES", 5000)
    for key in range(9):
        load._remember(key, tiny.movies[0], SimpleNamespace(bytes_per_px=1, bad_yx=np.zeros((100, 2), np.int64)))
    assert list(load._bad_pixels) == [6, 7, 8]


def test_copies_on_a_device_end_with_the_stage_while_frames_wait_on_disk(tiny):
    load.forget_stacks()
    movie, seen = tiny.movies[0], []
    for needed_again in (True, True, False):
        seen.append(load.load_stack(movie, tiny.prepared, needed_again=needed_again))
        seen[-1]._on_device["gain"] = object()
    assert all(stack.frames is seen[0].frames and load.on_disk(stack) and list(stack._on_device) == ["gain"] for stack in seen)
    assert len({id(stack._on_device["gain"]) for stack in seen}) == 3 and not load._kept


def test_references_are_part_of_what_a_gpu_has_for_a_job(caplog):
    there = lambda device: SimpleNamespace(spectrum=torch.zeros((2, 5, 5, 3), dtype=torch.complex64, device=device))
    whole = Budget(host=8 * GIB, device=10000)
    assert prepared._without((there("meta"), there("cpu")), whole, torch.device("meta")).device == 10000 - 2 * 5 * 5 * 3 * 8
    assert not caplog.records and prepared._without((there("meta"),) * 20, whole, torch.device("meta")).device == 0
    assert "--slicing-device" in caplog.text
    assert prepared._without((there("cpu"),), replace(whole, device=None), torch.device("cpu")).device is None
