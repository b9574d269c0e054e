"""Threads that share the particles of a frame: every part once, in any thread, and the same results as one thread gives."""
import threading
import time

import pytest
import torch

from refmotion_plugin.engine.maths import lanes as module
from refmotion_plugin.engine.maths.lanes import each_part, even_parts, lanes, set_lanes


@pytest.fixture(params=[1, 2, 5])
def count(request):
    set_lanes(request.param)
    return request.param


def test_each_part_is_done_once_and_results_keep_their_order(count):
    for n in (0, 1, 2, 7, 40):
        done = []
        assert each_part(lambda i: done.append(i) or 10 * i, range(n)) == [10 * i for i in range(n)] and sorted(done) == list(range(n))


def test_as_many_threads_work_as_were_given_and_each_has_torch_to_itself(count):
    """Nobody's part ends before all have begun: with fewer threads than that this would never end."""
    before, all_there = torch.get_num_threads(), threading.Barrier(count, timeout=20)
    torch.set_num_threads(3)
    try:
        seen = each_part(lambda i: (all_there.wait(), threading.get_ident(), torch.get_num_threads()), range(count))
        assert len({thread for _, thread, _ in seen}) == count and torch.get_num_threads() == 3
        assert all(n == 1 for _, thread, n in seen if thread != threading.get_ident())
    finally:
        torch.set_num_threads(before)


def test_an_error_comes_to_the_one_who_asked_and_the_next_work_is_done(count):
    def fails(i):
        if i == 3:
            raise KeyError(i)
        time.sleep(1e-3)

    for _ in range(3):
        with pytest.raises(KeyError):
            each_part(fails, range(20))
        assert each_part(abs, [-1, -2, -3]) == [1, 2, 3]


def test_a_thread_that_helps_does_not_ask_for_help():
    set_lanes(2)
    both = threading.Barrier(2, timeout=20)
    try:
        seen = each_part(lambda _: (both.wait(), lanes(), threading.get_ident(), set(each_part(lambda _: threading.get_ident(), range(9)))), range(2))
        helper = next(s for s in seen if s[2] != threading.get_ident())
        assert helper[1] == 1 and helper[3] == {helper[2]}
    finally:
        set_lanes(1)


def test_a_gpu_has_one_and_fewer_threads_end_those_that_are_not_needed():
    set_lanes(4)
    try:
        each_part(abs, range(8))
        assert lanes("cuda:0") == 1 and lanes() == 4 and module._helpers._max_workers == 3
        threads = [t for t in threading.enumerate() if t.name.startswith("lane")]
        set_lanes(2)
        assert threads and lanes() == 2
        for thread in threads:
            thread.join(20)
        assert not any(t.is_alive() for t in threads)
    finally:
        set_lanes(1)


def test_what_was_worked_on_is_let_go():
    """Helpers wait with empty hands: a movie's spectra must not live until the next movie comes."""
    import weakref
    set_lanes(3)
    try:
        held = torch.zeros(5)
        gone = weakref.ref(held)
        each_part(lambda i, held=held: held.sum(), range(9))
        del held
        end = time.monotonic() + 10
        while gone() is not None and time.monotonic() < end:
            time.sleep(1e-3)
        assert gone() is None
    finally:
        set_lanes(1)


@pytest.mark.parametrize("threads, expected", [(1, [4, 4, 2]), (2, [4, 4, 2]), (3, [4, 4, 2]), (4, [3, 3, 3, 1]), (20, [1] * 10)])
def test_parts_are_as_large_as_they_may_be_and_enough_for_all(monkeypatch, threads, expected):
    monkeypatch.setattr(module, "_count", threads)
    parts = even_parts(10, 4)
    assert [p.stop - p.start for p in parts] == expected and [i for p in parts for i in range(10)[p]] == list(range(10))
    assert even_parts(0, 4) == [] and even_parts(10, 4, "cuda") == [slice(0, 4), slice(4, 8), slice(8, 10)]
