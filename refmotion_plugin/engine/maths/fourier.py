"""Half spectra of square images: grids, cropping, shells and shifts. DC in the corner; the real size always travels along."""
import functools
from dataclasses import dataclass

import torch

from .lanes import lanes, larger

CACHE_BYTES = 1 << 21       # of spectra that are worked on together: about the second-level cache of one core
PREPARED_BYTES = 1 << 27    # of what is prepared for several frames at once on a GPU


@dataclass(frozen=True)
class FourierGrid:
    """Frequencies of the half spectrum of a ``size_px`` square image, of which the low ``kept_px`` square is kept.

    ``kept_px`` even, <= ``size_px``. Spectra on this grid are (..., kept, kept // 2 + 1), as if ``rfft2`` of an image Fourier
    cropped to ``kept_px``; the frequency step is 1 / (size_px * pixel_angstrom) either way.
    """

    size_px: int
    pixel_angstrom: float
    kept_px: int

    def __post_init__(self):
        if self.kept_px % 2 or self.size_px % 2 or not 0 < self.kept_px <= self.size_px:
            raise ValueError("FourierGrid needs even sizes with 0 < kept <= size, got kept %d, size %d" % (self.kept_px, self.size_px))

    @property
    def shape(self):
        """(height, width) of spectra on this grid."""
        return self.kept_px, self.kept_px // 2 + 1

    @property
    def step_per_angstrom(self):
        """Distance of neighbouring frequencies, 1/A."""
        return 1.0 / (self.size_px * self.pixel_angstrom)

    @property
    def n_shells(self):
        """Number of shells of width one step, 0 .. kept // 2."""
        return self.kept_px // 2 + 1

    def index_yx(self, device=None, dtype=torch.float32):
        """Signed integer frequencies: ``(kept,)`` for y, ``(kept // 2 + 1,)`` for x. Not to be written to."""
        return _index_yx(self.kept_px, str(device or "cpu"), dtype)

    def frequency_yx_per_angstrom(self, device=None, dtype=torch.float32):
        """Frequencies (kept, kept // 2 + 1, 2) in (y, x) order, 1/A."""
        y, x = self.index_yx(device, torch.float64)
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)  # (h, w, yx)
        return (grid * self.step_per_angstrom).to(dtype)

    def frequency_per_angstrom(self, device=None, dtype=torch.float32):
        """|k| (kept, kept // 2 + 1), 1/A."""
        return self.frequency_yx_per_angstrom(device, torch.float64).norm(dim=-1).to(dtype)

    def shell_frequency_per_angstrom(self, device=None, dtype=torch.float32):
        """Frequency of each shell (shell,), 1/A."""
        return (torch.arange(self.n_shells, device=device, dtype=torch.float64) * self.step_per_angstrom).to(dtype)

    def shell_index(self, device=None):
        """Nearest shell of each component, int64 (kept, kept // 2 + 1); corners beyond kept // 2 get ``n_shells``. Not to be written to."""
        return _shell_index(self.kept_px, str(device or "cpu"))

    def multiplicity(self, device=None, dtype=torch.float32):
        """How often each column of the half spectrum occurs in the full plane (kept // 2 + 1,): 1 for kx = 0, else 2.

        The last column of a cropped spectrum stands for both signs only when kept < size; bands end below it. Not to be written to.
        """
        return _multiplicity(self.kept_px, self.kept_px == self.size_px, str(device or "cpu"), dtype)


# asked for several times for every frame: on a GPU each operation on so few numbers costs as much as one on a whole frame's patches

@functools.lru_cache(maxsize=64)
def _index_yx(kept_px, device, dtype):
    """See :meth:`FourierGrid.index_yx`."""
    y = torch.fft.fftfreq(kept_px, d=1.0 / kept_px, device=device, dtype=torch.float64).round()
    x = torch.arange(kept_px // 2 + 1, device=device, dtype=torch.float64)
    return y.to(dtype), x.to(dtype)


@functools.lru_cache(maxsize=64)
def _multiplicity(kept_px, whole, device, dtype):
    """See :meth:`FourierGrid.multiplicity`."""
    m = torch.full((kept_px // 2 + 1,), 2.0, device=device, dtype=dtype)
    m[0] = 1.0
    if whole:
        m[-1] = 1.0
    return m


@functools.lru_cache(maxsize=16)
def _shell_index(kept_px, device):
    """See :meth:`FourierGrid.shell_index`."""
    y, x = FourierGrid(kept_px, 1.0, kept_px).index_yx(device, torch.float64)
    return torch.hypot(y[:, None], x).round().long().clamp(max=kept_px // 2 + 1)


def cache_parts(count, spectrum_bytes, device):
    """Slices of ``count`` spectra that are worked on together: few enough to stay in the cache of one core, and enough of them for the
    threads that share them (:func:`..maths.lanes.each_part`); all at once on other devices.

    Sums made part by part depend on ``count``, the size of a spectrum and the number of threads, never on how much memory there is.
    """
    step = max(2, min(larger(CACHE_BYTES, lanes()) // spectrum_bytes, -(-count // lanes()))) if torch.device(device).type == "cpu" else max(count, 1)
    return [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]


class ByFrame:
    """What is prepared for several frames together: one by one on a CPU, many on other devices, where operations on few numbers cost as
    much as those on many. ``make(slice)`` -> a sequence, an item per frame of that slice; ``frame_bytes``: what one takes."""

    def __init__(self, make, frames, frame_bytes, device):
        self.make, self.frames = make, frames
        self.step = 1 if torch.device(device).type == "cpu" else max(1, min(frames, PREPARED_BYTES // max(1, frame_bytes)))
        self.known = None, ()       # number of a block and its items, together: another thread may ask for another block meanwhile

    def __call__(self, f):
        """The item of frame ``f``; frames of one block are asked for one after the other."""
        number, items = self.known
        if f // self.step != number:
            number = f // self.step
            items = self.make(slice(number * self.step, min((number + 1) * self.step, self.frames)))
            self.known = number, items
        return items[f % self.step]


def crop_half_spectrum(dft, kept_px):
    """Low frequencies of a square half spectrum.

    ``dft`` (..., s, s // 2 + 1) of an even s; returns (..., kept, kept // 2 + 1), contiguous, or ``dft`` itself where all is kept.
    Values are not rescaled.
    """
    return dft if dft.shape[-2] == kept_px else _crop_rows(dft[..., :kept_px // 2 + 1], kept_px)


def low_half_spectrum(images, kept_px):
    """``crop_half_spectrum(rfft2(images), kept_px)`` of real square images; columns that are not kept are left out where most are not.

    Where more than half are kept, both axes at once take less time: columns alone are copied to transform them, and copied back.
    """
    if 2 * kept_px > images.shape[-1]:
        return crop_half_spectrum(as_of_several(torch.fft.rfft2, images), kept_px)
    columns = torch.fft.rfft(images)[..., :kept_px // 2 + 1]
    return _crop_rows(as_of_several(functools.partial(torch.fft.fft, dim=-2), columns), kept_px)


def as_of_several(transform, values):
    """``transform(values)`` of a batch. On a CPU a single one goes twice: MKL rounds one transform otherwise than several on Intel's
    processors, and results would depend on how many memory allows at a time."""
    if len(values) != 1 or values.is_cuda:
        return transform(values)
    return transform(torch.cat([values, values]))[:1]


def _crop_rows(columns, kept_px):
    half = kept_px // 2
    out = torch.empty(columns.shape[:-2] + (kept_px, half + 1), dtype=columns.dtype, device=columns.device)
    out[..., :half, :] = columns[..., :half, :]
    out[..., half:, :] = columns[..., columns.shape[-2] - half:, :]
    return out


def shift_phase(shift_yx_px, size_px, kept_px, device=None):
    """Separable phase factors that move images by +shift: complex64 (..., kept) for y and (..., kept // 2 + 1) for x.

    ``shift_yx_px`` (..., 2) in px of the full-size image. Multiply a half spectrum by ``y[..., :, None] * x[..., None, :]``.
    """
    turns = shift_yx_px.to(torch.float64) * (-1.0 / size_px)
    return tuple(_turned(turns[..., i:i + 1] * index) for i, index in enumerate(_index_yx(kept_px, str(device or "cpu"), torch.float64)))


def _turned(turns):
    """exp(2 pi i turns), complex64: whole turns are left out in float64, then float32 is exact enough, and its cosine takes less time."""
    turns -= turns.round()
    return torch.polar(_one(str(turns.device)), (turns * (2.0 * torch.pi)).to(torch.float32))


@functools.lru_cache(maxsize=16)
def _one(device):
    return torch.ones((), device=device)


def frame_turns(shift_yx_px, grid: FourierGrid):
    """:func:`shift_phase` of each frame's shifts (n, F, 2), as :class:`ByFrame`: ``turns(f)`` -> complex64 (n, kept) and (n, kept // 2 + 1)."""
    def make(block):
        y, x = shift_phase(shift_yx_px[:, block], grid.size_px, grid.kept_px, shift_yx_px.device)
        return list(zip(y.unbind(1), x.unbind(1)))
    return ByFrame(make, shift_yx_px.shape[1], 40 * shift_yx_px[:, 0].numel() // 2 * sum(grid.shape), shift_yx_px.device)      # and their angles


def sum_over_shells(values, grid):
    """Sum of real ``values`` (..., kept, kept // 2 + 1) over the full plane in each shell: float64 (..., n_shells)."""
    flat = (values * grid.multiplicity(values.device, torch.float64)).flatten(-2)
    index = grid.shell_index(values.device).flatten().expand(flat.shape)
    out = torch.zeros(flat.shape[:-1] + (grid.n_shells + 1,), dtype=torch.float64, device=values.device)
    return out.scatter_add_(-1, index, flat)[..., :-1]


def total_power(spectra):
    """Sum of |F|^2 over the first axis: complex (n, ..., w) -> float32 (..., w)."""
    parts = as_real(spectra)
    return sum_pairs((parts * parts).sum(0)).view(spectra.shape[1:])


def as_real(spectra):
    """The same memory as real numbers, (n, 2 * all others): products with real numbers are cheaper than complex ones."""
    return torch.view_as_real(spectra).flatten(1)


def sum_pairs(values):
    """Sums of neighbours, (..., 2 n) -> (..., n): real and imaginary parts of :func:`as_real` joined, by one addition: a sum over an axis of two is slow."""
    pairs = values.unflatten(-1, (-1, 2))
    return pairs[..., 0] + pairs[..., 1]


def shell_counts(grid, device=None):
    """Number of components of the full plane in each shell: float64 (n_shells,)."""
    return sum_over_shells(torch.ones(grid.shape, device=device), grid)


def spread_from_shells(shell_values, grid):
    """Values per shell (..., n_shells) at each component (..., kept, kept // 2 + 1); 0 beyond the last shell."""
    padded = torch.nn.functional.pad(shell_values, (0, 1))
    return padded[..., grid.shell_index(shell_values.device)]


def good_fft_size(minimum, even=True):
    """Smallest even size >= minimum whose only prime factors are 2, 3, 5 and 7."""
    size = int(minimum) + (int(minimum) % 2 if even else 0)
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2 if even else 1
