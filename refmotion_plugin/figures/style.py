"""How figures look: sizes, colours and axes; and a figure that remembers the numbers it was drawn from."""
import functools
from collections import OrderedDict

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, LogLocator, NullLocator

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")     # told apart by the colour-blind too
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = OKABE_ITO
GREY, DARK = "0.55", "0.25"
AMOUNT = "cividis"                                                                 # of images of amounts
DOSE_COLOURS = LinearSegmentedColormap.from_list("dose", colormaps["viridis"](np.linspace(0.0, 0.9, 256)))   # its end is too pale for lines
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.labelsize": 9,
         "axes.labelcolor": DARK, "text.color": DARK, "xtick.labelsize": 8, "ytick.labelsize": 8, "xtick.color": DARK, "ytick.color": DARK,
         "axes.edgecolor": DARK, "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.xmargin": 0.02,
         "figure.titlesize": 11, "figure.titleweight": "bold", "legend.fontsize": 8, "legend.frameon": False, "lines.linewidth": 1.3,
         "errorbar.capsize": 2, "image.cmap": AMOUNT, "image.interpolation": "nearest", "svg.fonttype": "none", "pdf.fonttype": 42,
         "axes.titley": 1.0}        # titles stay where they are: to look for ticks on top of every panel takes time, and there are none
MOST_INTERVALS = 6      # between ticks
_RESOLUTIONS = (100, 50, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3.5, 3, 2.7, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1, 0.9, 0.8, 0.7, 0.6, 0.5)


class ResultFigure(Figure):
    """A figure with the data behind it: ``tables`` {name: {column: values}}, columns of one table being equally long."""

    def __init__(self, width=10.0, height=6.5):
        super().__init__(figsize=(width, height), layout="constrained")
        self.tables = OrderedDict()

    def remember(self, name, /, **columns):
        """Keep a table: numbers and words as they are, arrays broadcast against each other and flattened."""
        arrays = np.broadcast_arrays(*columns.values()) if columns else []
        self.tables[name] = OrderedDict((column, array.ravel()) for column, array in zip(columns, arrays))

    def headline(self, text):
        """What the figure shows, as a sentence; broken into lines where the window is narrow."""
        self.suptitle(text, x=0.01, ha="left", **wrapped(text))

    def draw(self, renderer):
        """Draw with this module's style, whatever the host has set: ticks are made only now.

        Spines take no part in the layout: the axes' frame and tick labels do, and looking at spines as well costs as much again.
        """
        with rc_context(STYLE):
            for axes in self.axes:
                axes.spines[:].set_in_layout(False)
                _few_ticks(axes)
            super().draw(renderer)


def _few_ticks(axes):
    """No more than so many on each axis where matplotlib chooses them: labels are what takes time."""
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(axis.get_major_locator(), AutoLocator):
            axis.get_major_locator().set_params(nbins=MOST_INTERVALS)


def styled(draw):
    """Decorator of functions that make a figure: they do so with this module's style."""
    @functools.wraps(draw)
    def with_style(*args, **kwargs):
        with rc_context(STYLE):
            return draw(*args, **kwargs)
    return with_style


def dose_scale(dose_e_per_A2):
    """Colours of doses: a mappable for colour bars, whose ``to_rgba`` gives the colour of one."""
    low, high = float(np.min(dose_e_per_A2)), float(np.max(dose_e_per_A2))
    return ScalarMappable(Normalize(low, high if high > low else low + 1.0), DOSE_COLOURS)


def resolution_axis(axes, frequency_per_angstrom):
    """A frequency axis whose ticks are resolutions in A, not too dense."""
    first, last = float(frequency_per_angstrom[0]), float(frequency_per_angstrom[-1])
    axes.set_xlim(first, last)
    ticks, least = [], 0.09 * (last - first)
    for r in _RESOLUTIONS:
        if first <= 1.0 / r <= last and (not ticks or 1.0 / r - 1.0 / ticks[-1] > least) and 1.0 / r - first > 0.5 * least:
            ticks.append(r)
    axes.set_xticks([1.0 / r for r in ticks], ["%g" % r for r in ticks])
    axes.set_xlabel("resolution (Å)")


def plain_log_ticks(axes):
    """Ticks 1, 2, 5 of each decade, as plain numbers, on a logarithmic y axis."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def frame_image(axes, values, frequency_per_angstrom, **options):
    """Image of (frame, shell) values, frames numbered from 1 upwards."""
    k = frequency_per_angstrom
    image = axes.imshow(values, aspect="auto", origin="lower", extent=(k[0], k[-1], 0.5, len(values) + 0.5), **options)
    axes.set_ylabel("frame")
    axes.yaxis.get_major_locator().set_params(integer=True)
    resolution_axis(axes, k)
    return image


def bar(figure, mappable, axes, label, **options):
    """A slim colour bar."""
    colour_bar = figure.colorbar(mappable, ax=axes, label=label, **dict(dict(fraction=0.06, pad=0.02, aspect=25), **options))
    colour_bar.outline.set_visible(False)
    colour_bar.ax.set_title("", y=1.0)          # in its place: or it is looked for anew at every drawing
    return colour_bar


def wrapped(text):
    """Options of words that are not ours: wrapped and never taken for mathematics. Matplotlib's wrapping does so all the same, and stumbles
    over half a formula, so words with two dollars are not wrapped."""
    return {"parse_math": False, "wrap": text.count("$") < 2}


def say(axes, text, **options):
    """A sentence in the place of a plot that has no data."""
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, **dict(wrapped(text), **options))


def smooth(curve, width=5):
    """Running mean, shorter at the ends."""
    taps = np.ones(min(width, len(curve)))
    return np.convolve(curve, taps, "same") / np.convolve(np.ones(len(curve)), taps, "same")


def plain(number, digits=2):
    """A number for a sentence: so many significant digits, never an exponent."""
    if not np.isfinite(number):
        return "?"
    if number == 0:
        return "0"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(number)))))
    text = "%.*f" % (min(decimals, 6), number)
    return text


def things(count, noun):
    """A count with its noun: 1 movie, 2 movies."""
    return "%d %s%s" % (count, noun, "" if count == 1 else "s")
