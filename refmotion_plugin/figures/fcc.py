"""Fourier cylinder correlation: how much of the reference each frame shows, as an image, as curves, and against dose."""
import numpy as np

from .style import BLUE, DARK, OKABE_ITO, ResultFigure, bar, dose_scale, frame_image, resolution_axis, smooth, styled

BANDS_ANGSTROM = ((20.0, 10.0), (10.0, 6.0), (6.0, 4.0), (4.0, 3.0), (3.0, 2.0))
FIRST_BELIEVED_PER_ANGSTROM = 1 / 20.0      # below: ice gradients, and patches keep their mean
CERTAIN = 3.0                               # standard errors
SMOOTHED = 5                                # shells
NO_MOVIE = "No movie of the kind (frames, doses, pixel size) with most data has particles of this optics group"
LABELS_APART = 0.07                         # of the axis


@styled
def fcc_figure(table, group=0):
    """Image over frames and frequency, curves of all frames, and means of resolution bands against dose with standard errors.

    ``table`` is an FccTable; ``group`` the optics group's position in it.
    """
    figure = ResultFigure(10.0, 6.5)
    image_axes, curve_axes, band_axes, pooled_axes = figure.subplots(2, 2).ravel()
    fcc, k, dose = table.fcc[group], table.frequency_per_angstrom, table.dose_e_per_A2
    believed = np.abs(fcc[:, k >= FIRST_BELIEVED_PER_ANGSTROM])
    limit = max(float(np.percentile(believed, 99.5)) if believed.size else 0.0, 1e-6)
    image = frame_image(image_axes, fcc, k, cmap="RdBu_r", vmin=-limit, vmax=limit)
    image_axes.set_title("every frame")
    bar(figure, image, image_axes, "FCC")
    _draw_curves(figure, curve_axes, fcc, k, dose)
    _draw_bands(band_axes, table, group)
    seen = seen_to_angstrom(table, group)
    _draw_pooled(pooled_axes, table, group, seen)
    figure.headline(NO_MOVIE if not table.components[group].any() else "The movies show the reference to %.1f Å" % seen if np.isfinite(seen)
                    else "The movies do not show the reference: no shell is %g standard errors above zero" % CERTAIN)
    figure.remember("fcc", frame=np.arange(1, len(fcc) + 1)[:, None], dose_e_per_A2=dose[:, None], frequency_per_angstrom=k, fcc=fcc)
    return figure


def seen_to_angstrom(table, group=0):
    """Resolution to which the correlation of all frames together stays certain, smoothed over five shells; NaN if it nowhere is."""
    k, fcc, error = table.frequency_per_angstrom, *_pooled(table, group, slice(None))
    certain = (smooth(fcc) > CERTAIN * error / np.sqrt(SMOOTHED)) & (error > 0)
    believed = np.flatnonzero((k >= FIRST_BELIEVED_PER_ANGSTROM) & certain)
    if not len(believed):
        return float("nan")
    lost = np.flatnonzero((k > k[believed[0]]) & ~certain)
    last = lost[0] - 1 if len(lost) else len(k) - 1
    return float(1.0 / k[last])


def _pooled(table, group, frames):
    """FCC (shell,) of some frames together and its standard error where there is no signal: 1 / sqrt(2 components)."""
    cross, movie, reference, components = (getattr(table, name)[group, frames].sum(axis=0) for name in (
        "cross", "power_movie", "power_reference", "components"))
    power = np.sqrt(movie * reference)
    fcc = np.divide(cross, power, out=np.zeros_like(power), where=power > 0)
    return fcc, np.divide(1.0, np.sqrt(2.0 * components), out=np.zeros_like(fcc), where=components > 0)


def _draw_curves(figure, axes, fcc, k, dose):
    scale = dose_scale(dose)
    for curve, frame_dose in zip(fcc, dose):
        axes.plot(k, smooth(curve), color=scale.to_rgba(frame_dose), linewidth=0.9)
    axes.axhline(0.0, color="0.6", linewidth=0.6)
    axes.set(ylabel="FCC", title="the same, smoothed over 5 shells")
    believed = fcc[:, k >= FIRST_BELIEVED_PER_ANGSTROM]
    if believed.size:
        smoothed = np.array([smooth(row) for row in believed])
        low, high = float(smoothed.min()), float(smoothed.max())
        axes.set_ylim(min(low, 0.0) - 0.05 * (high - low or 1.0), high + 0.05 * (high - low or 1.0))
    resolution_axis(axes, k)
    bar(figure, scale, axes, "dose (e/Å²)")


def _draw_bands(axes, table, group):
    """Mean FCC of each band against dose; weights are the components, so that errors are those of independent numbers."""
    k, dose, components, fcc = table.frequency_per_angstrom, table.dose_e_per_A2, table.components[group], table.fcc[group]
    ends = []
    for (low, high), colour in zip(BANDS_ANGSTROM, OKABE_ITO):
        band = (k >= 1 / low) & (k < 1 / high)
        count = components[:, band].sum(axis=1)
        if not band.any() or not (count > 0).all():
            continue
        mean = (fcc[:, band] * components[:, band]).sum(axis=1) / count
        axes.errorbar(dose, mean, yerr=1.0 / np.sqrt(2.0 * count), fmt="o-", markersize=3, elinewidth=0.8, color=colour)
        ends.append((mean[-1], "%g–%g Å" % (low, high), colour))
    for place, (_, text, colour) in zip(apart([end for end, _, _ in ends], LABELS_APART * np.ptp(axes.get_ylim())), ends):
        axes.annotate(text, (dose[-1], place), xytext=(6, 0), textcoords="offset points", va="center", color=colour, annotation_clip=False)
    axes.axhline(0.0, color="0.6", linewidth=0.6)
    axes.set(xlabel="dose at mid-frame (e/Å²)", ylabel="FCC", title="mean of bands ± standard error")
    span = float(dose[-1] - dose[0]) or 1.0
    axes.set_xlim(dose[0] - 0.03 * span, dose[-1] + 0.2 * span)


def _draw_pooled(axes, table, group, seen):
    """All frames together, the level of certainty, and where the correlation falls below it."""
    k, fcc, error = table.frequency_per_angstrom, *_pooled(table, group, slice(None))
    curve, level = smooth(fcc), CERTAIN * error / np.sqrt(SMOOTHED)
    axes.fill_between(k, 0.0, level, color="0.9", linewidth=0)
    axes.plot(k, curve, color=BLUE)
    if np.isfinite(seen):
        axes.axvline(1.0 / seen, color=DARK, linewidth=0.8, linestyle=":")
    believed = curve[k >= FIRST_BELIEVED_PER_ANGSTROM]
    top = float(believed.max()) if believed.size and believed.max() > 0 else 1.0
    axes.set(ylabel="FCC", title="all frames; grey: below %g standard errors" % CERTAIN, ylim=(min(0.0, 1.1 * float(believed.min(initial=0.0))), 1.15 * top))
    axes.axhline(0.0, color="0.6", linewidth=0.6)
    resolution_axis(axes, k)


def apart(values, least):
    """Values in their order, moved up as little as makes each at least ``least`` larger than the one below it."""
    placed, last = list(values), -np.inf
    for place in np.argsort(values):
        placed[place] = last = max(values[place], last + least)
    return placed
