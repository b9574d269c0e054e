"""The verdict of a job: in words, gains with error bars, and the expected resolution."""
import numpy as np

from ..contract.verdict import b_factor_words, rounded
from .style import BLUE, DARK, GREEN, GREY, ORANGE, VERMILION, ResultFigure, say, styled, things, wrapped

COLOURS = {"gain": GREEN, "no gain": ORANGE, "cannot tell": GREY, "inputs look wrong": VERMILION, "not judged": "0.75"}
ROWS = (("trajectories", "trajectories\nagainst input motion"), ("weights", "weights against\nstandard curve"), ("even_weights", "weights against\nequal weights"))


@styled
def verdict_figure(verdict):
    """Words above; below gains of trajectories and weights with two standard errors, and the resolution before and after.

    ``verdict`` is a contract.verdict.Verdict.
    """
    figure = ResultFigure(10.0, 5.6)
    words, plots = figure.subfigures(2, 1, height_ratios=(0.8, 1.45))
    _write(words, verdict)
    gain_axes, resolution_axes = plots.subplots(1, 2, width_ratios=(1.5, max(1.0, 0.5 * len(verdict.reconstructions))))
    _draw_gains(gain_axes, verdict)
    _draw_resolution(resolution_axes, verdict)
    findings = [(name, getattr(verdict, name)) for name, _ in ROWS]
    figure.remember("verdict", comparison=np.array([n for n, _ in findings], dtype=object), word=np.array([f.word for _, f in findings], dtype=object),
                    gain=np.array([np.nan if f.gain is None else f.gain for _, f in findings]),
                    error=np.array([np.nan if f.error is None else f.error for _, f in findings]), text=np.array([f.text for _, f in findings], dtype=object))
    return figure


def _write(part, verdict):
    axes = part.subplots()
    axes.axis("off")
    axes.text(0.0, 1.0, verdict.word.upper(), transform=axes.transAxes, va="top", fontsize=14, fontweight="bold", color=COLOURS.get(verdict.word, DARK))
    if verdict.movies:
        axes.text(1.0, 1.0, "%s, %s" % (things(verdict.particles, "particle"), things(verdict.movies, "movie")), transform=axes.transAxes, va="top", ha="right",
                  color=GREY)
    text = "\n".join(dict.fromkeys(verdict.sentences))
    axes.text(0.0, 0.78, text, transform=axes.transAxes, va="top", linespacing=1.35, in_layout=False, **wrapped(text))    # the layout would wrap it again and again


def _draw_gains(axes, verdict):
    found = [(label, getattr(verdict, name)) for name, label in ROWS]
    for line, (label, finding) in enumerate(found):
        colour = COLOURS.get(finding.word, DARK)
        if finding.gain is None:
            axes.text(0.0, line, " not judged", va="center", color=GREY)
            continue
        axes.errorbar(100 * finding.gain, line, xerr=200 * (finding.error or 0.0), fmt="o", markersize=7, capsize=4, color=colour)
        axes.annotate("%+.1f ± %.1f %%" % (rounded(100 * finding.gain, 1), 100 * (finding.error or 0.0)), (100 * finding.gain, line), xytext=(0, 9), textcoords="offset points",
                      ha="center", color=colour, bbox=dict(facecolor="white", linewidth=0, pad=0.5))          # over the line of zero
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(found)), [label for label, _ in found])
    axes.set(ylim=(len(found) - 0.5, -0.7), xlabel="signal-to-noise ratio won (%)", title="what it brings; bars: two standard errors")
    axes.margins(x=0.25)


def _draw_resolution(axes, verdict):
    several = len(verdict.reconstructions) > 1
    made = [("reconstructed" + " %d" % (r.reference + 1) * several, r.change) for r in verdict.reconstructions]
    changes = [(name, change) for name, change in [("expected", verdict.resolution_angstrom)] + made if change is not None]
    if not changes:
        return say(axes, "the change of resolution is not known")
    for place, (name, change) in enumerate(changes):
        axes.plot([place, place], [change.before, change.after], color=GREY, linewidth=1.2, zorder=1)
        axes.plot(place, change.before, "o", color="white", markeredgecolor=DARK, markersize=7)
        axes.errorbar(place, change.after, yerr=2 * change.error, fmt="o", color=BLUE, markersize=7, capsize=4)
    axes.set_xticks(range(len(changes)), ["%s\n%.2f → %.2f" % (name, change.before, change.after) for name, change in changes])     # beside the points they would lie on each other
    axes.set(xlim=(-0.5, len(changes) - 0.5), ylabel="resolution (Å)", title="resolution at FSC 0.143: ○ before, ● after")
    axes.margins(y=0.35)
    axes.invert_yaxis()
    if verdict.b_factor_A2 is not None:
        axes.text(0.02, 0.02, b_factor_words(verdict.b_factor_A2, verdict.b_factor_error_A2 or 0.0), transform=axes.transAxes, va="bottom", color=DARK)
