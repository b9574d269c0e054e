"""Which movies of growing sets are taken when; and what is read of sets while another process writes them."""
import sqlite3
from types import SimpleNamespace

import pytest

from pyworkflow.object import Set

from refmotion_plugin.convert import Batches, Watch, growing
from refmotion_plugin.protocols.streaming import StreamingSteps


def look(closed=False, n_sets=1, **counts):
    """m1=5: movie 1 has five particles of the first set; m1=(5, 2): and two of the second."""
    of = {int(name[1:]): count if isinstance(count, tuple) else (count,) for name, count in counts.items()}
    return SimpleNamespace(counts={movie: sum(numbers) for movie, numbers in of.items()}, closed=closed, n_sets=n_sets,
                           sets_of={movie: {i for i, number in enumerate(numbers) if number} for movie, numbers in of.items()})


@pytest.fixture
def batches(tmp_path):
    """Function that makes (or takes up again) the batches of a run."""
    def make(size=1, patience=1e9, first_particles=1, key="k"):
        return Batches(str(tmp_path / "inputs" / "batches.json"), key, size, patience, first_particles)
    return make


def test_a_movie_is_taken_when_no_more_of_its_particles_came(batches):
    taking = batches()
    assert taking.take(look(m1=3)) == [] and taking.take(look(m1=5, m2=1)) == []
    assert taking.take(look(m1=5, m2=2)) == [[1]]
    assert taking.take(look(m1=5, m2=2)) == [[2]] and taking.take(look(m1=5, m2=2)) == []
    assert taking.take(look(m1=6, m2=2)) == [] and taking.take(look(m1=6, m2=2)) == [[1]]      # a late particle
    assert not taking.exhausted(look(m1=6, m2=2)) and taking.exhausted(look(closed=True, m1=6, m2=2))


def test_closed_sets_are_complete(batches):
    end = look(closed=True, m1=1, m2=1, m3=1, m4=0)
    for first_particles, expected in ((1, [[1, 2], [3]]), (3, [[1, 2, 3]]), (100, [[1, 2, 3]])):
        taking = batches(size=2, first_particles=first_particles, key=str(first_particles))
        assert not taking.exhausted(end)
        assert taking.take(end) == expected and taking.take(end) == [] and taking.exhausted(end)


def test_a_batch_waits_until_it_is_full_or_nothing_comes(batches):
    taking = batches(size=3)
    taking.take(look(m1=1, m2=1))
    assert taking.take(look(m1=1, m2=1)) == []
    taking.patience = -1
    assert taking.take(look(m1=1, m2=1)) == [[1, 2]]
    taking.patience = 1e9
    counts = dict(m1=1, m2=1, m3=1, m4=1, m5=1)
    taking.take(look(**counts))
    assert taking.take(look(**counts)) == [[3, 4, 5]]


def test_the_first_batch_waits_for_particles(batches):
    taking = batches(first_particles=10)
    for _ in range(3):
        assert taking.take(look(m1=4, m2=5)) == []
    counts = dict(m1=4, m2=6, m3=1, m4=1)
    taking.take(look(**counts))
    assert taking.take(look(**counts)) == [[1, 2], [3], [4]]
    taking.take(look(m5=1, **counts))
    assert taking.take(look(m5=1, **counts)) == [[5]]


def test_the_first_batch_waits_for_particles_of_each_set(batches):
    taking = batches()
    for _ in range(3):
        assert taking.take(look(n_sets=2, m1=(9, 0), m2=(9, 0))) == []
    later = dict(m1=(9, 0), m2=(9, 3), m3=(9, 0))
    taking.take(look(n_sets=2, **later))
    assert taking.take(look(n_sets=2, **later)) == [[1, 2], [3]]
    assert batches(key="other").take(look(n_sets=2, closed=True, m1=(9, 0), m2=(9, 0))) == [[1, 2]]        # nothing more will come


def test_a_look_tells_which_sets_have_particles_in_a_movie(in_project):
    source = in_project[1]
    some = source._createSetOfParticles("_some")
    some.copyInfo(source.outputParticles)
    for particle in source.outputParticles.iterItems():
        if particle.getMicId() == 2:
            some.append(particle.clone())
    some.write()
    found = growing.Look(source.outputMovies, (source.outputParticles, some))
    assert found.sets_of == {1: {0}, 2: {0, 1}} and found.n_sets == 2 and found.counts == {1: 6, 2: 12}


def test_batches_survive_a_stop_and_other_parameters_begin_anew(batches):
    first = batches()
    first.take(look(closed=True, m2=4, m1=7))
    again = batches()
    assert again.taken == [{1: 7}, {2: 4}] and Batches.belong_to(again.path, "k") and not Batches.belong_to(again.path, "other")
    assert again.take(look(closed=True, m1=7, m2=4)) == [] and batches(key="other").taken == []


class Stored(StreamingSteps):
    """What of a protocol publishing an output needs."""

    def __init__(self):
        self.stored = []

    def hasAttribute(self, name):
        return hasattr(self, name)

    def _updateOutputSet(self, name, output, state):
        setattr(self, name, output)
        self.stored.append(state)

    def _defineTransformRelation(self, source, output):
        self.stored.append((source, output))


def test_an_output_that_a_killed_run_wrote_but_did_not_record_is_recorded():
    protocol, empty, filled = Stored(), SimpleNamespace(getSize=lambda: 0), SimpleNamespace(getSize=lambda: 6)
    protocol._publishGrown("outputParticles", empty, "input", 0)
    assert protocol.stored == []
    protocol._publishGrown("outputParticles", filled, "input", 0)
    assert protocol.stored == [Set.STREAM_OPEN, ("input", filled)]
    protocol._publishGrown("outputParticles", filled, "input", 0)
    protocol._publishGrown("outputParticles", filled, "input", 2)
    assert protocol.stored[2:] == [Set.STREAM_OPEN]


def test_a_set_that_is_being_written_is_looked_at_later(monkeypatch, tmp_path):
    path = tmp_path / "set.sqlite"
    path.write_text("")
    answers = [sqlite3.OperationalError("database is locked"), "a look", "another"]

    def answer(*_):
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found
    monkeypatch.setattr(growing, "Look", answer)
    watch = Watch(SimpleNamespace(getFileName=lambda: str(path)))
    assert watch.look() is None and watch.look() == "a look" and watch.look() == "a look"      # an unchanged file is not read again
    path.write_text("more")
    assert watch.look() == "another"
