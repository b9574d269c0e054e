"""Figures to files: the picture, and the numbers behind it as CSV."""
import csv
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg

from ..contract.layout import atomic_path, atomic_write

FORMATS = ("png", "pdf", "svg")
DOTS_PER_INCH = 150
PNG_EFFORT = 1         # of zlib: hardly larger than with its default of 6, and faster


def save_figure(figure, path, dots_per_inch=DOTS_PER_INCH):
    """Write the picture; the format is that of the name's ending. Returns the path."""
    path = Path(path)
    with atomic_path(path) as temporary:
        if path.suffix in ("", ".png"):
            _save_png(figure, temporary, dots_per_inch)
        else:
            figure.savefig(str(temporary), dpi=dots_per_inch, format=path.suffix[1:])
    return path


def _save_png(figure, path, dots_per_inch):
    """As ``savefig`` does it, but drawn and laid out once instead of twice: that is most of what a report costs."""
    shown_on, dots_before = figure.canvas, figure.dpi
    try:
        figure.dpi = dots_per_inch
        FigureCanvasAgg(figure).print_png(str(path), pil_kwargs={"compress_level": PNG_EFFORT})
    finally:
        figure.set_canvas(shown_on)
        figure.dpi = dots_before


def save_data(figure, path):
    """Write the tables behind a figure as CSV beside ``path``: NAME.csv, or NAME_TABLE.csv each if there are several. Returns the paths."""
    path, written = Path(path).with_suffix(""), []
    for name, columns in figure.tables.items():
        ending = "" if len(figure.tables) == 1 else "_" + name.replace(" ", "_")
        target = path.with_name(path.name + ending + ".csv")
        with atomic_write(target, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(_plain(values) for values in columns.values())))
        written.append(target)
    return written


def _plain(values):
    return ["%.7g" % v for v in values] if values.dtype.kind == "f" else values.tolist()
