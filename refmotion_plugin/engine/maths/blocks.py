"""Frames that are worked on together: one by one on a CPU; several on other devices, where an operation on one costs as much as on many."""
import torch


class OneFrame:
    """Spectra of a single frame as those of a block of one: ``block[rows]`` -> (1, p, h, w)."""

    def __init__(self, spectrum):
        self._spectrum, self.fresh = spectrum, getattr(spectrum, "fresh", False)

    def __getitem__(self, rows):
        return self._spectrum[rows][None]


def frame_blocks(spectrum_of, frames):
    """Yields (list of b frames, their spectra): ``spectra[rows]`` -> complex64 (b, p, h, w).

    ``spectrum_of(f)[rows]`` -> (p, h, w) of one frame; if it can give several at once, it says so by a method ``blocks(frames)``.
    """
    if hasattr(spectrum_of, "blocks"):
        yield from spectrum_of.blocks(list(frames))
    else:
        for f in frames:
            yield [f], OneFrame(spectrum_of(f))


def multiplied(spectra, values, factor):
    """``values``, which ``spectra[rows]`` gave, times ``factor``: in their own memory where that is made anew for each who asks (``fresh``)."""
    return values.mul_(factor) if spectra.fresh else values * factor


def stacked(items):
    """Tensors of b frames as one (b, ...), of a single frame without a copy."""
    return items[0][None] if len(items) == 1 else torch.stack(items)
