"""Pixels that are not to be believed: listed, mapped, or found in the data; and what stands in for them."""
import os
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.reading import read_text

from .images import read_image
from .parallel import each
from .readers import COMPRESSED_MRC_EXTENSIONS, MRC_EXTENSIONS, TIFF_EXTENSIONS

BLOCK_PX = 32            # blocks of the coarse search
STRIP_BLOCKS = 4         # rows of blocks that a thread looks at together at most: few large steps, since each asks for Python's lock
WINDOW_RADIUS_PX = 4     # neighbourhood of the fine decision: 9 x 9
COARSE_FRACTION = 0.6    # of the threshold, for the coarse search
BEYOND_FRACTION = 0.5    # of the threshold, for the distance to the outer neighbours
SPREAD_FRACTION = 0.3    # of the threshold, in units of the neighbours' own spread
EDGE_QUANTILE = 0.23     # of the neighbours: more than two bad columns in the window, less than a right-angled corner
DEAD_MIN_COUNTS = 30.0   # a live pixel with this mean counts nothing with probability exp(-30)
MAX_CANDIDATES = 200000
FINE_CANDIDATES = 2048   # looked at together: their neighbours fit into the cache of a core


def read_defects(path, shape_yx, turn_tiff=True):
    """Bad pixels of a defect file.

    Text: lines ``x y width height`` of rectangles, 0-based px of the frames as they are read (a TIFF movie is turned on
    reading); ``#`` starts a comment. Map: MRC or TIFF of the frames' shape, bad where > 0; a TIFF map is turned like a
    TIFF movie.

    Parameters
    ----------
    path : file.
    shape_yx : of the frames.
    turn_tiff : turn a TIFF map upside down.

    Returns
    -------
    int64 (m, 2) in (y, x) order

    Raises
    ------
    MovieError
    """
    path = os.fspath(path)
    if path.lower().endswith(TIFF_EXTENSIONS + MRC_EXTENSIONS + COMPRESSED_MRC_EXTENSIONS):
        image = read_image(path, "defect map", turn_tiff)
        if image.shape != tuple(shape_yx):
            raise MovieError("defect map %s is %d x %d px and the movie %d x %d px: give the map that belongs to these movies"
                             % (path, *image.shape[::-1], *shape_yx[::-1]))
        return np.argwhere(image > 0)
    bad = np.zeros(shape_yx, bool)
    for x, y, width, height in _rectangles(path):
        bad[max(y, 0):max(y + height, 0), max(x, 0):max(x + width, 0)] = True
    return np.argwhere(bad)


def _rectangles(path):
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MovieError("defect file %s cannot be read (%s): give lines 'x y width height' or an MRC/TIFF map" % (path, error)) from None
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            x, y, width, height = (int(w) for w in words)
        except ValueError:
            raise MovieError("defect file %s, line %d, is %r where 'x y width height' (whole numbers) was expected; "
                             "convert other kinds of defect files to a map" % (path, number, line.strip())) from None
        yield x, y, width, height


def find_outliers(total, threshold_sigma, bad_yx=None, threads=1):
    """Hot and dead pixels of the sum over frames, against their neighbourhoods.

    A pixel is out when it differs from the median of the 9 x 9 pixels around it (known bad ones left out) by more than
    ``threshold_sigma`` Poisson standard deviations, *and* is half as far beyond the outer 23 % of them, *and* by 0.3 times
    as many of their own standard deviations (from the median absolute deviation): at the edge of ice or gold many neighbours
    look alike. For counts, distances are measured after x -> 2 sqrt(x + 3/8), which makes Poisson noise Gaussian of width
    1; x is the sum divided by the typical variance-to-mean ratio, so the gain of the counting does not matter. A pixel
    that counted nothing where 30 were expected is dead whatever the threshold.

    Parameters
    ----------
    total : tensor (H, W) float32, sum (or mean) over frames, gain-corrected.
    threshold_sigma : > 0.
    bad_yx : (m, 2) pixels known to be bad, or None.
    threads : that look for them; what is found does not depend on it.

    Returns
    -------
    int64 numpy (k, 2) in (y, x) order

    Source: Anscombe 1948, Biometrika 35:246, for the transformation.
    """
    total = total.to(torch.float32)
    known = torch.zeros(total.shape, dtype=torch.bool)
    if bad_yx is not None and len(bad_yx):
        known[torch.as_tensor(bad_yx[:, 0]), torch.as_tensor(bad_yx[:, 1])] = True
    strips = _strips(len(total), threads)
    median, scale, counting = _block_levels(total.numpy(), strips, threads)
    level = _Level(scale, counting)
    limits = [limit.numpy() for limit in _coarse_limits(median, level, threshold_sigma)]
    found = each(lambda rows: _coarse_candidates(total.numpy(), known.numpy(), *limits, rows), strips, threads)
    yx = torch.from_numpy(np.concatenate(found))
    if len(yx) > MAX_CANDIDATES:   # structure, not pixels: keep the strongest
        around = median[yx[:, 0] // BLOCK_PX, yx[:, 1] // BLOCK_PX]
        strength = (level.stabilise(total[yx[:, 0], yx[:, 1]]) - level.stabilise(around)).abs()
        yx = yx[strength.topk(MAX_CANDIDATES).indices]
    if len(yx):
        yx = yx[torch.cat(each(lambda part: _is_outlier(total, known, part, level, threshold_sigma), yx.split(FINE_CANDIDATES), threads))]
    return yx.numpy()


@dataclass(frozen=True)
class _Level:
    """Transformation to unit noise: ``scale`` is the variance-to-mean ratio of counts, else the standard deviation."""

    scale: float
    counting: bool

    def stabilise(self, value):
        if not self.counting:
            return value / self.scale
        return 2.0 * torch.sqrt((value / self.scale).clamp(min=0.0) + 0.375)

    def is_dead(self, value, centre):
        return (value == 0) & (centre / self.scale > DEAD_MIN_COUNTS) if self.counting else torch.zeros_like(value, dtype=torch.bool)


def _strips(height, threads):
    """Slices of a frame's rows that are looked at together: whole blocks, in equal rounds of all threads; what is left of a block by itself."""
    blocks = height // BLOCK_PX
    rounds = max(1, -(-blocks // (threads * STRIP_BLOCKS)))
    step = max(1, -(-blocks // (threads * rounds))) * BLOCK_PX
    cuts = list(range(0, blocks * BLOCK_PX, step)) + [blocks * BLOCK_PX] + [height] * (height % BLOCK_PX > 0)
    return [slice(*ends) for ends in zip(cuts, cuts[1:]) if ends[0] < ends[1]]


def _block_levels(total, strips, threads):
    """Median of every block (from each third pixel), the noise scale, and whether the data look like counts."""
    found = each(lambda rows: _levels(total[rows]), strips, threads)
    median, variance, mean, least = (torch.from_numpy(np.concatenate(part)) for part in zip(*found))
    counting = mean.median().item() > 0 and least.min().item() >= 0
    scale = (variance / mean.clamp(min=1e-30)).median().item() if counting else variance.median().item() ** 0.5
    return median, scale if scale > 0 else 1.0, counting


def _levels(strip):
    """Median, variance and mean of the blocks of a strip (rows, W), each (block rows, blocks in a row), and its least value (1,)."""
    missing = -len(strip) % BLOCK_PX, -strip.shape[1] % BLOCK_PX
    padded = np.pad(strip, [(0, n) for n in missing], mode="edge") if any(missing) else strip
    shape = padded.shape[0] // BLOCK_PX, padded.shape[1] // BLOCK_PX
    seen = padded.reshape(shape[0], BLOCK_PX, shape[1], BLOCK_PX)[:, ::3, :, ::3].transpose(0, 2, 1, 3).reshape(shape[0] * shape[1], -1)
    ordered = np.sort(seen, axis=1)         # many times faster than looking for the middle one
    return [values.reshape(shape) for values in (ordered[:, seen.shape[1] // 2], seen.var(axis=1, ddof=1), seen.mean(axis=1))] + [strip.min(keepdims=True)[0]]


def _coarse_limits(median, level, threshold_sigma):
    """Values between which a block's pixels are not looked at, by thresholds put back on the scale of the data."""
    reach = COARSE_FRACTION * threshold_sigma
    if level.counting:
        centre = level.stabilise(median)
        low, high = (((centre + sign * reach).clamp(min=0.0) ** 2 / 4 - 0.375) * level.scale for sign in (-1, 1))
        low = torch.where(median / level.scale > DEAD_MIN_COUNTS, low.clamp(min=0.5 * level.scale), low)
    else:
        low, high = median - reach * level.scale, median + reach * level.scale
    return low, high


def _coarse_candidates(total, known, low, high, rows):
    """Pixels (k, 2) beyond their block's limits in a strip, in the order of the frame; known bad ones left out. All numpy."""
    width, height = total.shape[1], min(BLOCK_PX, rows.stop - rows.start)
    blocks = slice(rows.start // BLOCK_PX, -(-rows.stop // BLOCK_PX))
    low, high = (np.repeat(limit[blocks], BLOCK_PX, axis=1)[:, :width] for limit in (low, high))
    strip = total[rows].reshape(-1, height, width)
    block, column = np.nonzero((strip.min(axis=1) < low) | (strip.max(axis=1) > high))      # few columns of blocks are looked at again
    part = strip[block, :, column]
    which, row = np.nonzero((part < low[block, column, None]) | (part > high[block, column, None]))
    y, x = rows.start + block[which] * height + row, column[which]
    order = np.lexsort((x, y))
    yx = np.stack([y[order], x[order]], axis=1)
    return yx[~known[yx[:, 0], yx[:, 1]]]


def _is_outlier(total, known, yx, level, threshold_sigma):
    """The fine decision for candidates ``yx`` (n, 2): bool (n,). Few are far from their neighbours' median, and only those are looked at closely."""
    near = _neighbours(total.numpy(), known.numpy(), yx.numpy().astype(np.int32))
    value, centre = total[yx[:, 0], yx[:, 1]], torch.from_numpy(_lower_median(near))
    out = ((level.stabilise(value) - level.stabilise(centre)).abs() > threshold_sigma) | level.is_dead(value, centre)
    rows = out.nonzero().flatten()
    if not len(rows):
        return out
    near, value, centre = torch.from_numpy(near[rows.numpy()]), value[rows], centre[rows]
    own_sd = 1.4826 * (near - centre[:, None]).abs().nanmedian(dim=1).values
    low, high = near.nanquantile(torch.tensor([EDGE_QUANTILE, 1 - EDGE_QUANTILE]), dim=1)
    beyond = (level.stabilise(value) - level.stabilise(torch.where(value > centre, high, low))) * (value - centre).sign()
    out[rows] = (beyond > BEYOND_FRACTION * threshold_sigma) & ((value - centre).abs() > SPREAD_FRACTION * threshold_sigma * own_sd)
    return out


def _neighbours(total, known, yx):
    """Values (n, 80) around pixels ``yx`` (n, 2) int32, NaN outside the frame and where pixels are known to be bad."""
    (height, width), reach = total.shape, np.arange(-WINDOW_RADIUS_PX, WINDOW_RADIUS_PX + 1, dtype=np.int32)
    dy, dx = np.delete(np.stack(np.meshgrid(reach, reach, indexing="ij")).reshape(2, -1), len(reach) ** 2 // 2, axis=1)
    y, x = yx[:, :1] + dy, yx[:, 1:] + dx
    flat = y * width + x
    near = total.take(flat, mode="clip")
    near[(y < 0) | (y >= height) | (x < 0) | (x >= width) | known.take(flat, mode="clip")] = np.nan
    return near


def _lower_median(values):
    """Median of each row (n, k) without its NaN, the lower one of two; sorting is many times faster than looking for it."""
    last = np.maximum(np.count_nonzero(values == values, axis=1) - 1, 0)
    return np.sort(values, axis=1)[np.arange(len(values)), last // 2]       # NaN come last


@dataclass(frozen=True)
class Replacement:
    """For every bad pixel the good pixels nearby, of which one lends its value in each frame.

    A neighbour drawn at random has the local mean plus noise of exactly the frame's local distribution (mean and variance,
    whole numbers for counts), at the cost of one gather.
    """

    target: torch.Tensor     # (m,) int64, flat index of the bad pixels
    sources: torch.Tensor    # (m, k) int64, flat indices of good pixels, nearest first
    n_sources: torch.Tensor  # (m,) int64, how many of them count

    def draw(self, name, frame):
        """Flat index (m,) of the pixel that stands in for each bad one; the same for the same name and frame, everywhere."""
        generator = torch.Generator().manual_seed((zlib.crc32(name.encode("utf-8")) << 20) + frame)
        chance = torch.rand(len(self.target), generator=generator, dtype=torch.float64)
        column = (chance * self.n_sources).to(torch.int64)
        return self.sources.gather(1, column[:, None])[:, 0]


def plan_replacement(bad_yx, shape_yx, n_sources=24, minimum=6):
    """Good neighbours of the bad pixels, in a window that grows until it holds at least ``minimum`` of them.

    Parameters
    ----------
    bad_yx : int64 (m, 2), unique, inside the frame.
    shape_yx : of the frame.
    n_sources : most neighbours kept for a pixel, the nearest.
    minimum : fewest neighbours that will do.

    Returns
    -------
    Replacement

    Raises
    ------
    MovieError
        More than half of the frame is bad.
    """
    height, width = shape_yx
    bad = torch.zeros(shape_yx, dtype=torch.bool)
    yx = torch.as_tensor(np.asarray(bad_yx, dtype=np.int64).reshape(-1, 2))
    if 2 * len(yx) > height * width:
        raise MovieError("%d of %d pixels of the movie are bad, too many to replace: check gain reference and defect file"
                         % (len(yx), height * width))
    bad[yx[:, 0], yx[:, 1]] = True
    sources = torch.zeros((len(yx), n_sources), dtype=torch.int64)
    count = torch.zeros(len(yx), dtype=torch.int64)
    left, radius = torch.arange(len(yx)), 2
    while len(left):
        step = max(1, radius // 16) if radius < max(shape_yx) else 1   # wide windows are thinned, their near part was searched
        offset = _window_offsets(radius, step)
        for part in left.split(max(1, (1 << 22) // len(offset))):
            sources[part], count[part] = _nearest_good(bad, yx[part], offset, n_sources)
        left = left[count[left] < min(minimum, height * width - len(yx))]
        radius *= 2
    return Replacement(yx[:, 0] * width + yx[:, 1], sources, count)


def _window_offsets(radius, step):
    """Offsets (k, 2) in a window, nearest first."""
    reach = torch.arange(-radius, radius + 1, step)
    offset = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2)
    return offset[torch.argsort((offset ** 2).sum(-1), stable=True)]


def _nearest_good(bad, yx, offset, n_sources):
    height, width = bad.shape
    near = yx[:, None] + offset
    inside = (near >= 0).all(-1) & (near[..., 0] < height) & (near[..., 1] < width)
    flat = (near[..., 0].clamp(0, height - 1) * width + near[..., 1].clamp(0, width - 1))
    good = inside & ~bad.view(-1)[flat]
    first = torch.argsort((~good).to(torch.uint8), dim=1, stable=True)[:, :n_sources]
    chosen = flat.gather(1, first)
    padded = torch.zeros((len(yx), n_sources), dtype=torch.int64)
    padded[:, :chosen.shape[1]] = chosen
    return padded, good.sum(1).clamp(max=n_sources)
