"""The search for hyperparameters: score and activity along the rays, and the families of priors."""
import textwrap

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from ..contract.verdict import rounded
from .style import BLUE, DARK, GREY, OKABE_ITO, ResultFigure, say, styled, things

MARKERS = "os^Dv<>p"
LARGEST_SHOWN_LOSS = 0.5        # of the largest gain: below, curves leave the frame
STILL_ANGSTROM = 0.03           # rays end below this activity
ACTIVITIES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)     # ticks, A; linear up to the first


@styled
def search_figure(found):
    """Gain and activity along the rays with errors, the chosen point, and the families of priors against the chosen one.

    ``found`` is a SearchFinding. Colours tell correlation distances apart, markers directions.
    """
    figure = ResultFigure(10.0, 6.8)
    (gain_axes, activity_axes), (family_axes, order_axes) = figure.subplots(2, 2, width_ratios=(1.15, 1))
    trials = [t for t in found.trials if t["gain"] is not None]
    rays = {}
    for trial in trials:
        if trial["kind"] == "ray":
            rays.setdefault(trial["ray"], []).append(trial)
    styles = _ray_styles(rays.values())
    for ray, style in zip(rays.values(), styles):
        strength = [t["strength"] for t in ray]
        gain_axes.errorbar(strength, [t["gain"] for t in ray], yerr=[t["gain_error"] for t in ray], elinewidth=0.6, **style)
        activity_axes.plot(strength, [t["activity_angstrom"] for t in ray], **style)
    _mark_choice(found, [t for ray in rays.values() for t in ray], gain_axes, activity_axes)
    _finish_rays(gain_axes, activity_axes, rays)
    _draw_margins(family_axes, found)
    _draw_order(order_axes, trials)
    figure.headline(_headline(found))
    _remember(figure, found)
    return figure


def _headline(found):
    if found.worth_it is None:
        return "Whether local motion helps cannot be told: the held-out data of %s show nothing" % things(found.particles, "particle")
    return "Local motion %s %.0f ± %.0f log-likelihood over rigid motion on %s of %s" % (
        "helps: it wins" if found.worth_it else "brings no certain gain:", rounded(found.gain), found.gain_error, things(found.particles, "particle"), things(len(found.movies), "movie"))


def _ray_styles(rays):
    firsts = [ray[0] for ray in rays]
    distances, angles = _distances_and_angles(firsts)
    return [dict(color=_colour(distances, t["correlation_distance_angstrom"]), marker=_marker(angles, t["theta_degree"]), markersize=4, linewidth=1,
                 label="%.0f Å, %.0f°" % (t["correlation_distance_angstrom"], t["theta_degree"])) for t in firsts]


def _distances_and_angles(trials):
    return sorted({t["correlation_distance_angstrom"] for t in trials}), sorted({t["theta_degree"] for t in trials})


def _colour(distances, distance):
    return OKABE_ITO[distances.index(distance) % len(OKABE_ITO)]


def _marker(angles, angle):
    return MARKERS[angles.index(angle) % len(MARKERS)]


def _mark_choice(found, trials, gain_axes, activity_axes):
    """The best point of the rays as a star, the chosen prior as a line with its error; losses beyond the frame are cut off."""
    best = max(trials, key=lambda t: t["gain"], default=None)
    if best is not None:
        for axes, name in ((gain_axes, "gain"), (activity_axes, "activity_angstrom")):
            axes.plot(best["strength"], best[name], "*", color="black", markersize=12, zorder=5)
    gain_axes.axhspan(found.gain - found.gain_error, found.gain + found.gain_error, color="0.88", zorder=0)
    gain_axes.axhline(found.gain, color="black", linestyle="--", linewidth=1.1)
    gain_axes.axhline(0.0, color=GREY, linewidth=0.6)
    top = max([found.gain + 2 * found.gain_error] + [t["gain"] + t["gain_error"] for t in trials])
    low = min([0.0, found.gain - 2 * found.gain_error] + [t["gain"] - t["gain_error"] for t in trials])
    span = max(top, 1e-9)
    gain_axes.set_ylim(max(low, -LARGEST_SHOWN_LOSS * span) - 0.05 * span, top + 0.08 * span)


def _finish_rays(gain_axes, activity_axes, rays):
    gain_axes.set(xscale="log", xlabel="prior strength (default: 1)", ylabel="log-likelihood over rigid motion",
                  title="held-out data along the rays; ★ best, - - chosen")          # a legend would lie on the curves
    activity_axes.set(xscale="log", xlabel="prior strength (default: 1)", ylabel="path, 75th percentile (Å)", title="activity: how much still moves")
    activity_axes.set_yscale("symlog", linthresh=ACTIVITIES[1])
    activity_axes.margins(y=0.1)
    activity_axes.set_ylim(0, None)
    activity_axes.yaxis.set_major_locator(FixedLocator(ACTIVITIES))
    activity_axes.axhspan(0.0, STILL_ANGSTROM, color="0.88", zorder=0)
    for axis in (gain_axes.xaxis, activity_axes.xaxis, activity_axes.yaxis):
        axis.set_major_formatter("{x:g}")
    if rays:
        _explain_rays(activity_axes, [ray[0] for ray in rays.values()])


def _explain_rays(axes, firsts):
    """What colours and markers mean: one entry per distance and one per direction."""
    distances, angles = _distances_and_angles(firsts)
    handles = [Line2D([], [], color=_colour(distances, d), label="%.0f Å" % d) for d in distances]
    handles += [Line2D([], [], color=DARK, marker=_marker(angles, a), markersize=4, linestyle="none", label="%.0f°" % a) for a in angles]
    axes.legend(handles=handles, loc="lower left", ncols=2, fontsize=7, columnspacing=1.0, handlelength=1.2)


def _draw_margins(axes, found):
    """Each family at its best against the chosen one, with two standard errors."""
    names = list(found.margins)
    for line, name in enumerate(names):
        margin, error = found.margins[name]
        chosen = name == found.family
        axes.errorbar(-margin, line, xerr=2 * error, fmt="*" if chosen else "o", markersize=11 if chosen else 5, capsize=3,
                      color="black" if chosen else BLUE)
    axes.axvline(0.0, color=GREY, linewidth=0.6)
    axes.set_yticks(range(len(names)), [textwrap.fill(n, 16) + "\n(chosen)" * (n == found.family) for n in names])
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="log-likelihood against the chosen", title="families of priors, ± 2 standard errors")


def _draw_order(axes, trials):
    """Best gain so far, trial by trial: whether the search had settled."""
    if not trials:
        return say(axes, "no trials are recorded")
    gains = np.array([t["gain"] for t in trials], dtype=float)
    best = np.maximum.accumulate(gains)
    number = np.arange(1, len(gains) + 1)
    axes.step(number, best, where="post", color=DARK)
    kinds = list(dict.fromkeys(t["kind"] for t in trials))
    floor = best[-1] - 1.2 * max(best[-1] - best[0], 1.0)
    for kind, colour in zip(kinds, OKABE_ITO + OKABE_ITO):
        of_kind = np.array([t["kind"] == kind for t in trials]) & (gains >= floor)
        if of_kind.any():
            axes.plot(number[of_kind], gains[of_kind], ".", markersize=4, color=colour, label=kind)
    axes.set(xlabel="trial", ylabel="log-likelihood over rigid motion", title="trials in order; line: best so far", ylim=(floor, best[-1] + 0.08 * (best[-1] - floor)))
    axes.legend(loc="lower right", fontsize=7, ncols=2, markerscale=2, columnspacing=1.0, handletextpad=0.3, frameon=True, framealpha=0.85, edgecolor="none")


def _remember(figure, found):
    names = ("kind", "family", "ray", "iteration", "strength", "theta_degree", "correlation_distance_angstrom", "gain", "gain_error", "activity_angstrom")
    figure.remember("trials", **{n: np.array(["" if t.get(n) is None else t[n] for t in found.trials], dtype=object) for n in names})
    figure.remember("families", family=np.array(list(found.margins), dtype=object), worse_by=np.array([m for m, _ in found.margins.values()]),
                    error=np.array([e for _, e in found.margins.values()]))
