"""Trajectories of one movie over its micrograph."""
import numpy as np
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.font_manager import FontProperties
from matplotlib.offsetbox import AnchoredText
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from .neighbours import outliers
from .style import DARK, VERMILION, ResultFigure, bar, dose_scale, plain, styled, things

KINDS = {"motion": "motion", "local": "motion minus the movie's mean"}
SHOWN_FRACTION = 1 / 12.0            # of the field, that long tracks take
BACKGROUND_GREYS = (0.45, 1.25)      # grey levels of black and white: pale, so that lines stand out
ROUND_LENGTHS = (500, 200, 100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)
DISCS = 4                            # uncertainty is shown at so many frames of a track
LARGEST_DISC = 0.5                   # radius in units of the particles' spacing: beyond, discs hide the field
FEW = 400                            # particles up to which lines are thick and have all their frames
MANY_POINTS = 10                     # of each track beyond that
LARGEST_EXAGGERATION = 200.0


@styled
def trajectories_figure(trajectories, exaggeration=None, background=None, kinds=("motion", "local"), uncertainty=True):
    """Trajectories over the micrograph, coloured by dose; the mean in red, particles that move unlike their neighbours circled.

    Parameters: ``trajectories`` of one movie; ``exaggeration`` of all panels (none: chosen so that long tracks reach a twelfth of
    the field; figure.exaggerations has those of the panels); ``background`` a Background or None; ``kinds`` one panel each, of KINDS; ``uncertainty`` draws discs of one
    posterior standard deviation of the motion, per axis.
    """
    kinds = kinds if len(trajectories.row) > 1 else ("motion",)              # one particle is its own mean
    figure = ResultFigure(5.2 * len(kinds) + 0.6, 6.2)
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    track = from_first_frame(trajectories)
    odd = outliers(trajectories.position_yx_angstrom, track)
    figure.exaggerations = []
    for axes, kind in zip(panels, kinds):
        shown = _shown(track, kind)
        factor = exaggeration or fitting_exaggeration(trajectories.position_yx_angstrom, shown)
        figure.exaggerations.append(factor)
        draw_trajectories(axes, trajectories, shown, factor, background, uncertainty, odd, kind == "motion")
        axes.set_title("%s, × %s" % (KINDS[kind], plain(factor)))
    for axes in panels[1:]:
        axes.set_ylabel("")
    if track.shape[1] > 1:
        bar(figure, dose_scale(trajectories.dose_e_per_A2), list(panels), "dose (e/Å²)", location="bottom", shrink=0.6, aspect=40)
    figure.headline(_headline(trajectories, track, odd))
    frame = np.arange(1, track.shape[1] + 1)
    position = trajectories.position_yx_angstrom
    figure.remember("trajectories", reference=trajectories.reference[:, None] + 1, row=trajectories.row[:, None] + 1,
                    x_angstrom=position[:, 1, None], y_angstrom=position[:, 0, None], frame=frame, dose_e_per_A2=trajectories.dose_e_per_A2,
                    displacement_x_angstrom=trajectories.displacement_yx_angstrom[..., 1],
                    displacement_y_angstrom=trajectories.displacement_yx_angstrom[..., 0], sd_angstrom=trajectories.deviation_sd_angstrom,
                    motion_sd_angstrom=trajectories.sd_of_motion_angstrom)
    return figure


def from_first_frame(trajectories):
    """Displacement since the first frame, (particle, frame, 2) in A."""
    track = np.asarray(trajectories.displacement_yx_angstrom, dtype=float)
    return track - track[:, :1]


def _shown(track, kind):
    return track - track.mean(axis=0, keepdims=True) if kind == "local" else track


def fitting_exaggeration(position, track):
    """Factor by which long tracks (95th percentile) take a twelfth of the field; two digits, 1 at least."""
    longest = float(np.percentile(np.linalg.norm(track, axis=2).max(axis=1), 95)) if len(track) else 0.0
    return min(max(1.0, float("%.2g" % (_field(position) * SHOWN_FRACTION / max(longest, 0.01)))), LARGEST_EXAGGERATION)


def _field(position):
    """Side of the field that particles lie in, A."""
    return max(float(np.max(np.ptp(position, axis=0))), 100.0) if len(position) > 1 else 1000.0


def _headline(trajectories, track, odd):
    name = trajectories.micrograph.rsplit("/", 1)[-1]
    if track.shape[1] < 2:
        return "%s: %s, one frame, no motion" % (name, things(len(track), "particle"))
    path = np.linalg.norm(np.diff(track, axis=1), axis=2).sum(axis=1)
    text = "%s: %s, path %s Å (median)" % (name, things(len(track), "particle"), plain(np.median(path)))
    if len(odd):
        text += "; %d unlike the neighbours (circled)" % len(odd)
    return text + ("" if trajectories.stop_reason == "converged" else "; fit: %s" % trajectories.stop_reason)


def draw_trajectories(axes, trajectories, track, factor, background=None, uncertainty=True, odd=(), mean=True):
    """Draw tracks (particle, frame, 2) from the particles' places, ``factor`` times as long, onto ``axes`` (in nm)."""
    position = trajectories.position_yx_angstrom
    drawn = (position[:, None] + factor * track)[..., ::-1] / 10.0          # x, y in nm
    if background is not None:
        axes.imshow(background.grey, origin="lower", extent=np.asarray(background.extent_xy_angstrom) / 10.0, cmap="gray",
                    vmin=-BACKGROUND_GREYS[0] / (BACKGROUND_GREYS[1] - BACKGROUND_GREYS[0]), vmax=1.0, zorder=0, interpolation="bilinear",
                    alpha=0.75)
    scale = dose_scale(trajectories.dose_e_per_A2)
    sd = trajectories.sd_of_motion_angstrom
    uncertainty = uncertainty and len(track) > 0
    if uncertainty and factor * np.median(sd) <= _field(position) * min(SHOWN_FRACTION, LARGEST_DISC / len(track) ** 0.5):
        _draw_discs(axes, drawn, factor * sd / 10.0, scale.to_rgba(trajectories.dose_e_per_A2))
    elif uncertainty:
        axes.add_artist(_in_corner(AnchoredText("uncertainty %s Å: too large to draw" % plain(np.median(sd)), "upper left", prop=dict(size=8, color=DARK))))
    few, last = len(track) <= FEW, track.shape[1] - 1
    points = np.arange(last + 1) if few else np.unique(np.linspace(0, last, MANY_POINTS).round().astype(int))
    segments = np.stack([drawn[:, points[:-1]], drawn[:, points[1:]]], axis=2).reshape(-1, 2, 2)
    middle = 0.5 * (trajectories.dose_e_per_A2[points[1:]] + trajectories.dose_e_per_A2[points[:-1]])
    axes.add_collection(LineCollection(segments, cmap=scale.cmap, norm=scale.norm, array=np.tile(middle, len(track)), capstyle="round",
                                       linewidths=1.5 if few else 0.7, zorder=3))
    axes.plot(drawn[:, 0, 0], drawn[:, 0, 1], ".", color="black", markersize=3 if few else 1, zorder=4)
    if len(odd):
        axes.plot(drawn[odd, 0, 0], drawn[odd, 0, 1], "o", color=VERMILION, fillstyle="none", markersize=12, markeredgewidth=1.2, zorder=5)
    if mean and len(track) > 1 and track.shape[1] > 1:
        _draw_mean(axes, position, factor * track.mean(axis=0))
    _draw_scale_bar(axes, factor, _field(position))
    axes.set(xlabel="x (nm)", ylabel="y (nm)")
    axes.set_aspect("equal", adjustable="box" if background is not None else "datalim")
    if background is not None:
        x0, x1, y0, y1 = np.asarray(background.extent_xy_angstrom) / 10.0
        axes.set(xlim=(x0, x1), ylim=(y0, y1))
    else:
        axes.margins(0.05)
        axes.autoscale_view()


def _draw_discs(axes, drawn, radius, colours):
    """Discs of one standard deviation (per axis) at a few frames of each track."""
    frames = np.unique(np.linspace(0, drawn.shape[1] - 1, DISCS).round().astype(int))
    for f in frames:
        diameter = 2.0 * radius[:, f]
        axes.add_collection(EllipseCollection(diameter, diameter, np.zeros(len(diameter)), units="xy", offsets=drawn[:, f],
                                              offset_transform=axes.transData, facecolors=[colours[f]], alpha=0.22, linewidths=0, zorder=2))


def _draw_mean(axes, position, track):
    """The mean motion of the movie, from the middle of its field."""
    drawn = (0.5 * (position.min(axis=0) + position.max(axis=0)) + track)[:, ::-1] / 10.0
    for width, colour in ((5.0, "white"), (2.4, VERMILION)):
        axes.plot(drawn[:, 0], drawn[:, 1], color=colour, linewidth=width, solid_capstyle="round", zorder=6)
    axes.plot(*drawn[0], "o", color=VERMILION, markeredgecolor="white", markersize=6, zorder=7)
    right, up = drawn[-1] >= drawn[0]           # the label goes on where the track ends
    axes.annotate("mean", drawn[-1], xytext=(5 if right else -5, 5 if up else -5), textcoords="offset points", color=VERMILION, fontweight="bold", zorder=8,
                  ha="left" if right else "right", va="bottom" if up else "top", bbox=dict(facecolor="white", alpha=0.7, linewidth=0, pad=1))


def _draw_scale_bar(axes, factor, field):
    """How long a round number of A of motion is drawn: as long as long tracks may be, whether there are any or not."""
    length = next((v for v in ROUND_LENGTHS if factor * v <= SHOWN_FRACTION * field), ROUND_LENGTHS[-1])
    axes.add_artist(_in_corner(AnchoredSizeBar(axes.transData, factor * length / 10.0, "%g Å of motion" % length, "lower right", pad=0.4, borderpad=0.6, sep=3,
                                               color=DARK, fontproperties=FontProperties(size=8))))


def _in_corner(box):
    """A box of words on pale ground."""
    box.patch.set(alpha=0.85, linewidth=0)
    return box
