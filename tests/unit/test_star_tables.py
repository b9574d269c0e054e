"""STAR tables: what is read is what is written, beside emtable, and every fault is one sentence."""
from pathlib import Path

import emtable
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.startable import StarTable, read_table, read_tables, write_tables

DATA = Path(__file__).parent.parent / "data"
WORDS = st.text(st.characters(codec="ascii", exclude_categories=("Cc",), exclude_characters="\"'"), max_size=12)


@pytest.mark.parametrize("name", ["movie_motion.star", "corrected_micrographs.star", "particles.star", "bfactors.star"])
def test_emtable_reads_the_same(name):
    for block, table in read_tables(DATA / name).items():
        other = emtable.Table(fileName=str(DATA / name), tableName=block, guessType=False)
        assert table.columns == {c: [getattr(row, c) for row in other] for c in other.getColumnNames()}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(WORDS, min_size=n, max_size=n), min_size=1, max_size=6)))
def test_written_tables_are_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("star") / "t.star"
    columns = {"rln%d" % i: list(values) for i, values in enumerate(zip(*rows))}
    write_tables(path, [StarTable("first", columns), StarTable("list", {"rlnOne": ["a b"]})], single_row=("list",))
    assert read_table(path, "first").columns == columns
    assert read_table(path, "list").columns == {"rlnOne": ["a b"]}


def test_emtable_reads_what_we_write(tmp_path):
    columns = {"rlnMicrographName": ["a.mrc", "b c.mrc"], "rlnCoordinateX": ["1.5", "20"]}
    write_tables(tmp_path / "t.star", [StarTable("particles", columns)])
    table = emtable.Table(fileName=str(tmp_path / "t.star"), tableName="particles", guessType=False)
    assert [row.rlnCoordinateX for row in table] == ["1.5", "20"]


def test_a_blank_line_ends_a_table(tmp_path):
    (tmp_path / "t.star").write_text("data_x\n\nloop_\n_a #1\n_b #2\n1 2\n\n kk= 1 something else\n")
    assert read_table(tmp_path / "t.star", "x").columns == {"a": ["1"], "b": ["2"]}


def test_tabs_inside_values_as_in_relions_job_files(tmp_path):
    (tmp_path / "t.star").write_text("data_x\n\nloop_\n_a #1\n_b #2\n1 two\tthree\n2 four\n")
    assert read_table(tmp_path / "t.star", "x").columns == {"a": ["1", "2"], "b": ["two\tthree", "four"]}


@pytest.mark.parametrize("name", ["data_x/MotionCorr/mic.mrc", "data_", "loop_", "_mic.mrc", "_rlnMic"])
def test_values_that_begin_like_something_else(tmp_path, name):
    (tmp_path / "t.star").write_text("data_x\nloop_\n_a #1\n_b\nother 1\n%s   2 \n%s 3\n\ndata_y # note\n_c 4\ndata_\t\n_d 5\n" % (name, name))
    tables = read_tables(tmp_path / "t.star")
    assert list(tables) == ["x", "y", ""] and tables["x"].columns == {"a": ["other", name, name], "b": ["1", "2", "3"]}


@pytest.mark.parametrize("text, part", [
    ("data_x\nloop_\n_a\n_b\n1 2\n3\n", "row 2 of block data_x has 1 values for 2 columns"),
    ("data_x\nloop_\n_a\n_b\n1 2\n3 4 5\n", "row 2 of block data_x has 3 values for 2 columns"),
    ("1 2 3\n", "has no data_ block"),
])
def test_damaged_files_are_named(tmp_path, text, part):
    (tmp_path / "t.star").write_text(text)
    with pytest.raises(InputError, match=part):
        read_tables(tmp_path / "t.star")


def test_missing_things_are_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_tables(tmp_path / "none.star")
    with pytest.raises(InputError, match="no block data_other"):
        read_table(DATA / "bfactors.star", "other")
    with pytest.raises(InputError, match="no column rlnNone"):
        read_table(DATA / "bfactors.star", "perframe_bfactors").numbers("rlnNone")


def test_values_that_are_no_numbers_are_named_with_their_row():
    table = StarTable("particles", {"rlnDefocusU": ["1", "nan", "x"]}, "p.star")
    with pytest.raises(InputError, match="p.star: rlnDefocusU of row 2 in block data_particles is 'nan'"):
        table.numbers("rlnDefocusU")
    with pytest.raises(InputError, match="row 3.*'x'"):
        StarTable("particles", {"rlnDefocusU": ["1", "2", "x"]}, "p.star").numbers("rlnDefocusU")


def test_rows_behind_a_blank_line_are_not_lost_in_silence(tmp_path):
    path = tmp_path / "x.star"
    path.write_text("data_particles\n\nloop_\n_rlnA #1\n_rlnB #2\n1 2\n\n\n# end\n")
    assert read_tables(path)["particles"].columns == {"rlnA": ["1"], "rlnB": ["2"]}
    path.write_text(path.read_text() + "3 4\n5 6\n")
    with pytest.raises(InputError, match="data_particles has 2 rows behind a blank line"):
        read_tables(path)
