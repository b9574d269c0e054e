"""Fourier shell correlation of two half-maps: what is known of the reference's noise."""
import torch

_SMOOTHING_SHELLS = 5
_LEAST, _MOST = 0.01, 0.05   # the FSC has vanished below its own noise, which is taken to lie between these


def half_map_fsc(half1, half2):
    """FSC of two real cubes.

    Parameters: float32 (box, box, box) each. Returns float64 (shell,) for shells 0 .. box // 2 and the number of independent
    components per shell (shell,). Source: Harauz & van Heel 1986.
    """
    box = half1.shape[-1]
    n_shells = box // 2 + 1
    first, second = torch.fft.rfftn(half1), torch.fft.rfftn(half2)
    frequency = torch.fft.fftfreq(box, 1.0 / box)
    x = torch.arange(first.shape[-1], dtype=torch.float32)
    sums = torch.zeros((4, n_shells + 1), dtype=torch.float64)
    twice = torch.full((len(x),), 2.0)
    twice[0] = 1.0
    if box % 2 == 0:
        twice[-1] = 1.0
    for z in range(box):
        radius = (frequency[z] ** 2 + frequency[:, None] ** 2 + x ** 2).sqrt().round().long().clamp(max=n_shells).flatten()
        a, b = first[z], second[z]
        for row, value in enumerate(((a * b.conj()).real, a.abs() ** 2, b.abs() ** 2, torch.ones_like(a.real))):
            sums[row] += torch.bincount(radius, (value * twice).flatten().double(), minlength=n_shells + 1)
    cross, power1, power2, count = sums[:, :n_shells]
    power = (power1 * power2).sqrt()
    return torch.where(power > 0, cross / power.clamp(min=1e-300), torch.zeros_like(power)), count / 2.0


def fsc_limit(raw, counts, mask_fraction):
    """Smoothed FSC, zero from its first crossing of nought on, and the last shell before that.

    The crossing is where the smoothed curve falls below its own noise ``1 / sqrt(n)``, n = independent components in the
    smoothing window times ``mask_fraction`` (a mask correlates neighbours), kept between 0.01 and 0.05.
    """
    smooth = smooth_fsc(raw)
    independent = (smooth_fsc(counts) * _SMOOTHING_SHELLS * mask_fraction).clamp(min=1.0)
    threshold = independent.rsqrt().clamp(_LEAST, _MOST)
    below = torch.nonzero(smooth[1:] < threshold[1:]).flatten()
    last = len(raw) - 1 if len(below) == 0 else int(below[0])
    kept = torch.where(torch.arange(len(raw)) <= last, smooth.clamp(0.0, 1.0), torch.zeros_like(smooth))
    return kept, last


def smooth_fsc(curve):
    """Triangular moving average over ``_SMOOTHING_SHELLS`` shells that shrinks at the ends."""
    half = _SMOOTHING_SHELLS // 2
    kernel = 1.0 + half - torch.arange(-half, half + 1, dtype=torch.float64).abs()

    def convolve(values):
        return torch.nn.functional.conv1d(values.double()[None, None], kernel[None, None], padding=half)[0, 0]

    return convolve(curve) / convolve(torch.ones_like(curve))


def resolution_at(raw, threshold):
    """Shell, as a real number, where the FSC first falls below ``threshold``; the last shell if it never does."""
    below = torch.nonzero(raw[1:] < threshold).flatten()
    if len(below) == 0:
        return float(len(raw) - 1)
    shell = int(below[0]) + 1
    high, low = float(raw[shell - 1]), float(raw[shell])
    return max(1.0, shell - 1 + (high - threshold) / max(high - low, 1e-12))
