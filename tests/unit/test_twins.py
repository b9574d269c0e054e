"""Particles that are given more than once: refused where it is certain, told where it is likely."""
import numpy as np
import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.records import ParticleTable
from refmotion_plugin.contract.star import read_tables, write_tables
from refmotion_plugin.contract.verdict import load_verdict
from refmotion_plugin.engine.run import twins
from refmotion_plugin.engine.run.inputs import read_inputs
from refmotion_plugin.engine.run.job import run_job

from tests.unit.job_stand_ins import FakeStages, write_project


def repeat(path, rows, **columns):
    """Add ``rows`` of a particle file to it once more, with other values in some columns."""
    tables = read_tables(path)
    particles = tables["particles"]
    more = particles.rows(rows).with_columns(**{name: [value] * len(rows) for name, value in columns.items()})
    both = {name: values + more.columns[name] for name, values in particles.columns.items()}
    write_tables(path, [tables["optics"], particles.with_columns(**both)])


def read(spec):
    return read_inputs(spec, FakeStages._outside)


def test_each_particle_once_is_no_reason_to_worry(tmp_path):
    assert read(write_project(tmp_path / "project", references=2)).warnings == ()


@pytest.mark.parametrize("columns", [{}, {"rlnAngleRot": "90"}, {"rlnRandomSubset": "1"}], ids=["rows twice", "symmetry expansion", "half-sets"])
def test_rows_that_are_there_twice_are_refused(tmp_path, columns):
    spec = write_project(tmp_path / "project")
    repeat(spec.references[0].particles, [4, 2, 1], **columns)
    with pytest.raises(InputError, match=r"^3 of 9 particles repeat .*rows 2 and 9 of .*particles_0.star \(x 24, y 30 of M/mic_1.mrc\)") as told:
        run_job(tmp_path / "OUT", spec, recipes=FakeStages().recipes())
    assert "before the expansion" in str(told.value)


def test_the_same_particles_for_two_references_are_refused(tmp_path):
    spec = write_project(tmp_path / "project", references=2)
    first, second = (r.particles for r in spec.references)
    with open(first) as source, open(second, "w") as target:
        target.write(source.read())
    with pytest.raises(InputError, match="^6 of 12 particles repeat .*row 1 of .*particles_0.star and row 1 of .*particles_1.star"):
        read(spec)


def test_particles_that_are_nearly_at_one_place_are_told(tmp_path, caplog):
    """In the log and in the verdict; other coordinates and origin may be the same place."""
    spec = write_project(tmp_path / "project")
    repeat(spec.references[0].particles, [2], rlnCoordinateX="30", rlnOriginXAngst="4.5")       # 28 px - 3.3 A before: 1.8 A from it
    run_job(tmp_path / "OUT", spec, recipes=FakeStages().recipes())
    text, = load_verdict(JobLayout(tmp_path / "OUT").verdict).warnings
    assert text.startswith("2 of 7 particles are less than 5 A from another, such as rows 3 and 7 of") and text in caplog.text


def test_a_few_of_them_leave_the_verdict_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(twins, "TELLING_SHARE", 0.5)
    spec = write_project(tmp_path / "project")
    repeat(spec.references[0].particles, [2], rlnOriginXAngst="4.5")
    assert read(spec).warnings == ()


def test_of_many_at_one_place_each_is_counted_once():
    n, zero = 5000, np.zeros(5000)
    place = np.zeros((n, 2))
    place[4000:] = np.arange(1000)[:, None] * 100.0 + 1000.0
    table = ParticleTable(np.arange(n), zero.astype(int), zero.astype(str), place, 0 * place, *[zero] * 9)
    assert len(twins._repeated(table)) == 3999 and len(twins._near(place)) == 4000
