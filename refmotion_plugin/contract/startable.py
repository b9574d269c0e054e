"""STAR tables as columns of text, so that what is not understood is kept letter by letter.

Read with a few lines of our own: emtable (which the tests hold beside it) drops the end of rows that are too long,
stops at unbalanced quotes and makes one object per row, which takes gigabytes for a million particles.
"""
import re
from dataclasses import dataclass, replace
from typing import Dict, List

import numpy as np

from .errors import InputError
from .layout import atomic_write
from .reading import read_text

RELION_VERSION_LINE = "# version 30001"
LARGEST_INTEGER = 2 ** 53       # that a float64 holds exactly


@dataclass(frozen=True)
class StarTable:
    """One block of a STAR file: ``columns`` maps each column name to its values as text, in the file's order."""

    name: str
    columns: Dict[str, List[str]]
    source: str = "a new table"

    def __len__(self):
        return len(next(iter(self.columns.values()), []))

    def __contains__(self, column):
        return column in self.columns

    def _require(self, column):
        if column not in self.columns:
            raise InputError("%s has no column %s in block data_%s: it is needed, give a file that has it"
                             % (self.source, column, self.name))
        return self.columns[column]

    def text(self, column, default=None):
        """Values of ``column`` as a text array; ``default`` fills it if the file has no such column."""
        if default is not None and column not in self.columns:
            return np.full(len(self), default)
        return np.array(self._require(column), dtype=str)

    def numbers(self, column, default=None):
        """Values of ``column`` as float64; ``default`` fills it if the file has no such column.

        Raises InputError with the row when a value is not a finite number, or when the column is needed and absent.
        """
        if default is not None and column not in self.columns:
            return np.full(len(self), float(default))
        values = self._require(column)
        try:
            array = np.fromiter(map(float, values), np.float64, len(values))
        except ValueError:
            array = np.array([_number_or_nan(v) for v in values])
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            raise InputError("%s: %s of row %d in block data_%s is %r where a finite number was expected: correct or remove the row"
                             % (self.source, column, bad[0] + 1, self.name, values[bad[0]]))
        return array

    def integers(self, column, default=None):
        """Values of ``column`` as int64 (RELION writes some whole numbers as 1.000000)."""
        numbers = self.numbers(column, default)
        whole = np.rint(numbers)
        odd = np.flatnonzero((np.abs(numbers - whole) > 1e-3) | (np.abs(whole) > LARGEST_INTEGER))
        if len(odd):
            raise InputError("%s: %s of row %d in block data_%s is %g where a whole number was expected: correct or remove the row"
                             % (self.source, column, odd[0] + 1, self.name, numbers[odd[0]]))
        return whole.astype(np.int64)

    def number(self, column, default=None):
        """The single value of ``column`` as float (of the first row)."""
        if not len(self):
            raise InputError("%s: block data_%s is empty: %s was expected there" % (self.source, self.name, column))
        return float(self.numbers(column, default)[0])

    def with_columns(self, **columns):
        """The table with some columns replaced or added at the end; values are lists of text."""
        return replace(self, columns={**self.columns, **{k: [str(v) for v in values] for k, values in columns.items()}})

    def rows(self, index):
        """The table with only the rows of ``index``, in that order."""
        return replace(self, columns={k: [values[i] for i in index] for k, values in self.columns.items()})


def _number_or_nan(text):
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read_tables(path):
    """All blocks of a STAR file by name, in order.

    Raises InputError if the file cannot be read, has no block, or a row has not one value per column.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("STAR file %s cannot be read (%s): check the path" % (path, getattr(error, "strerror", None) or error)) from None
    control = _CONTROL.search(text)
    if control:
        raise InputError("STAR file %s holds the control character %r in line %d: it is damaged, write it again"
                         % (path, control.group(), text.count("\n", 0, control.start()) + 1))
    parts = _BLOCK.split(text)
    if len(parts) < 3:
        raise InputError("%s has no data_ block: a RELION STAR file was expected" % path)
    return {name: _parse(name, body, str(path)) for name, body in zip(parts[1::2], parts[2::2])}


def read_table(path, name):
    """One block of a STAR file as text. Raises InputError if it is absent or the file is damaged."""
    tables = read_tables(path)
    if name not in tables:
        raise InputError("%s has no block data_%s: it holds %s" % (path, name, ", ".join("data_" + n for n in tables)))
    return tables[name]


_BLOCK = re.compile(r"^data_(\S*)[ \t]*(?:#.*)?$", re.MULTILINE)         # alone on its line, since rows may begin like it: data_1/mic.mrc 5 7
_TOKEN = re.compile(r"""(?<!\S)"([^"\n]*)"(?!\S)|(?<!\S)'([^'\n]*)'(?!\S)|(\S+)""")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")       # all but the kinds of white space: terminals and other programs take them for orders


def _split(text):
    if '"' not in text and "'" not in text:
        return text.split()
    return [a or b or c for a, b, c in _TOKEN.findall(text)]


def _parse(name, body, source):
    lines = [line for line in map(str.strip, body.splitlines()) if line[:1] != "#"]
    if "loop_" not in lines:
        header = [_split(line) for line in lines if line[:1] == "_"]
        return StarTable(name, {parts[0][1:]: [" ".join(parts[1:])] for parts in header}, source)
    lines = lines[lines.index("loop_") + 1:]
    begin = next((i for i, line in enumerate(lines) if line[:1] == "_"), 0)
    end = next((i for i in range(begin, len(lines)) if lines[i][:1] != "_"), len(lines))
    columns = [line.split()[0][1:] for line in lines[begin:end]]
    if len(set(columns)) < len(columns):
        raise InputError("%s: block data_%s names the column %s twice: remove one" % (
            source, name, next(c for i, c in enumerate(columns) if c in columns[:i])))
    rows = _to_the_blank_line(lines[end:], len(columns), name, source)
    values = _split("\n".join(rows))
    if len(values) != len(rows) * len(columns):       # RELION's own job.star files have tabs inside values
        values = [v for row in rows for v in row.split(" ") if v]
    if len(values) != len(rows) * len(columns):
        bad = next(i for i, row in enumerate(rows) if len(_split(row)) != len(columns))
        raise InputError("%s: row %d of block data_%s has %d values for %d columns: the file is damaged or cut off, write it again"
                         % (source, bad + 1, name, len(_split(rows[bad])), len(columns)))
    return StarTable(name, {c: values[i::len(columns)] for i, c in enumerate(columns)}, source)


def _to_the_blank_line(rows, n_columns, name, source):
    """Rows of a table, which a blank line ends as in RELION; remarks may follow. InputError if further rows do: they would be lost in silence."""
    if "" not in rows:
        return rows
    last = rows.index("")
    beyond = sum(len(_split(row)) == n_columns for row in rows[last:])
    if beyond:
        raise InputError("%s: block data_%s has %d rows behind a blank line, which ends a table: remove the blank line, or those rows" % (source, name, beyond))
    return rows[:last]


_NEEDS_QUOTES = re.compile(r"""[\s"']|(?:^|\0)(?:[_#]|data_|loop_)""")       # in values joined by zeros


def _quoted(values):
    """The values of a column as they may stand in a file: all in quotes if one is empty, holds a space or
    a quote, or begins like something else.

    All, because emtable looks at the first row to find out whether there are quotes.
    """
    if all(values) and not _NEEDS_QUOTES.search("\0".join(values)):
        return values
    return ['"%s"' % v.replace('"', "'") for v in values]


def table_text(table, single_row=False):
    """The block as RELION writes it; ``single_row`` writes label and value pairs instead of a loop."""
    lines = ["", RELION_VERSION_LINE, "", "data_" + table.name, ""]
    if single_row:
        lines += ["_%-45s %s" % (column, _quoted(values)[0]) for column, values in table.columns.items()]
    else:
        lines += ["loop_ "] + ["_%s #%d " % (column, i + 1) for i, column in enumerate(table.columns)]
        quoted = [_quoted(values) for values in table.columns.values()]
        widths = [max(map(len, values), default=0) for values in quoted]
        padded = [[v.rjust(w) for v in values] for values, w in zip(quoted, widths)]
        lines += map(" ".join, zip(*padded))
    return "\n".join(lines) + "\n \n"


def write_tables(path, tables, single_row=()):
    """Write blocks to ``path`` (atomically); those whose name is in ``single_row`` as label and value pairs."""
    with atomic_write(path, "w") as file:
        for table in tables:
            file.write(table_text(table, table.name in single_row))
