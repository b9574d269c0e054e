"""How much a resolution changed between two pairs of half-maps of the same particles in the same poses, and how sure that is.

Both pairs hold nearly the same noise, so errors of either resolution say nothing of the change. Its error comes from a jackknife
over directions in Fourier space: components in different directions have independent noise, and both pairs lose the same ones. The sectors
are whole under the point group, whose copies are not independent. A change that differs between directions counts as error too: on the safe side.
"""
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from .fsc import resolution_at, smooth_fsc
from .resolution import THRESHOLD

SECTORS = 16
ROWS, COLUMNS = 128, 256       # of the table of directions: equal steps of cos(angle to z) and of the angle about it
KNOWN = (THRESHOLD, 0.95)          # FSC between which the signal-to-noise ratio of a shell can be told


@dataclass(frozen=True)
class FscChange:
    """FSCs (shell,) before and after; resolutions in A where they fall below 0.143 (None if they do not), and the standard error of the change.

    ``snr_gain``: what the signal-to-noise ratio (power) rose by, 0.1 = 10 %, in the shells where both FSCs tell it, with its standard error: it is seen
    by all these shells, the resolution by few.
    """

    before: np.ndarray
    after: np.ndarray
    before_angstrom: float
    after_angstrom: float
    error_angstrom: float
    snr_gain: float = None
    snr_error: float = None


def fsc_change(before, after, extent_angstrom, operators):
    """:class:`FscChange` of two pairs of masked cubes; ``extent_angstrom`` of the box, ``operators`` (s, 3, 3) of the point group."""
    sums = [sector_sums(*pair, operators) for pair in (before, after)]
    curves = [_curve(s.sum(1)) for s in sums]
    resolutions = [_resolution(c, extent_angstrom) for c in curves]
    error = None
    if None not in resolutions:
        without = [[extent_angstrom / _crossing_near(_curve(s.sum(1) - s[:, j]), extent_angstrom / r) for j in range(SECTORS)]
                   for s, r in zip(sums, resolutions)]
        change = np.array(without[1]) - np.array(without[0])
        error = jackknife_error(resolutions[1] - resolutions[0], change, sums[0][3].sum(-1).numpy())
    gain, gain_error = _snr_gain(sums, curves)
    return FscChange(curves[0].numpy(), curves[1].numpy(), resolutions[0], resolutions[1], error, gain, gain_error)


def _snr_gain(sums, curves):
    """Gain of FSC / (1 - FSC), smoothed over shells, in the mean of its logarithm over the components of the shells where it is known."""
    known = torch.stack([(c > KNOWN[0]) & (c < KNOWN[1]) for c in map(smooth_fsc, curves)]).all(0)
    known[0] = False
    if not bool(known.any()):
        return None, None
    weight = sums[0][3].sum(0) * known

    def gain(pair):
        ratio = [s / (1.0 - s) for s in (smooth_fsc(c).clamp(0.01, 0.99) for c in pair)]
        return float(((ratio[1] / ratio[0]).log() * weight).sum() / weight.sum())

    value = gain(curves)
    without = np.array([gain([_curve(s.sum(1) - s[:, j]) for s in sums]) for j in range(SECTORS)])
    error = jackknife_error(value, without, sums[0][3].sum(-1).numpy())
    return float(np.expm1(value)), None if error is None else float(np.exp(value) * error)


def single_fsc(pair, extent_angstrom):
    """FSC (shell,) of one pair of masked cubes, and its resolution in A or None."""
    curve = _curve(sector_sums(*pair, np.eye(3)[None]).sum(1))
    return curve.numpy(), _resolution(curve, extent_angstrom)


def jackknife_error(value, without, size):
    """Standard error of ``value`` from those ``without`` (group,) each group of components, of different ``size`` (group,).

    Source: Busing, Meijer & van der Leeden 1999, delete-m jackknife for unequal m.
    """
    present = size > 0
    without, share = without[present], size[present] / size.sum()
    h, groups = 1.0 / share, len(share)
    if groups < 2:
        return None
    mean = groups * value - ((1.0 - share) * without).sum()
    pseudo = h * value - (h - 1.0) * without
    return float(np.sqrt((((pseudo - mean) ** 2) / (h - 1.0)).mean()))


def sector_sums(half1, half2, operators):
    """Sums of cross, power 1, power 2 and number of components: float64 (4, sector, shell) for shells 0 .. box // 2."""
    box = half1.shape[-1]
    shells, table = box // 2 + 1, direction_table(operators.astype(np.float64).tobytes())
    first, second = torch.fft.rfftn(half1), torch.fft.rfftn(half2)
    y, x = torch.fft.fftfreq(box, 1.0 / box), torch.arange(shells, dtype=torch.float32)
    about = torch.atan2(y[:, None], x[None, :])                                           # -pi/2 .. pi/2, since x >= 0
    column = ((about / torch.pi + 0.5) * COLUMNS).long().clamp(0, COLUMNS - 1)
    sums = torch.zeros(4, SECTORS * (shells + 1), dtype=torch.float64)
    for z in range(box):
        radius = (y[z] ** 2 + y[:, None] ** 2 + x ** 2).sqrt()
        row = ((y[z] / radius.clamp(min=1e-6) + 1.0) * (ROWS / 2)).long().clamp(0, ROWS - 1)
        place = (table[row, column] * (shells + 1) + radius.round().long().clamp(max=shells)).flatten()
        a, b = first[z], second[z]
        for i, value in enumerate(((a * b.conj()).real, a.abs() ** 2, b.abs() ** 2, torch.ones_like(a.real))):
            value[:, 0] *= 0.5                                                             # both mates of that plane are there
            sums[i] += torch.bincount(place, value.flatten().double(), minlength=sums.shape[1])
    return sums.view(4, SECTORS, shells + 1)[..., :shells]


@lru_cache(maxsize=4)
def direction_table(operators):
    """Sector of each direction, int64 (row, column): the nearest of centres that lie far from each other and from each other's copies.

    ``operators``: bytes of the float64 (s, 3, 3) matrices.
    """
    turns = np.frombuffer(operators).reshape(-1, 3, 3)
    z = (np.arange(ROWS) + 0.5) / (ROWS / 2) - 1.0
    angle = ((np.arange(COLUMNS) + 0.5) / COLUMNS - 0.5) * np.pi
    flat = np.sqrt(1.0 - z * z)[:, None]
    directions = np.stack([flat * np.cos(angle), flat * np.sin(angle), np.broadcast_to(z[:, None], flat.shape[:1] + angle.shape)], -1).reshape(-1, 3)
    near, sector = np.full(len(directions), -1.0), np.zeros(len(directions), np.int64)
    for number in range(SECTORS):
        centre = directions[np.argmin(near)] if number else directions[len(directions) // 3]
        closeness = np.abs(directions @ (turns @ centre).T).max(1)
        sector[closeness > near] = number
        near = np.maximum(near, closeness)
    return torch.from_numpy(sector.reshape(ROWS, COLUMNS))


def _curve(sums):
    power = (sums[1] * sums[2]).sqrt()
    return torch.where(power > 0, sums[0] / power.clamp(min=1e-300), torch.zeros_like(power))


def _crossing_near(curve, shell):
    """Where the curve falls below the threshold, as a real number; of several places the one nearest to ``shell``."""
    high = curve[:-1] >= THRESHOLD
    places = torch.nonzero(high & (curve[1:] < THRESHOLD)).flatten()
    if not len(places):
        return float(len(curve) - 1)
    exact = places + (curve[places] - THRESHOLD) / (curve[places] - curve[places + 1])
    return float(exact[(exact - shell).abs().argmin()].clamp(min=1.0))


def _resolution(curve, extent_angstrom):
    return extent_angstrom / resolution_at(curve, THRESHOLD) if bool((curve[1:] < THRESHOLD).any()) else None
