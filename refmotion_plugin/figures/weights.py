"""Dose weights: what each frame contributes at each resolution, and how they differ from the standard exposure curve."""
import numpy as np

from ..contract.damage import exposure_amplitude
from ..contract.weighting import b_factors, band_to
from .style import BLUE, GREY, VERMILION, ResultFigure, bar, dose_scale, frame_image, resolution_axis, styled

CURVES = 5
HALF_AT_ANGSTROM = 4.0


@styled
def weights_figure(weights, group=0, highest_per_angstrom=None, voltage_kilovolt=300.0):
    """Image and curves of the weights, B-factors and scales with standard errors; the standard exposure curve beside each.

    ``weights`` is a DoseWeights; ``highest_per_angstrom`` ends the frequency axis (none: where the weights end).
    """
    figure = ResultFigure(10.0, 6.5)
    image_axes, curve_axes, b_axes, scale_axes = figure.subplots(2, 2).ravel()
    shown = weights.frequency_per_angstrom <= (highest_per_angstrom or np.inf)
    k, dose = weights.frequency_per_angstrom[shown], weights.dose_e_per_A2
    relative = _relative(weights.weight[group][:, shown])
    standard = exposure_amplitude(dose, k, voltage_kilovolt)
    image = frame_image(image_axes, relative, k, vmin=0.0)
    image_axes.set_title("every frame")
    bar(figure, image, image_axes, "weight (1: even share)")
    _draw_curves(figure, curve_axes, relative, _relative(standard), k, dose)
    _draw_b_and_scale(b_axes, scale_axes, weights, group, standard, k)
    figure.headline(_headline(relative, k, dose))
    frame = np.arange(1, len(dose) + 1)
    figure.remember("weights", frame=frame[:, None], dose_e_per_A2=dose[:, None], frequency_per_angstrom=k, relative_weight=relative,
                    standard_curve=_relative(standard))
    figure.remember("frames", frame=frame, dose_e_per_A2=dose, b_factor_A2=weights.b_factor_A2[group],
                    b_factor_error_A2=weights.b_factor_error_A2[group], scale=weights.scale[group], scale_error=weights.scale_error[group])
    return figure


def _relative(weight):
    """Share of each frame at each frequency, 1 where all frames share evenly."""
    return len(weight) * weight / np.maximum(weight.sum(axis=0, keepdims=True), 1e-30)


def _headline(relative, k, dose):
    if len(dose) < 2:
        return "Dose weights of one frame"
    at = min(1.0 / HALF_AT_ANGSTROM, float(k[-1]))
    share = np.array([np.interp(at, k, row) for row in relative])
    share = share / share.sum()
    ends = dose + 0.5 * np.gradient(dose)
    half = float(np.interp(0.5, np.cumsum(share), ends))
    peak = int(np.argmax(share))
    return "At %.1f Å, half of the weight lies on the first %.0f e/Å²; frame %d weighs most" % (1.0 / at, max(half, 0.0), peak + 1)


def _draw_curves(figure, axes, relative, standard, k, dose):
    scale = dose_scale(dose)
    for f in np.unique(np.linspace(0, len(dose) - 1, CURVES).round().astype(int)):
        colour = scale.to_rgba(dose[f])
        axes.plot(k, relative[f], color=colour)
        axes.plot(k, standard[f], color=colour, linestyle=(0, (4, 2)), linewidth=0.9)
    axes.set(ylabel="weight (1: even share)", title="measured; dashed: standard curve", ylim=(0, None))
    resolution_axis(axes, k)
    bar(figure, scale, axes, "dose (e/Å²)")


def _draw_b_and_scale(b_axes, scale_axes, weights, group, standard, k):
    """Standard curve: described in the same form, and moved to the same mean, since only differences between frames matter."""
    dose, b, scale = weights.dose_e_per_A2, weights.b_factor_A2[group], weights.scale[group]
    standard_b, standard_scale = b_factors(standard, k, band_to(k[-1], k))
    standard_b = standard_b + b.mean() - standard_b.mean()
    standard_scale = standard_scale * scale.mean() / max(standard_scale.mean(), 1e-30)
    rows = ((b_axes, b, weights.b_factor_error_A2[group], standard_b, BLUE, "B-factor (Å²)", "B-factor of each frame"),
            (scale_axes, scale, weights.scale_error[group], standard_scale, VERMILION, "scale", "scale of each frame"))
    for axes, values, errors, expected, colour, label, title in rows:
        axes.plot(dose, expected, color=GREY, linestyle=(0, (4, 2)), linewidth=1.0, label="standard curve")
        axes.errorbar(dose, values, yerr=errors, fmt="o-", markersize=3, elinewidth=0.8, color=colour, label="measured ± s.e.")
        axes.set(xlabel="dose at mid-frame (e/Å²)", ylabel=label, title=title)
    scale_axes.legend(loc="best")
