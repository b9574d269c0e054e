"""Particles before and after: a gallery for the eye, and what changed at which resolution."""
import numpy as np

from .images import low_pass, ring_sums, stretched
from .style import BLUE, GREY, VERMILION, ResultFigure, plain_log_ticks, resolution_axis, say, smooth, styled, things

COLUMNS = 6
GAP = 0.02                  # around an image, of its width
LOW_PASS_ANGSTROM = 20.0
LEAST_POWER = 1e-12
LABELS = ("before", "after")


@styled
def gallery_figure(before, after, before_pixel_angstrom, after_pixel_angstrom):
    """The same particles before and after, low-passed to 20 A for the eye; ``before`` may be None.

    ``before``, ``after``: (n, box, box) images, the same particles in the same order; up to twelve are shown.
    """
    shown = after[:2 * COLUMNS]
    columns = min(COLUMNS, len(shown))
    kinds = [(after, after_pixel_angstrom, LABELS[1])] if before is None else [
        (before, before_pixel_angstrom, LABELS[0]), (after, after_pixel_angstrom, LABELS[1])]
    lines = -(-len(shown) // columns) * len(kinds)
    figure = ResultFigure(1.55 * columns + 0.5, 1.55 * lines + 0.6)
    axes = figure.subplots()                    # one for all images: axes cost more than what is in them
    for particle in range(len(shown)):
        for kind, (images, pixel, _) in enumerate(kinds):
            x, y = particle % columns, particle // columns * len(kinds) + kind
            axes.imshow(stretched(low_pass(images[particle], pixel, LOW_PASS_ANGSTROM)), cmap="gray", origin="lower", vmin=0, vmax=1, interpolation="bilinear",
                        extent=(x + GAP, x + 1 - GAP, y + 1 - GAP, y + GAP))
    axes.set(xlim=(GAP, columns - GAP), ylim=(lines - GAP, GAP), aspect="equal", xticks=[])
    axes.set_yticks(np.arange(lines) + 0.5, [label for _, _, label in kinds] * (lines // len(kinds)), rotation="vertical", va="center")
    axes.tick_params(length=0, labelsize="medium")
    axes.spines[:].set_visible(False)
    figure.headline("Particles before and after correction, low-passed to %g Å: they should look alike" % LOW_PASS_ANGSTROM if before is not None
                    else "Particles after correction, low-passed to %g Å" % LOW_PASS_ANGSTROM)
    return figure


@styled
def spectra_figure(before, after, before_pixel_angstrom, after_pixel_angstrom):
    """Rotational power spectra before and after (mean over images), and the ring correlation of one with the other; ``before`` may be None."""
    figure = ResultFigure(10.0, 4.0)
    power_axes, ring_axes = figure.subplots(1, 2)
    for images, pixel, label, colour in ((before, before_pixel_angstrom, LABELS[0], GREY), (after, after_pixel_angstrom, LABELS[1], BLUE)):
        if images is not None:
            k, power = radial_power(images, pixel)
            relative = power[1:] / max(float(power[1:4].mean()), 1e-30)
            power_axes.semilogy(k[1:], np.maximum(relative, LEAST_POWER), color=colour, label=label)
            figure.remember("power " + label, frequency_per_angstrom=k[1:], relative_power=relative)
    power_axes.set(ylabel="power, relative to the first shells", title="power spectra")
    plain_log_ticks(power_axes)
    power_axes.legend(loc="upper right")
    resolution_axis(power_axes, k[1:])
    comparable = before is not None and before.shape == after.shape and np.isclose(before_pixel_angstrom, after_pixel_angstrom, rtol=1e-3)
    if comparable:
        ring = ring_correlation(before, after)
        ring_axes.plot(k[1:], smooth(ring[1:]), color=VERMILION)
        ring_axes.axhline(0.0, color="0.6", linewidth=0.6)
        ring_axes.set(ylabel="ring correlation", title="before against after", ylim=(min(0.0, 1.1 * float(ring[1:].min())), 1.05))
        resolution_axis(ring_axes, k[1:])
        figure.remember("ring correlation", frequency_per_angstrom=k[1:], ring_correlation=ring[1:])
    else:
        say(ring_axes, "no images of the input with\nthe same box and pixel to compare with" if before is not None else "the input has no images")
    figure.headline("Spectra of %s before and after" % things(len(after), "particle"))
    return figure


def radial_power(images, pixel):
    """Frequencies (1/A) and mean power per component in rings, both (box // 2,)."""
    box = images.shape[-1]
    power = np.mean([_power(np.fft.rfft2(np.asarray(image, dtype=float))) for image in images], axis=0)
    return np.arange(box // 2) / (box * pixel), ring_sums(power, box) / ring_sums(np.ones_like(power), box)


def ring_correlation(before, after):
    """Mean Fourier ring correlation (box // 2,) of images (n, box, box) with their partners, moved onto them by whole pixels first.

    Images may have been re-centred, so each is moved to the peak of its cross-correlation with its partner.
    """
    curves = []
    for first, second in zip(np.asarray(before, dtype=float), np.asarray(after, dtype=float)):
        one, two = np.fft.rfft2(first - first.mean()), np.fft.rfft2(second - second.mean())
        box, product = len(first), two * one.conj()
        y, x = np.unravel_index(np.argmax(np.fft.irfft2(product, s=first.shape)), first.shape)
        by_yx_px = np.exp(2j * np.pi * y * np.fft.fftfreq(box))[:, None] * np.exp(2j * np.pi * x * np.fft.rfftfreq(box))
        cross = ring_sums((product * by_yx_px).real, box)
        power = np.sqrt(ring_sums(_power(one), box) * ring_sums(_power(two), box))
        curves.append(np.divide(cross, power, out=np.zeros_like(power), where=power > 1e-30 * max(float(power.max()), 1e-300)))
    return np.mean(curves, axis=0)


def _power(transform):
    return transform.real ** 2 + transform.imag ** 2
