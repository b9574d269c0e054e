"""Half-map FSC of the particles before and after: what the run brought, in Å."""
import numpy as np

from .style import BLUE, DARK, GREY, ResultFigure, resolution_axis, say, styled, things

THRESHOLD = 0.143


@styled
def reconstruction_figure(found):
    """Both curves with the resolutions where they fall below 0.143; ``found`` is a contract.verdict.Reconstruction."""
    figure = ResultFigure(8.0, 4.8)
    axes = figure.subplots()
    figure.headline(found.sentence)
    if found.fault:
        say(axes, "no reconstruction")
        return figure
    k = np.array(found.frequency_per_angstrom)
    curves = [("after", found.fsc_after, found.after_angstrom, BLUE, "-")]
    if found.fsc_before:
        curves.insert(0, ("before: " + found.before, found.fsc_before, found.before_angstrom, DARK, "--"))
    for label, curve, resolution, colour, line in curves:
        axes.plot(k, curve, color=colour, linestyle=line, label="%s, %s" % (label, "%.2f Å" % resolution if resolution else "finer than was looked at"))
        if resolution:
            axes.plot(1.0 / resolution, THRESHOLD, "o", color=colour, markersize=5)
    axes.axhline(THRESHOLD, color=GREY, linewidth=0.8)
    axes.annotate("0.143", (k[-1], THRESHOLD), xytext=(0, 3), textcoords="offset points", ha="right", color=GREY)
    axes.axhline(0.0, color="0.8", linewidth=0.6)
    lowest = min(min(c[1]) for c in curves)
    axes.set(ylim=(min(-0.05, lowest - 0.02), 1.03), ylabel="FSC of half-maps, within the mask", title="%s, symmetry %s" % (things(found.particles, "particle"), found.symmetry))
    resolution_axis(axes, k)
    axes.legend(loc="lower left" if _is_high(curves) else "upper right")
    columns = {"fsc_after": np.array(found.fsc_after)}
    if found.fsc_before:
        columns = dict(fsc_before=np.array(found.fsc_before), **columns)
    figure.remember("fsc", frequency_per_angstrom=k, **columns)
    return figure


def _is_high(curves):
    """Whether the curves take the upper right corner."""
    return any(np.mean(curve[len(curve) // 2:]) > 0.5 for _, curve, _, _, _ in curves)
