"""How far ticks and labels reach out of a plot, measured once in a drawing.

Matplotlib's layout asks twice, and each time, and once more while it draws, looks for the ticks three times over and measures all of their
labels: half of what a figure costs.
"""
import contextlib
import functools

from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Bbox, ScaledTranslation

SIDES = {"left": (0, -1.0), "bottom": (1, -1.0), "right": (0, 1.0), "top": (1, 1.0)}         # of an axis: coordinate and direction outwards
SEEN_PX = 2.0       # ticks within the plot to so much are drawn


@contextlib.contextmanager
def measured_once(axes):
    """Meanwhile the layout is told of each axis of these ``axes`` what was measured when it first asked, and labels stay at their places."""
    every = [axis for each in axes for axis in (each.xaxis, each.yaxis)]
    for axis in every:
        axis.get_tightbbox = functools.partial(_frame, axis, {})
    try:
        yield
    finally:
        for axis in every:
            del axis.get_tightbbox


def _frame(axis, known, renderer=None, for_layout_only=True):
    """Box of an axis' tick labels and label, px, wherever its plot is by now; as Axis.get_tightbbox for the layout: along the axis, its label
    takes no room. ``known`` holds what was measured."""
    if not axis.get_visible():
        return None
    plot = axis.axes.bbox.extents
    if "reach" not in known:
        known["reach"] = _measure(axis, renderer).extents - plot
    return Bbox.from_extents(*(plot + known["reach"]))


def _measure(axis, renderer):
    plot, coordinate = axis.axes.bbox, 0 if axis.axis_name == "x" else 1
    which = "both" if len(axis.get_minorticklocs()) and not isinstance(axis.get_minor_formatter(), NullFormatter) else "major"
    boxes = [label.get_window_extent(renderer) for label in axis.get_ticklabels(which=which) if label.get_text()]
    low, high = plot.min[coordinate] - SEEN_PX, plot.max[coordinate] + SEEN_PX
    ticks = Bbox.union([plot] + [box for box in boxes if low <= 0.5 * (box.min + box.max)[coordinate] <= high])
    if not axis.label.get_text():
        return ticks
    _place_label(axis, ticks)
    label = axis.label.get_window_extent(renderer).frozen()
    middle = 0.5 * (label.min + label.max)[coordinate]
    corners = label.get_points()
    corners[:, coordinate] = middle - 0.5, middle + 0.5
    return Bbox.union([ticks, Bbox(corners)])


def _place_label(axis, ticks):
    """Beside the box of its ticks; it goes where the plot goes."""
    across, outwards = SIDES[axis.get_label_position()]
    figure, plot, edge = axis.axes.figure, axis.axes.bbox, "min" if outwards < 0 else "max"
    reach = abs(getattr(ticks, edge)[across] - getattr(plot, edge)[across]) / figure.dpi
    if not reach:
        reach = axis.get_tick_padding() / 72.0
    offset, place = [0.0, 0.0], [0.0, 0.0]
    offset[across] = outwards * (reach + axis.labelpad / 72.0)
    place[across] = 0.0 if outwards < 0 else 1.0
    place[1 - across] = axis.label.get_position()[1 - across]
    axis.set_label_coords(*place, transform=axis.axes.transAxes + ScaledTranslation(*offset, figure.dpi_scale_trans))
