"""The list of movies as text: what stands in its columns and how they are sorted."""
from collections import namedtuple

Column = namedtuple("Column", "name title format align")


def _number(pattern):
    return lambda value: "" if value is None else pattern % value


COLUMNS = (
    Column("number", "#", _number("%d"), "e"),
    Column("micrograph", "movie", str, "w"),
    Column("state", "state", str, "w"),
    Column("n_particles", "particles", _number("%d"), "e"),
    Column("path_length_angstrom", "path (Å)", _number("%.1f"), "e"),
    Column("early_angstrom", "early (Å)", _number("%.1f"), "e"),
    Column("local_rms_angstrom", "local (Å)", _number("%.2f"), "e"),
    Column("reason", "reason", str, "w"))
MARGIN_PX, WIDEST_PX = 14, {"micrograph": 260, "reason": 900}


def table_of(rows):
    """MovieRows as dicts of values by column; how a fit ended stands under reason where it is worth a look."""
    return [dict({column.name: getattr(row, column.name, None) for column in COLUMNS}, number=number, key=row.key,
                 reason=row.reason or ("" if row.fit in ("", "converged") else "fit: %s" % row.fit))
            for number, row in enumerate(rows, 1)]


def sorted_by(table, name, descending=False):
    """The table in the order of a column; what has no value comes last."""
    known = sorted((line for line in table if line[name] is not None), key=lambda line: line[name], reverse=descending)
    return known + [line for line in table if line[name] is None]


def matching(table, text):
    """Lines whose movie, state or reason holds a text, in any case."""
    text = text.strip().lower()
    return [line for line in table if text in " ".join((line["micrograph"], line["state"], line["reason"])).lower()]


def cells(line):
    """Text of a line's cells."""
    return [column.format(line[column.name]) for column in COLUMNS]


def widths(table, heading_px, cell_px):
    """Width of each column in px, so that nothing is cut off but very long texts; the functions measure a text in the font of headings and of cells."""
    texts = zip(*map(cells, table)) if table else [()] * len(COLUMNS)
    return [min(max([heading_px(column.title)] + [cell_px(text) for text in inside]) + MARGIN_PX, WIDEST_PX.get(column.name, 200))
            for column, inside in zip(COLUMNS, texts)]
