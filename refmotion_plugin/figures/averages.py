"""Averages of movies: one micrograph of each kind, their spectra, and what became of every movie."""
from collections import Counter

import mrcfile
import numpy as np

from .images import LONGEST_SIDE_PX, UNREADABLE, bin_image, frequency, log, stretched
from .movies import SHOWN_REASONS, common_reasons, draw_reasons, draw_states
from .style import BLUE, GREEN, GREY, ORANGE, VERMILION, ResultFigure, plain_log_ticks, resolution_axis, say, styled, things

TITLES = {"weighted": "dose-weighted", "unweighted": "unweighted", "even": "even frames", "odd": "odd frames"}
COLOURS = {"weighted": BLUE, "unweighted": GREY, "even": GREEN, "odd": ORANGE}
SPECTRUM_BOX_PX = 256
MOST_BOXES = 64


@styled
def average_figure(name, files, pixel_angstrom):
    """The averages of one movie side by side and their power spectra; ``files`` {kind: path of an MRC}, ``pixel_angstrom`` of them."""
    images = {kind: _read(path) for kind, path in files.items()}
    images = {kind: image for kind, image in images.items() if image is not None}
    shown = [kind for kind in TITLES if kind in images][:2]
    figure = ResultFigure(4.0 * max(len(shown), 1) + 4.0, 4.2)
    panels = figure.subplots(1, max(len(shown), 1) + 1, squeeze=False)[0]
    for axes, kind in zip(panels, shown):
        _show(axes, images[kind], pixel_angstrom, TITLES[kind])
    if not shown:
        say(panels[0], "the averages cannot be read any more")
    for axes in panels[1:len(shown)]:
        axes.set_ylabel("")
    for kind, image in images.items():
        k, power = patch_power(image, pixel_angstrom)
        relative = np.maximum(power[2:] / max(float(power[2:5].mean()), 1e-30), 1e-12)
        panels[-1].semilogy(k[2:], relative, color=COLOURS[kind], label=TITLES[kind])
        figure.remember("power " + kind, frequency_per_angstrom=k[2:], relative_power=relative)
    if images:
        panels[-1].set(ylabel="power, relative to the first shells", title="power spectra, mean of patches")
        plain_log_ticks(panels[-1])
        panels[-1].legend(loc="upper right")
        resolution_axis(panels[-1], k[2:])
    else:
        panels[-1].axis("off")
    figure.headline("%s: %s of %.4g Å per pixel" % (name, " and ".join(TITLES[kind] for kind in shown) or "no averages", pixel_angstrom))
    return figure


def _read(path):
    try:
        with mrcfile.open(str(path), permissive=True) as file:
            if file.data.ndim != 2:
                raise ValueError("it has %d dimensions" % file.data.ndim)
            return np.array(file.data, dtype=np.float32)
    except UNREADABLE as error:
        log.info("average %s is not shown: %s", path, error)
        return None


def _show(axes, image, pixel, title):
    factor = max(1, -(-max(image.shape) // LONGEST_SIDE_PX))
    small = bin_image(image, factor)
    half, size = 0.05 * pixel, 0.1 * factor * pixel                        # nm
    axes.imshow(stretched(small), cmap="gray", origin="lower", interpolation="bilinear", vmin=0, vmax=1,
                extent=(-half, small.shape[1] * size - half, -half, small.shape[0] * size - half))
    axes.set(xlabel="x (nm)", ylabel="y (nm)", title=title, aspect="equal")


def patch_power(image, pixel_angstrom):
    """Frequencies (1/A) and rotational power of an image, mean over patches spread evenly over it."""
    box = min(SPECTRUM_BOX_PX, *image.shape) // 2 * 2
    ys, xs = (np.unique(np.linspace(0, n - box, int(MOST_BOXES ** 0.5)).astype(int)) for n in image.shape)
    window = np.hanning(box)[:, None] * np.hanning(box)[None]
    patches = (image[y:y + box, x:x + box].astype(float) for y in ys for x in xs)
    power = np.mean([np.abs(np.fft.rfft2((patch - patch.mean()) * window)) ** 2 for patch in patches], axis=0)
    ring = np.rint(frequency(box, 1.0) * box).astype(int).ravel()
    return np.arange(box // 2) / (box * pixel_angstrom), (np.bincount(ring, power.ravel()) / np.bincount(ring))[:box // 2]


@styled
def average_states_figure(movies):
    """How many movies are averaged and why some failed; ``movies`` are AverageStates."""
    reasons = common_reasons(movies)
    figure = ResultFigure(10.0, 1.6 + 0.5 * min(len(reasons), SHOWN_REASONS + 1) + (0.8 if reasons else 0.0))
    panels = figure.subplots(1 + bool(reasons), 1, squeeze=False, height_ratios=[1.0] + [0.6 + 0.5 * len(reasons)] * bool(reasons))[:, 0]
    draw_states(panels[0], Counter({"done": "averaged"}.get(movie.state, "to do" if movie.state == "todo" else movie.state) for movie in movies))
    if reasons:
        draw_reasons(panels[1], reasons, VERMILION, "movies", "why movies failed")
    done = sum(movie.state == "done" for movie in movies)
    figure.headline("%d of %s averaged" % (done, things(len(movies), "movie")))
    figure.remember("movies", micrograph=np.array([m.micrograph for m in movies], dtype=object), state=np.array([m.state for m in movies], dtype=object),
                    reason=np.array([m.reason for m in movies], dtype=object))
    return figure
