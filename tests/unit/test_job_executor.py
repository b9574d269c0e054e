"""Where tasks run: the next movie is decoded ahead but never more than one, faults stay with their movie."""
import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import refmotion_plugin
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.spec import ComputeSpec, JobSpec
from refmotion_plugin.engine.movies.parallel import each
from refmotion_plugin.engine.run import executor
from refmotion_plugin.engine.run import tasks as tasks_module
from refmotion_plugin.engine.run.devices import choose_devices, describe, devices_here, set_threads, slicing_in_worker, spec_here
from refmotion_plugin.engine.run.executor import _result, run_here, run_on_workers
from refmotion_plugin.engine.run.inputs import read_inputs
from refmotion_plugin.engine.run.tasks import MovieTask, Workplace
from refmotion_plugin.engine.run.watch import Watch
from refmotion_plugin.engine.run.workers import Crew, Workers, _started, choose_workers, environment_of

from tests.unit.job_stand_ins import FakePrepared, FakeStages, write_project


def tasks_and_place(folder, fake, movies=4):
    spec = write_project(folder / "project", movies=movies)
    inputs = read_inputs(spec, fake.recipes().outside_movie)
    tasks = [MovieTask(m, inputs.particles[m.key], "mark") for m in inputs.movies]
    return tasks, Workplace(fake.recipes(), FakePrepared(spec, amplitudes=(1.0,)), JobLayout(folder / "OUT"), 1)


@pytest.mark.parametrize("ahead", [False, True])
def test_results_come_in_order_whatever_the_way(tmp_path, ahead):
    fake = FakeStages(broken={1: MovieError("broken")}, broken_in="load")
    tasks, place = tasks_and_place(tmp_path, fake)
    results = list(run_here(tasks, place, ahead))
    assert [r.key for r in results] == [t.movie.key for t in tasks]
    assert [r.stages["align"] for r in results] == ["done", "broken", "done", "done"]


def test_one_movie_is_decoded_ahead_in_a_thread(tmp_path):
    fake, threads = FakeStages(), []
    load, align = fake.load_stack, fake.align_movie
    second = threading.Event()

    def watched_load(movie, prepared, **options):
        threads.append(threading.current_thread().name)
        stack = load(movie, prepared)
        if movie.micrograph == "M/mic_1.mrc":
            second.set()
        return stack

    def watched_align(movie, *args, **kwargs):
        if movie.micrograph == "M/mic_0.mrc":
            assert second.wait(10)                          # the next movie is decoded while this one is aligned
            assert ("load", 2) not in fake.calls            # and no further one
        return align(movie, *args, **kwargs)

    fake.load_stack, fake.align_movie = watched_load, watched_align
    tasks, place = tasks_and_place(tmp_path, fake)
    assert all(r.stages == {"align": "done"} for r in run_here(tasks, place, True))
    assert all(name.startswith("decode") for name in threads)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has one priority")
@pytest.mark.parametrize("stand_back", [False, True])
def test_decoding_gives_way_to_the_thread_that_feeds_a_gpu(tmp_path, stand_back):
    fake, seen = FakeStages(), {"load": [], "align": []}
    nice = lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    load, align, before = fake.load_stack, fake.align_movie, nice()

    def watched_load(*args, **kwargs):
        seen["load"] += each(lambda _: nice(), range(2), threads=2)             # threads of their own, as decoding has
        return load(*args, **kwargs)

    fake.load_stack = watched_load
    fake.align_movie = lambda *args, **kwargs: seen["align"].append(nice()) or align(*args, **kwargs)
    tasks, place = tasks_and_place(tmp_path, fake)
    assert all(r.stages == {"align": "done"} for r in run_here(tasks, place, True, stand_back=stand_back))
    assert set(seen["align"]) == {before} and nice() == before
    expected = min(before + 10, 19) if stand_back else before       # there is nothing beyond 19
    assert set(seen["load"]) == {expected} and len(seen["load"]) == 2 * len(tasks)


def test_nothing_is_decoded_ahead_without_room_for_two_movies(tmp_path):
    fake = FakeStages()
    tasks, place = tasks_and_place(tmp_path, fake)
    place = replace(place, recipes=replace(place.recipes, room_ahead=lambda movie, n_particles, prepared: "mic_1" in movie.micrograph))
    assert all(r.stages == {"align": "done"} for r in run_here(tasks, place, True))
    assert fake.calls.index(("load", 2)) > fake.calls.index(("align", 1)) and fake.count("load") == len(tasks)


def test_files_of_a_movie_are_written_while_the_next_one_is_computed(tmp_path, monkeypatch):
    fake, second, threads = FakeStages(), threading.Event(), []
    align, save = fake.align_movie, tasks_module.save_trajectories

    def watched_align(movie, *args, **kwargs):
        if movie.micrograph == "M/mic_1.mrc":
            second.set()
        return align(movie, *args, **kwargs)

    def watched_save(path, trajectories):
        assert second.wait(10)
        threads.append(threading.current_thread().name)
        return save(path, trajectories)

    fake.align_movie = watched_align
    monkeypatch.setattr(tasks_module, "save_trajectories", watched_save)
    tasks, place = tasks_and_place(tmp_path, fake)
    assert [(r.key, r.stages) for r in run_here(tasks, place, True)] == [(t.movie.key, {"align": "done"}) for t in tasks]
    assert all(name.startswith("write") for name in threads) and len(threads) == len(tasks)


@pytest.mark.parametrize("ahead", [False, True])
def test_files_that_cannot_be_written_cost_their_movie(tmp_path, monkeypatch, ahead):
    fake, save = FakeStages(), tasks_module.save_trajectories

    def broken(path, trajectories):
        if trajectories.micrograph == "M/mic_2.mrc":
            raise ValueError("odd")
        return save(path, trajectories)

    monkeypatch.setattr(tasks_module, "save_trajectories", broken)
    tasks, place = tasks_and_place(tmp_path, fake)
    texts = [r.stages["align"] for r in run_here(tasks, place, ahead)]
    assert texts[:2] == ["done", "done"] and texts[2].startswith("unexpected ValueError: odd") and texts[3] == "done"


def test_what_was_aligned_is_written_before_polishing_ends_the_job(tmp_path):
    fake = FakeStages(broken={0: InputError("weights do not fit")}, broken_in="polish")
    tasks, place = tasks_and_place(tmp_path, fake)
    with pytest.raises(InputError, match="weights do not fit"):
        list(run_here([replace(t, polish_mark="mark") for t in tasks], place, True))
    assert place.layout.done(tasks[0].movie.key, "align").exists() and not place.layout.done(tasks[0].movie.key, "polish").exists()


def test_no_tasks(tmp_path):
    assert list(run_here([], None, True)) == []


def test_stopping_in_the_middle_ends_the_thread(tmp_path):
    fake = FakeStages(broken={1: InputError("stop")})
    tasks, place = tasks_and_place(tmp_path, fake)
    with pytest.raises(InputError, match="stop"):
        list(run_here(tasks, place, True))
    assert not [t for t in threading.enumerate() if t.name.startswith(("decode", "write"))]


def test_several_devices_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(InputError, match=r"2 worker processes \(cuda:0, cuda:1\).* need dask.distributed"):
        list(run_on_workers([], Crew(Workers("cuda:0", 1, ("cuda:0", "cuda:1"))), None))


def compute(**values):
    return ComputeSpec(**values)


def test_who_works(tmp_path):
    assert choose_workers(compute(), ["cpu"], 4) is None is choose_workers(compute(workers=1), ["cpu"], 4)
    two = choose_workers(compute(workers=2), ["cpu"], 5)
    assert (two.device, two.threads, two.local) == ("cpu", 2, ("cpu", "cpu"))           # threads are shared out
    gpus = choose_workers(compute(device="cuda:0,cuda:2"), ["cuda:0", "cuda:2"], 8)
    assert (gpus.device, gpus.threads, gpus.local) == ("cuda:0", 4, ("cuda:0", "cuda:2"))
    assert choose_workers(compute(workers=4), ["cuda:0", "cuda:1"], 2).local == ("cuda:0", "cuda:1") * 2
    far = choose_workers(compute(scheduler="tcp://head:8786", device="cuda:0,cuda:1"), ["cpu"], 4)
    assert (far.device, far.scheduler, far.local) == ("cuda", "tcp://head:8786", ())
    with pytest.raises(InputError, match="address is 'head:1': tcp://host:port"):
        choose_workers(compute(scheduler="head:1"), ["cpu"], 4)
    with pytest.raises(InputError, match="--workers and --scheduler given"):
        choose_workers(compute(scheduler="tcp://head:8786", workers=2), ["cpu"], 4)
    with pytest.raises(InputError, match="cluster.json.*unknown key 'partition'"):
        (tmp_path / "cluster.json").write_text('{"partition": "gpu"}')
        choose_workers(compute(cluster=str(tmp_path / "cluster.json")), ["cpu"], 4)


def test_a_worker_sees_its_device_alone():
    assert environment_of("cpu", {"CUDA_VISIBLE_DEVICES": "3"}) == {}
    assert environment_of("cuda:1", {}) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert environment_of("cuda:1", {"CUDA_VISIBLE_DEVICES": "4, 7"}) == {"CUDA_VISIBLE_DEVICES": "7"}      # a queue's numbers
    assert environment_of("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-ab,GPU-cd"}) == {"CUDA_VISIBLE_DEVICES": "GPU-ab"}


def test_references_may_have_a_gpu_of_their_own_in_a_worker(monkeypatch):
    assert environment_of("cuda:1", {}, "cuda:0") == {"CUDA_VISIBLE_DEVICES": "1,0"}
    assert environment_of("cuda:1", {}, "cuda:1") == environment_of("cuda:1", {}, "cpu") == {"CUDA_VISIBLE_DEVICES": "1"}
    assert environment_of("cuda:0", {"CUDA_VISIBLE_DEVICES": "4,7"}, "cuda:1") == {"CUDA_VISIBLE_DEVICES": "4,7"}
    assert choose_workers(compute(workers=2, slicing_device="cuda:1"), ["cuda:0"], 2).slicing == "cuda:1"
    for count, expected in ((1, "cuda:0"), (2, "cuda:1")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert slicing_in_worker("cuda:3") == expected and slicing_in_worker("cpu") == "cpu" and slicing_in_worker(None) is None
    with pytest.raises(InputError, match="'gpu1' is not known"):
        slicing_in_worker("gpu1")


@pytest.mark.parametrize("given, plain", [("CPU", "cpu"), (" CUDA:1 ", "cuda:1"), ("Auto", None), (" ", None), (None, None)])
def test_the_device_of_the_references_may_be_spelt_like_the_others(given, plain):
    assert ComputeSpec(slicing_device=given).slicing_device == plain


class FakePlaceMaker:
    """Makes the workplace of a worker process; movie 2 ends its process, movie 3 does once."""

    def __init__(self, prepared, layout):
        self.prepared, self.layout = prepared, layout

    def __call__(self, device, threads):
        fake = FakeStages()
        align, once = fake.align_movie, self.layout.folder / "died"

        def deadly(movie, *args, **kwargs):
            if movie.micrograph == "M/mic_2.mrc":
                os.kill(os.getpid(), signal.SIGKILL)
            if movie.micrograph == "M/mic_3.mrc" and not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            (self.layout.folder / "seen").mkdir(exist_ok=True)
            (self.layout.folder / "seen" / str(os.getpid())).write_text("%s %d %s" % (device, threads, os.environ.get("CUDA_VISIBLE_DEVICES")))
            return align(movie, *args, **kwargs)

        fake.align_movie = deadly
        return Workplace(fake.recipes(), self.prepared, self.layout, 1)


def test_a_dead_worker_costs_its_movie_one_retry_and_nothing_else(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="several workers need dask.distributed")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=5)
    place.layout.folder.mkdir()
    with Crew(Workers("cuda:0", 3, ("cuda:0", "cuda:1"))) as crew:
        results = {r.key: r.stages["align"] for r in run_on_workers(tasks, crew, FakePlaceMaker(place.prepared, place.layout))}
    assert [results["M_mic_%d" % i] == "done" for i in range(5)] == [True, True, False, True, True]
    assert "its worker process ended 2 times" in results["M_mic_2"]
    seen = {path.read_text() for path in (place.layout.folder / "seen").iterdir()}
    assert seen <= {"cuda:0 3 5", "cuda:0 3 6"} and seen


def test_each_worker_has_one_task_so_that_no_other_is_blamed_for_its_death(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="several workers need dask.distributed")
    from distributed import Client
    given, submit = [], Client.submit

    def watched(self, *args, **kwargs):
        given.append(kwargs["workers"])
        assert max(len(held) for held in self.processing().values()) <= 1
        return submit(self, *args, **kwargs)

    monkeypatch.setattr(Client, "submit", watched)
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=8)
    place.layout.folder.mkdir()
    with Crew(Workers("cpu", 1, ("cpu", "cpu"))) as crew:
        results = {r.key: r.stages["align"] for r in run_on_workers(tasks, crew, FakePlaceMaker(place.prepared, place.layout))}
    assert [k for k, stage in results.items() if stage != "done"] == ["M_mic_2"] and len(results) == 8
    assert len(given) == 8 + 2 and all(len(addresses) == 1 for addresses in given)      # movies 2 and 3 were tried again


@pytest.mark.parametrize("broken, warned", [(1, False), (2, True)])
def test_a_worker_that_dies_while_all_are_told_to_log_here_stops_nothing(tmp_path, monkeypatch, caplog, broken, warned):
    pytest.importorskip("distributed", reason="several workers need dask.distributed")
    from distributed import Client
    from distributed.comm import CommClosedError
    tries, forward = [], Client.forward_logging

    def breaking(self, *args):
        tries.append(args)
        if len(tries) <= broken:
            raise CommClosedError("Stream is closed")
        return forward(self, *args)

    monkeypatch.setattr(Client, "forward_logging", breaking)
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=1)
    place.layout.folder.mkdir()
    with Crew(Workers("cpu", 1, ("cpu",))) as crew:
        results = list(run_on_workers(tasks, crew, FakePlaceMaker(place.prepared, place.layout)))
    assert [r.stages["align"] for r in results] == ["done"] and len(tries) == 2
    assert ("is not seen here (Stream is closed)" in caplog.text) == warned


def test_workers_that_dask_gave_up_are_started_anew(tmp_path, caplog):
    """Dask closes the keeper of a worker that was away for long: without any a run would wait for hours."""
    pytest.importorskip("distributed", reason="several workers need dask.distributed")
    caplog.set_level("WARNING")
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=2)
    place.layout.folder.mkdir()
    with Crew(Workers("cpu", 1, ("cpu", "cpu"), patience_seconds=60.0)) as crew:
        cluster = crew.client().cluster
        keepers = list(cluster.workers.values())
        for keeper in keepers:
            cluster.sync(keeper.close)
        results = list(run_on_workers(tasks, crew, FakePlaceMaker(place.prepared, place.layout)))
        assert len(cluster.workers) == 2 and not set(keepers) & set(cluster.workers.values())
    assert [r.stages["align"] for r in results] == ["done", "done"]
    assert "2 of 2 worker processes ended and did not come back" in caplog.text


@pytest.mark.parametrize("error, advice", [
    (ImportError("scipy/_ufuncs.so: failed to map segment from shared object"), "memory has run out there, try fewer with --workers"),
    (RuntimeError("can't start new thread"), "memory has run out there"), (MemoryError(), "memory has run out there"),
    (PermissionError(13, "Permission denied", "half1.mrc"), r"PermissionError: .*half1.mrc.*: see that it can read the files of the job"),
    (ModuleNotFoundError("No module named 'torch'"), "workers need the same refmotion_plugin"),
    (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "the GPU cannot be used there, see nvidia-smi; one in exclusive mode"),
    (RuntimeError("Error during deserialization of the task graph. This frequently"), "workers, and the Dask scheduler, need the same refmotion_plugin")], ids=str)
def test_what_keeps_a_worker_from_beginning_is_named_with_what_to_do(error, advice):
    with pytest.raises(InputError, match="a worker cannot do its work .*" + advice):
        _result(None, SimpleNamespace(exception=lambda: error), {})


def test_a_run_whose_own_workers_cannot_be_started_anew_stops_after_a_while():
    crew = SimpleNamespace(workers=Workers("cpu", 1, ("cpu",), patience_seconds=0.05), call_back=lambda: 1)
    watch = Watch(crew)
    watch.look(1)
    watch.look(0)
    time.sleep(0.06)
    with pytest.raises(InputError, match="for 0 s none could be started anew: memory may have run out, try fewer with --workers"):
        watch.look(0)


def test_workers_that_die_while_they_start_are_started_once_more(monkeypatch):
    pytest.importorskip("distributed", reason="several workers need dask.distributed")
    tries, two = [], Workers("cpu", 1, ("cpu", "cpu"))

    def start(workers):
        tries.append(1)
        if len(tries) < good:
            raise RuntimeError("Nanny failed to start.") from OSError("killed")
        return "cluster"

    monkeypatch.setattr("refmotion_plugin.engine.run.workers._local", start)
    good = 2
    assert _started(two) == "cluster"
    tries.clear()
    good = 3
    with pytest.raises(InputError, match="worker processes cannot be started .killed."):
        _started(two)


def broken_place(device, threads):
    """A workplace that cannot be made."""
    raise ModuleNotFoundError("No module named 'torch'")


def test_workers_elsewhere(tmp_path):
    """A scheduler that runs already: its workers do the tasks; faults of the place or the scheduler end the job with a sentence."""
    distributed = pytest.importorskip("distributed", reason="several workers need dask.distributed")
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=2)
    make = FakePlaceMaker(place.prepared, place.layout)
    place.layout.folder.mkdir()
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster:
        def results(maker):
            with Crew(Workers("cpu", 1, scheduler=cluster.scheduler_address)) as crew:
                return [r.stages for r in run_on_workers(tasks, crew, maker)]
        assert results(make) == [{"align": "done"}] * 2
        with pytest.raises(InputError, match="a worker cannot do its work .ModuleNotFoundError: No module named 'torch'"):
            results(broken_place)
        with pytest.raises(InputError, match="has refmotion_plugin %s and the job 99" % refmotion_plugin.__version__):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(refmotion_plugin, "__version__", "99")
                results(make)
        address = cluster.scheduler_address
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refmotion_plugin.engine.run.workers.CONNECT_SECONDS", 1)
        with pytest.raises(InputError, match="the Dask scheduler %s does not answer" % address), Crew(Workers("cpu", 1, scheduler=address)) as crew:
            list(run_on_workers(tasks, crew, make))


@pytest.mark.parametrize("moment", ("before the first came", "while movies wait for one"))
def test_a_run_without_workers_stops_after_a_while(tmp_path, monkeypatch, moment, caplog):
    """Nothing restarts these workers: with one they die on their movie, and dask keeps it for a next worker."""
    distributed = pytest.importorskip("distributed", reason="several workers need dask.distributed")
    caplog.set_level("INFO")
    monkeypatch.setattr("refmotion_plugin.engine.run.executor.LOOK_SECONDS", 0.2)
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=3)
    tasks = tasks[2:]                                               # the movie that ends its process
    place.layout.folder.mkdir()
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster, contextlib.ExitStack() as stack:
        if moment != "before the first came":
            worker = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--nthreads", "1", "--no-nanny",
                                       "--no-dashboard", "--memory-limit", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))))       # it finds this module too
            stack.callback(worker.wait)
            stack.callback(worker.kill)
            with distributed.Client(cluster) as client:
                client.wait_for_workers(1, timeout=60)
        else:
            worker = None
        started = time.monotonic()
        with pytest.raises(InputError, match="there was no worker for 1 s .workers of the scheduler tcp.*--worker-timeout"):
            with Crew(Workers("cpu", 1, scheduler=cluster.scheduler_address, patience_seconds=1.0)) as crew:
                list(run_on_workers(tasks, crew, FakePlaceMaker(place.prepared, place.layout)))
        assert worker is None or worker.wait(timeout=30) == -signal.SIGKILL       # by its movie, as dask's own end would be another code
        assert time.monotonic() - started > 1 and "waiting for a worker: workers of the scheduler" in caplog.text


def test_a_worker_with_several_threads_is_refused(tmp_path):
    distributed = pytest.importorskip("distributed", reason="several workers need dask.distributed")
    tasks, place = tasks_and_place(tmp_path, FakeStages(), movies=2)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        with pytest.raises(InputError, match="has 2 threads.*--nthreads 1"), Crew(Workers("cpu", 1, scheduler=cluster.scheduler_address)) as crew:
            list(run_on_workers(tasks, crew, FakePlaceMaker(place.prepared, place.layout)))


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_devices("auto") == ["cpu"] == choose_devices("CPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_devices("auto") == ["cuda:0"] == choose_devices("cuda") and choose_devices("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    for name, part in (("cuda:2", "sees 2 GPU"), ("cuda:0,cuda:0", "twice"), ("cpu,cuda", "not known"), ("cuda:x", "not known")):
        with pytest.raises(InputError, match=part):
            choose_devices(name)


def test_the_job_of_workers_elsewhere_needs_no_gpu_of_its_own(monkeypatch):
    def here(there, **compute):
        monkeypatch.setattr("torch.cuda.is_available", lambda: there)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2 * there)
        spec = JobSpec.build({"inputs": {"movies": "m"}, "references": [{"particles": "p", "half1": "a", "half2": "b"}],
                              "compute": dict({"device": "cuda:0", "slicing_device": "cuda:1"}, **compute)})
        devices = devices_here(spec.compute)
        return devices, spec_here(spec, devices).compute.slicing_device

    for compute in ({"scheduler": "tcp://a:1"}, {"cluster": "c.json"}):
        assert here(False, **compute) == (["cpu"], None) and here(True, **compute) == (["cuda:0"], "cuda:1")
    assert here(True, scheduler="tcp://a:1", device="cuda:5") == (["cpu"], None)            # workers have more of them
    assert here(True, scheduler="tcp://a:1", slicing_device="cuda:7") == (["cuda:0"], None)
    with pytest.raises(InputError, match="no GPU"):
        here(False)
    with pytest.raises(InputError, match="not known"):
        here(False, scheduler="tcp://a:1", device="cuda:x")
    assert choose_workers(ComputeSpec(device="cuda:0", scheduler="tcp://a:1"), ["cpu"], 4).device == "cuda"


def test_threads():
    import torch
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1 == torch.get_num_threads() and set_threads(0) >= 1
        assert "torch %s on cpu (CPU), 1 CPU threads" % torch.__version__ == describe(["cpu"], 1)
    finally:
        torch.set_num_threads(before)


def test_workers_that_cannot_be_sent_home_do_not_hide_why_a_run_ended(caplog):
    def gone():
        raise OSError("the scheduler is gone")

    with pytest.raises(InputError, match="the reason"), Crew(Workers("cpu", 1)) as crew:
        crew._stack.callback(gone)
        raise InputError("the reason")
    assert "workers could not be sent home (the scheduler is gone)" in caplog.text


def test_a_movie_that_takes_long_at_a_living_worker_is_named(monkeypatch, caplog):
    """A worker that stands still in a driver answers its scheduler as if nothing were."""
    now = [1000.0]
    monkeypatch.setattr("refmotion_plugin.engine.run.watch.time", SimpleNamespace(monotonic=lambda: now[0]))
    watch = Watch(Crew(Workers("cpu", 1, ("cpu", "cpu"))))
    slow, quick = (SimpleNamespace(movie=SimpleNamespace(key=name, micrograph="M/%s.mrc" % name)) for name in ("slow", "quick"))
    now[0] += 950
    for _ in range(3):
        watch.at_work([(slow, "tcp://a:1", 1000.0), (quick, "tcp://a:2", 1950.0)])
        now[0] += 5
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1 and "not done yet: M/slow.mrc at tcp://a:1 for 16 min" in lines[0] and "quick" not in lines[0]


def test_a_process_says_where_it_stands_when_asked():
    code = ("import os, signal\nfrom refmotion_plugin.engine.lifetime import tell_where_on_request\n\ndef standing():\n    os.kill(os.getpid(), signal.SIGUSR1)\n\n"
            "tell_where_on_request()\nstanding()\nprint('went on')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "went on\n" and "in standing" in done.stderr and done.returncode == 0


def test_a_failed_movie_holds_no_memory_beside_the_next_one(tmp_path):
    """Functions that the error passed through are emptied, its text and its lines are kept."""
    class Stack:
        """Something large."""

    def align(movie, particles, prepared, stack=None):
        large = stack
        try:
            raise OSError("inside")
        except OSError:
            raise MovieError("no good %s" % type(large).__name__)

    stacks = [Stack()]
    alive = weakref.ref(stacks[0])
    place = Workplace(SimpleNamespace(align_movie=align), SimpleNamespace(spec=None, device="cpu", references=()), JobLayout(tmp_path), 1)
    task = MovieTask(SimpleNamespace(key="a", micrograph="M/a.mrc"), None, "mark")
    gc.disable()
    try:
        finish = tasks_module.begin_task(task, place, stacks.pop)
        assert alive() is None
        assert finish().stages == {"align": "no good Stack"}
    finally:
        gc.enable()


def test_workers_that_do_not_come_up_in_time_end_the_run_with_a_sentence(monkeypatch, caplog):
    pytest.importorskip("distributed")
    monkeypatch.setattr("refmotion_plugin.engine.run.workers.START_SECONDS", 0.3)          # less than an interpreter with dask takes
    start = time.monotonic()
    with pytest.raises(InputError, match="worker processes cannot be started"):
        _started(Workers("cpu", 1, ("cpu",)))
    assert "starting them once more" in caplog.text and time.monotonic() - start < 60


@pytest.mark.parametrize("broken", [None, "cuda:0", "cuda:1"])
def test_a_gpu_that_does_no_more_work_is_not_the_movies_fault(tmp_path, monkeypatch, caplog, broken):
    """After an illegal access every operation of the process fails there, and each further movie would with it."""
    def synchronize(device):
        if device == broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def align(movie, particles, prepared, stack=None):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    reference = SimpleNamespace(spectrum=SimpleNamespace(device=torch.device("cuda:1")))
    prepared = SimpleNamespace(spec=None, device=torch.device("cuda:0"), references=(reference,))
    place = Workplace(SimpleNamespace(align_movie=align), prepared, JobLayout(tmp_path), 1)
    task = MovieTask(SimpleNamespace(key="a", micrograph="M/a.mrc"), None, "mark")
    if not broken:
        assert "unexpected RuntimeError" in tasks_module.run_task(task, place, lambda: "stack").stages["align"]
        return
    with pytest.raises(InputError, match=broken + " does no more work .CUDA error: an illegal memory access was encountered.: see nvidia-smi"):
        tasks_module.run_task(task, place, lambda: "stack")
    ended = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(executor, "_PLACES", {"made": place})
    monkeypatch.setattr(executor, "TELL_SECONDS", 0.0)
    monkeypatch.setattr(executor, "_own_address", lambda: "tcp://here")
    monkeypatch.setattr(executor.os, "_exit", ended.append)
    executor._on_worker("made", None, None, tasks_module.run_task, task)        # a worker ends: its movie is tried by the process after it
    assert ended == [1] and "worker tcp://here ends: %s (CUDA_VISIBLE_DEVICES=3,5) does no more work" % broken in caplog.text


def test_a_worker_that_prepares_the_job_names_its_gpu(monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(executor, "_PLACES", {})
    monkeypatch.setattr(executor, "_settle", lambda *home: None)
    monkeypatch.setattr(executor, "_own_address", lambda: "tcp://here")
    with caplog.at_level("INFO"):
        executor._on_worker("made", (), functools.partial(lambda device: "place", device="cuda:0"), lambda task, place, load: place, None)
    assert "prepares the job, device cuda:0 (CUDA_VISIBLE_DEVICES=3)" in caplog.text
