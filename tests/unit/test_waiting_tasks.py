"""Which task a worker gets next."""
from types import SimpleNamespace

import pytest

from refmotion_plugin.engine.run.waiting import WaitingTasks


def tasks(keys):
    return [SimpleNamespace(movie=SimpleNamespace(key=key)) for key in keys]


def taken(waiting, *addresses):
    return [waiting.take(address).movie.key for address in addresses]


def test_a_worker_gets_the_movies_that_it_had_before():
    waiting = WaitingTasks(tasks("abcde"), {"a": "one", "b": "two", "d": "two"})
    assert taken(waiting, "two", "one", "two", "one", "one") == ["b", "a", "d", "c", "e"] and not waiting


def test_a_movie_that_nobody_had_comes_before_those_of_other_workers():
    assert taken(WaitingTasks(tasks("ab"), {"a": "one"}), "three", "three") == ["b", "a"]         # its own worker is busy or gone
    assert taken(WaitingTasks(tasks("abc"), {"a": "two", "b": "one", "c": "two"}), *["three"] * 3) == ["a", "b", "c"]
    assert taken(WaitingTasks(tasks("ab"), {}), "one", "one") == ["a", "b"]


def test_a_task_that_is_put_back_comes_first():
    worked_at = {}
    waiting = WaitingTasks(tasks("abc"), worked_at)
    first = waiting.take("one")
    worked_at["a"] = "one"                                          # the worker that died under it
    waiting.put_back(first)
    assert len(waiting) == 3 and taken(waiting, "one", "two", "two") == ["a", "b", "c"]
    waiting.put_back(first)
    assert taken(waiting, "two") == ["a"]                           # nobody else has anything to do
    with pytest.raises(ValueError):
        waiting.take("two")


@pytest.mark.parametrize("owners", [(), ("one", "two")])
def test_picking_does_not_look_at_all_that_wait(owners):
    """With 20 000 movies that took minutes in all."""
    looked, count = [], 2000

    class Movie:
        def __init__(self, number):
            self.number = number

        @property
        def key(self):
            looked.append(self.number)
            return self.number

    worked_at = {number: owners[number % len(owners)] for number in range(count)} if owners else {-1: "one"}
    waiting = WaitingTasks([SimpleNamespace(movie=Movie(number)) for number in range(count)], worked_at)
    for number in range(count):
        waiting.take(("one", "two")[number // (count // 2)])
    assert not waiting and len(looked) <= 2 * count
