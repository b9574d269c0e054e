"""Figures of a job, made from its results; the report and the host's viewers draw the same ones.

Each function takes arrays or records and returns a new matplotlib Figure, without touching pyplot's state.
"""
import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

FRAME_COLOURS = "viridis"
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")     # told apart by the colour-blind too
MARKERS = "os^Dv<>p"
LARGEST_SHOWN_LOSS = 0.5                                                          # of the largest gain: below, curves leave the frame


def fcc_figure(table, group=0):
    """Fourier cylinder correlation: an image over frames and frequency, and curves of some frames.

    ``table`` is an FccTable; ``group`` the optics group's position in it.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    image_axes, curve_axes = figure.subplots(1, 2)
    fcc, k, dose = table.fcc[group], table.frequency_per_angstrom, table.dose_e_per_A2
    limit = max(float(np.percentile(np.abs(fcc[:, k > 0]), 99.5)), 1e-6)
    image = image_axes.imshow(fcc, aspect="auto", origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit,
                              extent=(k[0], k[-1], 0.5, len(fcc) + 0.5), interpolation="nearest")
    figure.colorbar(image, ax=image_axes, label="FCC")
    image_axes.set_ylabel("frame")
    for f, colour in _frame_colours(len(fcc), every=max(1, len(fcc) // 8)):
        curve_axes.plot(k, _smooth(fcc[f]), color=colour, label="%d: %.1f e/Å²" % (f + 1, dose[f]))
    curve_axes.axhline(0.0, color="grey", linewidth=0.5)
    curve_axes.legend(title="frame: dose", fontsize="small")
    curve_axes.set_ylabel("FCC (smoothed over 5 shells)")
    for axes in (image_axes, curve_axes):
        _resolution_axis(axes, k)
    figure.suptitle("Correlation of movie frames with the opposite half-map")
    return figure


def weights_figure(weights, group=0, highest_per_angstrom=None):
    """Dose weights per frame and frequency, and B-factors and scales with their standard errors.

    ``highest_per_angstrom`` ends the frequency axis; none: where the weights end.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    image_axes, curve_axes, b_axes = figure.subplots(1, 3)
    shown = weights.frequency_per_angstrom <= (highest_per_angstrom or np.inf)
    weight, k, dose = weights.weight[group][:, shown], weights.frequency_per_angstrom[shown], weights.dose_e_per_A2
    relative = weight / np.maximum(weight.sum(axis=0, keepdims=True), 1e-30)
    image = image_axes.imshow(relative, aspect="auto", origin="lower", extent=(k[0], k[-1], 0.5, len(weight) + 0.5),
                              interpolation="nearest")
    figure.colorbar(image, ax=image_axes, label="share of the sum")
    image_axes.set_ylabel("frame")
    for f, colour in _frame_colours(len(weight), every=max(1, len(weight) // 8)):
        curve_axes.plot(k, relative[f], color=colour, label="%d" % (f + 1))
    curve_axes.set_ylabel("share of the sum")
    curve_axes.legend(title="frame", fontsize="small")
    for axes in (image_axes, curve_axes):
        _resolution_axis(axes, k)
    b_axes.errorbar(dose, weights.b_factor_A2[group], yerr=weights.b_factor_error_A2[group], fmt="o-", markersize=3, color="C0")
    b_axes.set_xlabel("dose at mid-frame (e/Å²)")
    b_axes.set_ylabel("B-factor (Å²), damage positive", color="C0")
    scale_axes = b_axes.twinx()
    scale_axes.errorbar(dose, weights.scale[group], yerr=weights.scale_error[group], fmt="s-", markersize=3, color="C1")
    scale_axes.set_ylabel("scale", color="C1")
    figure.suptitle("Empirical dose weights (%s; normalised to %s)" % (weights.source, weights.normalisation))
    return figure


def trajectories_figure(trajectories, exaggeration=None):
    """Trajectories over the micrograph, coloured by frame: the total motion, and what differs from the movie's mean motion.

    ``exaggeration``: of both panels; none chooses it for each so that long tracks reach a twelfth of the field.
    """
    track = np.asarray(trajectories.displacement_yx_angstrom, dtype=float)
    track = track - track[:, :1]
    local = track - track.mean(axis=0, keepdims=True)
    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, name, shown in zip(panels, ("motion", "difference from the mean motion"), (track, local)):
        factor = exaggeration or _exaggeration(trajectories.position_yx_angstrom, shown)
        lines = _draw_tracks(axes, trajectories.position_yx_angstrom, shown * factor)
        axes.set_title("%s × %g" % (name, factor), fontsize="medium")
    figure.colorbar(lines, ax=panels, label="frame")
    figure.suptitle("%s (dots: first frame; fit: %s)" % (trajectories.micrograph, trajectories.stop_reason), fontsize="small",
                    parse_math=False)
    return figure


def _exaggeration(position, track):
    field = float(np.max(np.ptp(position, axis=0))) if len(position) > 1 else 1000.0
    longest = float(np.percentile(np.linalg.norm(track, axis=2).max(axis=1), 95)) if len(track) else 0.0
    return max(1.0, float("%.2g" % (max(field, 100.0) / 12.0 / max(longest, 0.01))))


def _draw_tracks(axes, position, track):
    drawn = (position[:, None] + track)[..., ::-1] / 10.0          # x, y in nm
    segments = np.stack([drawn[:, :-1], drawn[:, 1:]], axis=2).reshape(-1, 2, 2)
    frames = np.tile(np.arange(2, track.shape[1] + 1), len(track))
    lines = LineCollection(segments, cmap=FRAME_COLOURS, array=frames, linewidths=1.2)
    axes.add_collection(lines)
    axes.plot(drawn[:, 0, 0], drawn[:, 0, 1], ".", color="black", markersize=3)
    axes.set(xlabel="x (nm)", ylabel="y (nm)", aspect="equal")
    axes.margins(0.05)
    axes.autoscale_view()
    return lines


def motion_figure(statistics):
    """Speed against dose, and the spread of path length, early motion and local motion over particles."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    speed_axes, spread_axes = figure.subplots(1, 2)
    dose = 0.5 * (statistics.dose_e_per_A2[1:] + statistics.dose_e_per_A2[:-1])
    speed_axes.plot(dose, statistics.speed_angstrom_per_frame, "o-", markersize=3)
    speed_axes.set(xlabel="dose (e/Å²)", ylabel="mean motion from frame to frame (Å)", ylim=(0, None))
    values = (("path length", statistics.path_length_angstrom), ("first 4 e/Å²", statistics.early_angstrom),
              ("departure from input motion, rms", statistics.local_rms_angstrom))
    for label, lengths in values:
        ordered = np.sort(lengths)
        spread_axes.plot(ordered, np.linspace(0, 1, len(ordered)), label="%s: median %.2f Å" % (label, np.median(lengths)))
    spread_axes.set(xlabel="Å", ylabel="share of particles below", xscale="symlog", ylim=(0, 1))
    spread_axes.legend(fontsize="small", loc="lower right")
    figure.suptitle("Motion of %d particles" % statistics.n_particles)
    return figure


def search_figure(found):
    """The search for hyperparameters: gain and activity along the rays, and the families of priors against the chosen one.

    ``found`` is a SearchFinding. Colours tell correlation distances apart, markers directions.
    """
    figure = Figure(figsize=(14, 4.8), layout="constrained")
    gain_axes, activity_axes, family_axes = figure.subplots(1, 3, width_ratios=(1.1, 1, 0.8))
    rays = {}
    for trial in found.trials:
        if trial["kind"] == "ray" and trial["gain"] is not None:
            rays.setdefault(trial["ray"], []).append(trial)
    for ray, style in zip(rays.values(), _ray_styles(rays.values())):
        strength = [t["strength"] for t in ray]
        gain_axes.errorbar(strength, [t["gain"] for t in ray], yerr=[t["gain_error"] for t in ray], elinewidth=0.6, **style)
        activity_axes.plot(strength, [t["activity_angstrom"] for t in ray], **style)
    _mark_choice(found, [t for ray in rays.values() for t in ray], gain_axes, activity_axes)
    gain_axes.set(xscale="log", xlabel="total prior strength (default: 1)", title="gain along the rays",
                  ylabel="log-likelihood won over rigid motion")
    activity_axes.set(xscale="log", xlabel="total prior strength (default: 1)", yscale="symlog", ylim=(0, None),
                      title="trajectory activity", ylabel="path length, 75th percentile (Å)")
    for axis in (gain_axes.xaxis, activity_axes.xaxis, activity_axes.yaxis):
        axis.set_major_formatter("{x:g}")
    _draw_margins(family_axes, found)
    figure.suptitle("Search for hyperparameters: %d particles of %d movies" % (found.particles, len(found.movies)))
    return figure


def _ray_styles(rays):
    """Line styles of rays; a label for the first ray of each distance and of each direction."""
    firsts = [ray[0] for ray in rays]
    distances = sorted({t["correlation_distance_angstrom"] for t in firsts})
    angles = sorted({t["theta_degree"] for t in firsts})
    for t in firsts:
        distance, angle = t["correlation_distance_angstrom"], t["theta_degree"]
        yield dict(color=OKABE_ITO[distances.index(distance) % len(OKABE_ITO)], marker=MARKERS[angles.index(angle) % len(MARKERS)],
                   markersize=4, linewidth=1, label="%.0f Å, %.0f°" % (distance, angle))


def _mark_choice(found, trials, gain_axes, activity_axes):
    """The best point of the rays as a star, the chosen prior as a line with its error; losses beyond the frame are cut off."""
    best = max(trials, key=lambda t: t["gain"], default=None)
    if best is not None:
        for axes, name in ((gain_axes, "gain"), (activity_axes, "activity_angstrom")):
            axes.plot(best["strength"], best[name], "*", color="black", markersize=13, zorder=5, label="best of the rays")
    gain_axes.axhspan(found.gain - found.gain_error, found.gain + found.gain_error, color="0.85", zorder=0)
    gain_axes.axhline(found.gain, color="black", linestyle="--", linewidth=1.2, label="chosen: %s" % found.family)
    gain_axes.axhline(0.0, color="grey", linewidth=0.6)
    top = max([found.gain + 2 * found.gain_error] + [t["gain"] + t["gain_error"] for t in trials])
    low = min([0.0, found.gain - 2 * found.gain_error] + [t["gain"] - t["gain_error"] for t in trials])
    span = max(top, 1e-9)
    gain_axes.set_ylim(max(low, -LARGEST_SHOWN_LOSS * span) - 0.05 * span, top + 0.08 * span)
    activity_axes.legend(fontsize="x-small", title="distance, direction", title_fontsize="x-small")
    handles, labels = gain_axes.get_legend_handles_labels()
    shown = [(h, name) for h, name in zip(handles, labels) if name.startswith(("best", "chosen"))]
    gain_axes.legend(*zip(*shown), fontsize="x-small", loc="best")


def _draw_margins(axes, found):
    names = list(found.margins)
    for line, name in enumerate(names):
        margin, error = found.margins[name]
        chosen = name == found.family
        axes.errorbar(-margin, line, xerr=2 * error, fmt="*" if chosen else "o", markersize=12 if chosen else 6, capsize=4,
                      color="black" if chosen else OKABE_ITO[0])
    axes.axvline(0.0, color="grey", linewidth=0.6)
    axes.set_yticks(range(len(names)), [textwrap.fill(n, 16) + "\n(chosen)" * (n == found.family) for n in names])
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="log-likelihood against the chosen\n(bars: two standard errors)", title="families of priors")


def before_after_figure(before, after, before_pixel_angstrom, after_pixel_angstrom):
    """The same particles before and after, low-passed to 20 Å for the eye; ``before`` may be None.

    ``before``, ``after``: (n, box, box) images, the same particles in the same order.
    """
    n = len(after)
    rows = [("after", after, after_pixel_angstrom)] if before is None else [
        ("before", before, before_pixel_angstrom), ("after", after, after_pixel_angstrom)]
    figure = Figure(figsize=(1.6 * n + 0.5, 1.75 * len(rows) + 0.3), layout="constrained")
    for axes, (label, images, pixel) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows):
        axes.imshow(_strip([_low_pass(image, pixel) for image in images]), cmap="gray", vmin=0, vmax=1, origin="lower")
        axes.set(xticks=[], yticks=[], ylabel=label)
        axes.set_frame_on(False)
    figure.suptitle("Particles, low-passed to 20 Å", fontsize="small")
    return figure


def _strip(images):
    """Images side by side with white gaps, each scaled so that its 1st and 99th percentile are 0 and 1."""
    parts = []
    for image in images:
        low, high = np.percentile(image, (1, 99))
        parts += [np.clip((image - low) / max(high - low, 1e-12), 0, 1), np.ones((len(image), max(1, len(image) // 24)))]
    return np.hstack(parts[:-1])


def power_figure(before, after, before_pixel_angstrom, after_pixel_angstrom):
    """Rotational power spectra of the particles before and after (mean over images); ``before`` may be None."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    for label, images, pixel in (("before", before, before_pixel_angstrom), ("after", after, after_pixel_angstrom)):
        if images is not None:
            k, power = _radial_power(images, pixel)
            axes.semilogy(k, power / max(power[1:4].mean(), 1e-30), label=label)
    axes.set_ylabel("power relative to the first shells")
    axes.legend()
    _resolution_axis(axes, k)
    return figure


def _frame_colours(n_frames, every):
    colours = colormaps[FRAME_COLOURS]
    return [(f, colours(f / max(n_frames - 1, 1))) for f in range(0, n_frames, every)]


def _smooth(curve, width=5):
    taps = np.ones(width)
    return np.convolve(curve, taps, "same") / np.convolve(np.ones(len(curve)), taps, "same")


def _resolution_axis(axes, k):
    ticks = []
    for r in (20, 10, 7, 5, 4, 3.5, 3, 2.5, 2, 1.7, 1.5, 1.2, 1):
        last = 1.0 / ticks[-1] if ticks else k[0]
        if 1.0 / r <= k[-1] and 1.0 / r - last > 0.05 * (k[-1] - k[0]):
            ticks.append(r)
    axes.set_xlim(k[0], k[-1])
    axes.set_xticks([1.0 / r for r in ticks], ["%g" % r for r in ticks])
    axes.set_xlabel("resolution (Å)")


def _frequency(box_px, pixel):
    return np.hypot(np.fft.fftfreq(box_px, pixel)[:, None], np.fft.rfftfreq(box_px, pixel)[None, :])


def _low_pass(image, pixel, resolution_angstrom=20.0):
    spectrum = np.fft.rfft2(image) * np.exp(-0.5 * (_frequency(image.shape[0], pixel) * resolution_angstrom) ** 2 * 1.386)
    return np.fft.irfft2(spectrum, s=image.shape)


def _radial_power(images, pixel):
    box = images.shape[-1]
    shell = np.rint(_frequency(box, pixel) * box * pixel).astype(int)
    power = np.mean(np.abs(np.fft.rfft2(np.asarray(images, dtype=float))) ** 2, axis=0)
    counts = np.bincount(shell.ravel())[:box // 2]
    return np.arange(box // 2) / (box * pixel), np.bincount(shell.ravel(), power.ravel())[:box // 2] / counts
