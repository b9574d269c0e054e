"""Motion of all particles of a job: how fast, how far, and how much of it is new."""
import numpy as np

from .style import BLUE, GREEN, VERMILION, ResultFigure, plain, styled, things

LONG_TAIL = 99.5             # percentile at which axes of spreads end


@styled
def motion_figure(statistics):
    """Speed and departure from the input motion against dose; spreads of path length and of departure over particles.

    ``statistics`` is a MotionStatistics.
    """
    figure = ResultFigure(10.0, 6.5)
    speed_axes, path_axes, departure_axes, local_axes = figure.subplots(2, 2).ravel()
    dose = statistics.dose_e_per_A2
    _draw_speed(speed_axes, statistics)
    departure_axes.plot(dose, statistics.departure_rms_angstrom, "o-", markersize=3, color=GREEN)
    departure_axes.set(xlabel="dose at mid-frame (e/Å²)", ylabel="rms departure (Å)", ylim=(0, None), title="departure from the input motion")
    _draw_spread(path_axes, (("whole path", statistics.path_length_angstrom, BLUE), ("in the first 4 e/Å²", statistics.early_angstrom, VERMILION)))
    path_axes.set(xlabel="motion of a particle (Å)", title="how far particles move")
    _draw_spread(local_axes, (("", statistics.local_rms_angstrom, GREEN),))
    local_axes.set(xlabel="rms departure of a particle (Å)", title="departure of each particle")
    path, early = float(np.median(statistics.path_length_angstrom)), float(np.median(statistics.early_angstrom))
    figure.headline("%s move %s Å (median path), %s Å within the first 4 e/Å²" % (things(statistics.n_particles, "particle"), plain(path), plain(early)))
    low, middle, high = statistics.speed_percentiles_angstrom
    figure.remember("speed", dose_e_per_A2=_between(dose), rms_angstrom=statistics.speed_angstrom_per_frame, percentile_10_angstrom=low,
                    median_angstrom=middle, percentile_90_angstrom=high)
    figure.remember("departure", dose_e_per_A2=dose, rms_departure_angstrom=statistics.departure_rms_angstrom)
    figure.remember("particles", path_length_angstrom=statistics.path_length_angstrom, early_angstrom=statistics.early_angstrom,
                    departure_rms_angstrom=statistics.local_rms_angstrom)
    return figure


def _between(dose):
    return 0.5 * (dose[1:] + dose[:-1])


def _draw_speed(axes, statistics):
    low, middle, high = statistics.speed_percentiles_angstrom
    dose = _between(statistics.dose_e_per_A2)
    axes.fill_between(dose, low, high, color=BLUE, alpha=0.18, linewidth=0, label="10th to 90th percentile")
    axes.plot(dose, middle, color=BLUE, linewidth=1.0, label="median")
    axes.plot(dose, statistics.speed_angstrom_per_frame, "o-", markersize=3, color=VERMILION, label="rms")
    axes.set(xlabel="dose (e/Å²)", ylabel="motion per frame (Å)", title="how fast particles move", ylim=(0, None))
    axes.legend(loc="upper right")


def _draw_spread(axes, spreads):
    """Histograms on one axis, each with its median."""
    top = max(float(np.percentile(values, LONG_TAIL)) for _, values, _ in spreads)
    bins = np.linspace(0.0, max(top, 1e-3), 41)
    for label, values, colour in spreads:
        median = float(np.median(values))
        axes.hist(np.clip(values, 0.0, bins[-1]), bins=bins, histtype="stepfilled", color=colour, alpha=0.3)
        axes.axvline(median, color=colour, linewidth=1.2, label=("%s: " % label if label else "") + "median %s Å" % plain(median))
    axes.set(ylabel="particles", xlim=(0, bins[-1]))
    axes.set_ylim(0, (1.1 + 0.15 * len(spreads)) * axes.get_ylim()[1])            # room for the legend
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")
