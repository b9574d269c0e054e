"""All movies of a job side by side: how much they move, how the fits ended, what failed and why."""
import re
import textwrap
from collections import Counter

import numpy as np

from .style import BLUE, DARK, GREEN, GREY, ORANGE, SKY, VERMILION, ResultFigure, plain, say, styled, things, wrapped

STATE_COLOURS = {"polished": BLUE, "averaged": BLUE, "aligned": SKY, "to do": "0.8", "failed": VERMILION}
ODD_FACTOR = 3.0                # times the median over movies: a movie to look at
SHOWN_REASONS = 6
REASON_WIDTH = 62
COLUMNS = ("key", "micrograph", "n_particles", "state", "reason", "fit", "strength", "path_length_angstrom", "early_angstrom",
           "local_rms_angstrom", "sd_angstrom")


@styled
def movies_figure(rows):
    """Path and uncertainty of each movie in the job's order, early against late motion, and the movies' own strengths or fits.

    ``rows`` are MovieRows.
    """
    figure = ResultFigure(10.0, 6.5)
    path_axes, local_axes, early_axes, fit_axes = figure.subplots(2, 2).ravel()
    known = [(number, row) for number, row in enumerate(rows, 1) if row.path_length_angstrom is not None]
    if not known:
        for axes in (path_axes, local_axes, early_axes, fit_axes):
            say(axes, "no movie is aligned yet")
    else:
        number = np.array([n for n, _ in known])
        path, early, local, sd = (np.array([getattr(row, name) for _, row in known], dtype=float) for name in (
            "path_length_angstrom", "early_angstrom", "local_rms_angstrom", "sd_angstrom"))
        size = 5 if len(known) < 60 else 3 if len(known) < 400 else 2
        _draw_in_order(path_axes, number, path, size, BLUE, "path of a particle (Å)", "median path in each movie")
        _draw_local(local_axes, number, local, sd, size)
        early_axes.plot(path, early, "o", markersize=size, color=BLUE, alpha=0.7, markeredgewidth=0)
        top = float(path.max()) * 1.05 or 1.0
        early_axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=":")
        early_axes.set(xlabel="whole path (Å)", ylabel="in the first 4 e/Å² (Å)", xlim=(0, top), ylim=(0, max(float(early.max()) * 1.1, 0.1)),
                       title="early motion; dotted: nothing moves later")
        _draw_strengths(fit_axes, [row for _, row in known])
    figure.headline(_headline(rows, known))
    figure.remember("movies", **{name: np.array(["" if getattr(row, name) is None else getattr(row, name) for row in rows], dtype=object) for name in COLUMNS})
    return figure


def _headline(rows, known):
    text = "%d of %s aligned" % (len(known), things(len(rows), "movie"))
    if known:
        path = np.array([row.path_length_angstrom for _, row in known])
        text += "; paths of %s to %s Å" % (plain(path.min()), plain(path.max())) if len(known) > 1 else "; path of %s Å" % plain(path[0])
        odd = Counter(row.fit for _, row in known if row.fit not in ("", "converged", "input motion kept"))
        if odd:
            text += "; " + ", ".join("%d fits ended by %s" % (count, reason) for reason, count in odd.most_common())
    return text


def _draw_in_order(axes, number, values, size, colour, label, title):
    median = float(np.median(values))
    odd = values > ODD_FACTOR * median
    axes.axhline(median, color=GREY, linewidth=0.8)
    axes.plot(number[~odd], values[~odd], "o", markersize=size, color=colour, alpha=0.7, markeredgewidth=0)
    axes.plot(number[odd], values[odd], "o", markersize=size + 1, color=VERMILION, markeredgewidth=0)
    for x, y in sorted(zip(number[odd], values[odd]), key=lambda pair: -pair[1])[:5]:
        axes.annotate("movie %d" % x, (x, y), xytext=(4, 0), textcoords="offset points", va="center", color=VERMILION, fontsize=8)
    axes.set(xlabel="movie number", ylabel=label, title=title, ylim=(0, None), xlim=(0, number[-1] + 1))
    axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_local(axes, number, local, sd, size):
    """Departure from the input motion beside its uncertainty, both without the constant and of both axes together: below it, little is known of local motion."""
    axes.plot(number, local, "o", markersize=size, color=GREEN, alpha=0.8, markeredgewidth=0, label="departure from the input motion")
    axes.plot(number, sd, "_", markersize=size + 2, color=DARK, alpha=0.8, label="its standard deviation")
    axes.set(xlabel="movie number", ylabel="rms (Å)", title="local motion and how well it is known", xlim=(0, number[-1] + 1))
    axes.set_ylim(0, 1.35 * max(float(local.max()), float(sd.max()), 0.01))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper right")


def _draw_strengths(axes, rows):
    """Histogram of the movies' own strengths; how the fits ended where there are none."""
    strengths = np.array([row.strength for row in rows if row.strength is not None], dtype=float)
    if len(strengths):
        axes.hist(strengths, bins=np.geomspace(0.02, 12.0, 33), color=ORANGE, alpha=0.8)
        axes.axvline(1.0, color=GREY, linewidth=0.8)
        axes.set(xscale="log", xlabel="strength in units of the prior's", ylabel="movies", title="how strongly each movie moves")
        axes.set_xticks([0.03, 0.1, 0.3, 1, 3, 9], ["0.03", "0.1", "0.3", "1", "3", "9"])
        axes.set_xticks([], minor=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        return
    _bars(axes, Counter(row.fit or "not recorded" for row in rows).most_common(), [BLUE], "movies", "how the fits ended", least=4)


@styled
def states_figure(rows, left_out=None):
    """How many movies are where, why some failed, and why particles were left out.

    ``rows`` are MovieRows; ``left_out`` {reason: number of particles}.
    """
    figure = ResultFigure()
    reasons = common_reasons(rows)
    left = [(reason, count) for reason, count in (left_out or {}).items() if not reason.startswith("movie failed")]
    lost = sum(count for reason, count in (left_out or {}).items() if reason.startswith("movie failed"))
    left = ([("their movie failed", lost)] if lost else []) + left
    states = Counter(row.state for row in rows)
    shown = states_in_order(states)
    parts = [(reasons, VERMILION, "movies", "why movies failed"), (left, ORANGE, "particles", "why particles were left out")]
    parts = [part for part in parts if part[0]]
    figure.set_size_inches(10.0, 1.3 + sum(0.9 + _height(part[0]) for part in parts))
    panels = figure.subplots(1 + len(parts), 1, squeeze=False, height_ratios=[0.8] + [0.4 + _height(part[0]) for part in parts])[:, 0]
    draw_states(panels[0], states)
    for axes, part in zip(panels[1:], parts):
        draw_reasons(axes, *part)
    failed = states["failed"]
    figure.headline("%s: %s%s" % (things(len(rows), "movie"), ", ".join("%d %s" % (count, state) for state, count in shown) or "none yet",
                                  "" if failed or not sum((left_out or {}).values()) else "; %s left out" % things(sum(left_out.values()), "particle")))
    figure.remember("failed movies", micrograph=np.array([r.micrograph for r in rows if r.state == "failed"], dtype=object),
                    reason=np.array([r.reason for r in rows if r.state == "failed"], dtype=object))
    figure.remember("left out particles", reason=np.array(list(left_out or {}), dtype=object), particles=np.array(list((left_out or {}).values()), dtype=int))
    return figure


def common_reasons(movies):
    """[(reason, count)] of the failed ones, most frequent first; names of the movie and its files are left out, so that like reasons count together."""
    return Counter(_without_name(movie.reason, movie.micrograph) for movie in movies if movie.state == "failed").most_common()


def _without_name(reason, micrograph):
    stem = re.escape(micrograph.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return re.sub(r"[^\s:;,()]*(?<![A-Za-z0-9])%s(?![0-9A-Za-z])[^\s:;,()]*" % stem, "…", reason) if stem else reason


def states_in_order(states):
    """[(state, count)] of those that occur."""
    return [(state, states[state]) for state in STATE_COLOURS if states[state]]


def _height(reasons):
    return 0.5 * min(len(reasons), SHOWN_REASONS + 1) + 0.2


def draw_states(axes, states):
    """One bar in parts, each named; ``states`` {state: count}."""
    shown, left = states_in_order(states), 0
    total = sum(count for _, count in shown) or 1
    for state, count in shown:
        axes.barh([0], [count], left=left, color=STATE_COLOURS[state], height=0.8)
        narrow = count < 0.12 * total
        axes.text(left + 0.5 * count, 0 if not narrow else 0.55, "%d %s" % (count, state), ha="center", va="center" if not narrow else "bottom", fontsize=9,
                  color="white" if state in ("polished", "averaged", "failed") and not narrow else DARK)
        left += count
    axes.set(xlim=(0, total), ylim=(-0.5, 1.0), title="movies")
    axes.axis("off")


def draw_reasons(axes, reasons, colour, unit, title):
    """Bars of [(reason, count)], the most frequent ones by name."""
    shown = list(reasons[:SHOWN_REASONS])
    rest = sum(count for _, count in reasons[SHOWN_REASONS:])
    if rest:
        shown.append(("%d other reasons" % (len(reasons) - SHOWN_REASONS), rest))
    _bars(axes, shown, [colour], unit, title, least=2)


def _bars(axes, counts, colours, unit, title, least=1):
    """Horizontal bars; the words stand above their bar, so that long ones are legible in a narrow window."""
    place = np.arange(len(counts))
    axes.barh(place, [count for _, count in counts], color=colours, height=0.28)
    for line, (words, count) in enumerate(counts):
        axes.text(0.0, line - 0.2, "%d: %s" % (count, textwrap.shorten(words, 3 * REASON_WIDTH, placeholder=" …")), va="bottom", ha="left", fontsize=8, **wrapped(words))
    axes.set(yticks=[], ylim=(max(len(counts), least) - 0.7, -0.9), xlabel=unit, title=title)
    axes.spines["left"].set_visible(False)          # it would run through the counts
    axes.xaxis.get_major_locator().set_params(integer=True)


@styled
def sentence_figure(title, sentence):
    """A page with a sentence, for what has no plot."""
    figure = ResultFigure(8.0, 5.0)
    say(figure.subplots(), textwrap.fill(sentence, 80))
    figure.headline(title)
    return figure
