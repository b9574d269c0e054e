"""A figure of the motion prior: what its hyperparameters allow, and their values with units."""
import numpy as np
from matplotlib.figure import Figure

from .plots import OKABE_ITO

LONGEST_SHOWN_DOSE = 60.0       # e/A^2
_ROWS = (("velocity_sigma", "velocity strength", "Å per e/Å²"), ("acceleration_sigma", "acceleration strength", "Å per e/Å²"),
         ("correlation_distance_angstrom", "correlation distance", "Å"), ("kernel", "kernel", ""),
         ("correlated_acceleration", "accelerations correlated", ""), ("early_factor", "early factor β", ""),
         ("early_dose_e_per_A2", "early dose τ", "e/Å²"), ("jitter_angstrom", "jitter per particle", "Å"),
         ("global_angstrom", "shift of whole frames", "Å"), ("offset_angstrom", "offset of particles", "Å"),
         ("movie_spread", "spread between movies", "ln"))


def hyperparameters_figure(prior, title="Hyperparameters of the motion prior"):
    """Strengths against dose, correlation against distance, and all values; ``prior`` is a Hyperparameters record."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    dose_axes, distance_axes, text_axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    dose = np.linspace(0.0, LONGEST_SHOWN_DOSE, 400)
    early = 1.0 + prior.early_factor * np.exp(-dose / prior.early_dose_e_per_A2)
    for name, sigma, style, colour in (("velocity", prior.velocity_sigma, "-", OKABE_ITO[0]), ("acceleration", prior.acceleration_sigma, "--", OKABE_ITO[1])):
        dose_axes.semilogy(dose, sigma * early, style, color=colour, label=name)
    dose_axes.set(xlabel="dose (e/Å²)", ylabel="standard deviation (Å per e/Å²)", xlim=(0, LONGEST_SHOWN_DOSE), title="how fast particles move")
    dose_axes.legend(fontsize="small")
    distance = np.linspace(0.0, 4.0 * prior.correlation_distance_angstrom, 400)
    distance_axes.plot(distance / 10.0, _kernel(distance / prior.correlation_distance_angstrom, prior.kernel), color=OKABE_ITO[0])
    distance_axes.axvline(prior.correlation_distance_angstrom / 10.0, color="grey", linewidth=0.8, linestyle=":")
    distance_axes.set(xlabel="distance between particles (nm)", ylabel="correlation of their motion", xlim=(0, distance[-1] / 10.0), ylim=(0, 1.02),
                      title="how alike neighbours move")
    _write_values(text_axes, prior)
    figure.suptitle(title)
    return figure


def _kernel(scaled, kind):
    """Correlation at a distance in units of the correlation distance."""
    return np.exp(-scaled) if kind == "exponential" else (1.0 + np.sqrt(3.0) * scaled) * np.exp(-np.sqrt(3.0) * scaled)


def _write_values(axes, prior):
    axes.axis("off")
    for line, (name, label, unit) in enumerate(_ROWS):
        value, height = getattr(prior, name), 0.97 - line / len(_ROWS)
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value if isinstance(value, str) else "%.4g" % value
        axes.text(0.0, height, label, transform=axes.transAxes, va="top", fontsize="small")
        axes.text(0.66, height, ("%s %s" % (shown, unit)).strip(), transform=axes.transAxes, va="top", fontsize="small")
