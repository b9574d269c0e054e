"""The motion prior: what its hyperparameters allow, and their values with units."""
from dataclasses import asdict

import numpy as np

from .style import BLUE, GREY, VERMILION, ResultFigure, plain_log_ticks, styled

LONGEST_SHOWN_DOSE = 60.0       # e/A^2
_ROWS = (("velocity_sigma", "velocity", "Å per e/Å²"), ("acceleration_sigma", "acceleration", "Å per e/Å²"),
         ("correlation_distance_angstrom", "correlation distance", "Å"), ("kernel", "kernel", ""),
         ("correlated_acceleration", "accelerations correlated", ""), ("early_factor", "early factor β", ""),
         ("early_dose_e_per_A2", "early dose τ", "e/Å²"), ("jitter_angstrom", "jitter per particle", "Å"), ("jitter_followed", "jitter followed", ""),
         ("global_angstrom", "shift of whole frames", "Å"), ("common_sigma", "acceleration of whole movie", "Å per e/Å²"),
         ("offset_angstrom", "offset of particles", "Å"),
         ("movie_spread", "spread between movies", "ln"))


@styled
def hyperparameters_figure(prior, headline=None):
    """Strengths against dose, correlation against distance, and all values; ``prior`` is a Hyperparameters record."""
    figure = ResultFigure(10.0, 4.2)
    dose_axes, distance_axes, text_axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    dose = np.linspace(0.0, LONGEST_SHOWN_DOSE, 400)
    early = 1.0 + prior.early_factor * np.exp(-dose / prior.early_dose_e_per_A2)
    for name, sigma, style, colour in (("velocity", prior.velocity_sigma, "-", BLUE), ("acceleration", prior.acceleration_sigma, "--", VERMILION)):
        dose_axes.semilogy(dose, sigma * early, style, color=colour)
        dose_axes.annotate(name, (dose[-1], sigma * early[-1]), xytext=(0, 5), textcoords="offset points", ha="right", color=colour)
    dose_axes.set(xlabel="dose (e/Å²)", ylabel="standard deviation (Å per e/Å²)", xlim=(0, LONGEST_SHOWN_DOSE), title="how fast particles move")
    plain_log_ticks(dose_axes)
    distance = np.linspace(0.0, 4.0 * prior.correlation_distance_angstrom, 400)
    alike = _kernel(distance / prior.correlation_distance_angstrom, prior.kernel)
    distance_axes.plot(distance / 10.0, alike, color=BLUE)
    distance_axes.axvline(prior.correlation_distance_angstrom / 10.0, color=GREY, linewidth=0.8, linestyle=":")
    distance_axes.annotate("correlation distance", (prior.correlation_distance_angstrom / 10.0, 0.98), xytext=(4, 0), textcoords="offset points", color=GREY, va="top",
                           fontsize=8)
    distance_axes.set(xlabel="distance (nm)", ylabel="correlation of their motion", xlim=(0, distance[-1] / 10.0), ylim=(0, 1.02), title="how alike neighbours move")
    _write_values(text_axes, prior)
    figure.headline(headline or "Motion of %.2g Å per e/Å² at first, %.2g Å late; alike over %.0f nm" % (
        prior.velocity_sigma * early[0], prior.velocity_sigma, prior.correlation_distance_angstrom / 10.0))
    values = asdict(prior)
    figure.remember("hyperparameters", name=np.array(list(values), dtype=object), value=np.array([str(v) for v in values.values()], dtype=object))
    figure.remember("strengths", dose_e_per_A2=dose, velocity_A_per_e_per_A2=prior.velocity_sigma * early, acceleration_A_per_e_per_A2=prior.acceleration_sigma * early)
    figure.remember("correlation", distance_angstrom=distance, correlation=alike)
    return figure


def _kernel(scaled, kind):
    """Correlation at a distance in units of the correlation distance."""
    return np.exp(-scaled) if kind == "exponential" else (1.0 + np.sqrt(3.0) * scaled) * np.exp(-np.sqrt(3.0) * scaled)


def _write_values(axes, prior):
    axes.axis("off")
    for line, (name, label, unit) in enumerate(_ROWS):
        value, height = getattr(prior, name), 0.97 - line / len(_ROWS)
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value if isinstance(value, str) else "%.4g" % value
        axes.text(0.0, height, label, transform=axes.transAxes, va="top", fontsize=8)
        axes.text(1.0, height, ("%s %s" % (shown, unit)).strip(), transform=axes.transAxes, va="top", ha="right", fontsize=8)
