"""Do the half-maps belong to the half-sets that the particles say? Each particle's noise went into the half-map made from it.

Along the input motion, along which that map was made, a particle agrees with its own half-map better than with the opposite
one by exactly this noise. Signal cancels in the difference of the maps. With swapped half-maps the sign turns; with half-sets dealt
anew single particles agree far too well with one or the other. Maps made of other particles show nothing. What is far too
well is told by the same particles held against their neighbours' difference of the maps.
"""
from dataclasses import dataclass

import numpy as np
import torch

from ..maths.fourier import as_real, cache_parts, frame_turns, spread_from_shells

CERTAIN = 5.0           # standard deviations
SCATTER = 1.3           # of single particles, against the control, from which half-sets are mixed
SWAPPED = ("half-map 1 and half-map 2 are exchanged: particles of rlnRandomSubset 1 went into half-map 2 (by %.0f standard deviations on %d "
           "particles); give the half-maps the other way round")
MIXED = ("the half-sets are not those of the half-maps: particles went into either half-map whatever their rlnRandomSubset (their agreement "
         "scatters %.1f times as much as by chance, %d particles); give the particles and half-maps of one refinement")


@dataclass(frozen=True)
class HalfSets:
    """Agreement of particles (n,) with the own minus the opposite half-map, and that with a neighbour's (control)."""

    difference: np.ndarray
    control: np.ndarray

    def __add__(self, more):
        return HalfSets(np.append(self.difference, more.difference), np.append(self.control, more.control))

    @property
    def z(self):
        """Of all particles together, in standard deviations of the control; 0 with fewer than two particles."""
        if len(self.control) < 2:
            return 0.0
        return float(self.difference.sum() / max(np.sqrt((self.control ** 2).sum()), 1e-30))

    @property
    def scatter(self):
        """Root mean square of single particles against that of the control; 1 by chance."""
        if len(self.control) < 2:
            return 1.0
        return float(np.sqrt((self.difference ** 2).sum() / max((self.control ** 2).sum(), 1e-30)))

    @property
    def warnings(self):
        """What looks wrong, in sentences."""
        n = max(len(self.difference), 1)
        by_mean = np.sqrt(1.0 + self.z ** 2 / n)            # what agreement that all particles share adds to the scatter
        if self.scatter > by_mean * max(SCATTER, 1.0 + CERTAIN / np.sqrt(n)):
            return (MIXED % (self.scatter, n),)
        return (SWAPPED % (-self.z, n),) if self.z < -CERTAIN else ()


def compare_half_maps(view, noise):
    """:class:`HalfSets` of one movie's particles, along the input motion. ``noise`` (shell,): the movie's noise power.

    A movie with one particle gives nothing: it has no control.
    """
    grid, n = view.grid, len(view.own)
    if n < 2:
        return HalfSets(np.zeros(0), np.zeros(0))
    difference = view.own - view.opposite
    others = difference.roll(1, 0)
    offset_px = view.residual_yx_angstrom / grid.pixel_angstrom
    total = torch.zeros(2, n, dtype=torch.float64, device=difference.device)
    inverse = 1.0 / noise.clamp(min=1e-30)
    inverse[0] = 0.0
    turns, parts = frame_turns(-offset_px, grid), cache_parts(n, difference[0].numel() * 8, difference.device)
    for f in range(offset_px.shape[1]):
        filter_ = spread_from_shells((view.damage[f] * inverse).to(torch.float32), grid) * grid.multiplicity(difference.device)
        spectra, (y_turn, x_turn) = view.spectra(f), turns(f)
        for part in parts:
            aligned = spectra[part] * (filter_ * y_turn[part, :, None]) * x_turn[part, None]
            for i, prediction in enumerate((difference, others)):
                total[i, part] += (as_real(aligned) * as_real(prediction[part])).sum(1)      # Re(a conj b)
    return HalfSets(*total.cpu().numpy())
