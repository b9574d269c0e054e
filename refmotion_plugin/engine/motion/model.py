"""What the patches of one movie are expected to look like: amplitude, damage, blur and noise, per shell."""
import functools
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch

from ..maths.blocks import stacked
from ..maths.fourier import ByFrame, FourierGrid, as_real, spread_from_shells, sum_over_shells, sum_pairs

NODES_OF_TURNS = ((0.4, 4), (1.0, 6), (1.8, 8), (2.6, 10))       # longest way in cycles, nodes that are exact to 1e-6 so far
MOST_NODES = 14                                                  # so far up to 4 cycles


@dataclass(frozen=True)
class SignalModel:
    """Y_pf(k) = S(k) D_f(k) sinc(k . delta_pf) A_p(k) exp(-2 pi i k d) + noise of power sigma^2(k).

    ``prediction`` complex64 (P, h, w): A_p; ``amplitude`` (shell,): S, 0 outside the band; ``damage`` (F, shell): D_f;
    ``noise`` (shell,): sigma^2; ``blur_yx_angstrom`` (P, F, 2) motion inside each frame or None; ``shared_blur_yx_angstrom`` (F, 2)
    instead, if it is taken to be the same for all particles: then it costs nothing, being part of the frame's filter.
    ``power`` (P, shell) of the prediction, :func:`power_per_shell`, if it is known: models of other blurs share it.
    """

    grid: FourierGrid
    prediction: torch.Tensor
    amplitude: torch.Tensor
    damage: torch.Tensor
    noise: torch.Tensor
    blur_yx_angstrom: Optional[torch.Tensor] = None
    shared_blur_yx_angstrom: Optional[torch.Tensor] = None
    power: Optional[torch.Tensor] = None

    def frame_filter(self, frame):
        """S D_f / sigma^2 on the grid times the multiplicity of the half spectrum's columns and the shared blur: float32 (h, w)."""
        return self._filters(frame)

    def frame_filters(self, frames):
        """Those of several frames, (b, h, w)."""
        return stacked([self.frame_filter(f) for f in frames])

    @functools.cached_property
    def _filters(self):
        def make(block):
            shells = (self.amplitude * self.damage[block] / self.noise).to(torch.float32)
            plain = spread_from_shells(shells, self.grid) * self.grid.multiplicity(shells.device)
            blur = self.shared_blur_yx_angstrom
            return plain if blur is None else plain * self._sinc(blur[block], max(self._longest[block]))
        return ByFrame(make, len(self.damage), 8 * self.grid.shape[0] * self.grid.shape[1], self.damage.device)

    def blur_factor(self, frame, part=slice(None)):
        """sinc(k . delta) of one frame and some particles, float32 (p, h, w); None without blur."""
        return None if self.blur_yx_angstrom is None else self._sinc(self.blur_yx_angstrom[part, frame], self._longest[frame])

    def blur_factors(self, frames, part=slice(None)):
        """Those of several frames, (b, p, h, w), or None."""
        if self.blur_yx_angstrom is None or len(frames) == 1:
            factor = self.blur_factor(frames[0], part)
            return None if factor is None else factor[None]
        delta = torch.stack([self.blur_yx_angstrom[part, f] for f in frames])
        return self._sinc(delta.flatten(0, 1), max(self._longest[f] for f in frames)).unflatten(0, delta.shape[:2])

    @functools.cached_property
    def _longest(self):
        """Longest way in each frame, cycles of the grid's last shell; one answer of a GPU for all frames."""
        blur = self.shared_blur_yx_angstrom[None] if self.blur_yx_angstrom is None else self.blur_yx_angstrom
        return (blur.norm(dim=-1).amax(0) * self.grid.step_per_angstrom * self.grid.kept_px / 2).tolist()

    def _sinc(self, delta_yx_angstrom, longest):
        """sinc(k . delta), (p, 2) -> float32 (p, h, w); no way is longer than ``longest`` cycles.

        The mean of cos(2 pi k . x) over the way, at nodes of Gauss and Legendre: each cosine is a sum of two products of a row and a
        column, so that all of it is one matrix product per particle, twice as fast as the sine. Exact to 1e-6 up to 4 cycles.
        """
        delta = delta_yx_angstrom.to(torch.float32)
        ky, kx = self.grid.index_yx(delta.device)
        node, weight = _half_of_nodes(_enough_nodes(longest), str(delta.device))
        turn = torch.pi * self.grid.step_per_angstrom * node
        angle_y = delta[:, :1, None] * ky[:, None] * turn
        angle_x = delta[:, 1:, None] * kx[:, None] * turn
        rows = torch.cat([angle_y.cos() * weight, angle_y.sin() * -weight], dim=-1)
        columns = torch.cat([angle_x.cos(), angle_x.sin()], dim=-1)
        return torch.bmm(rows, columns.transpose(1, 2))

    def curvature(self):
        """Expected (Fisher) curvature of the correlation per axis, 1/A^2: float32 (P, F).

        Sum over the plane of |S D A|^2 / sigma^2 (2 pi k)^2 / 2, with the mean of sinc^2 over directions for the blur.
        """
        power = power_per_shell(self.prediction, self.grid) if self.power is None else self.power
        k = self.grid.shell_frequency_per_angstrom(power.device, torch.float64)
        per_shell = (self.amplitude * self.damage) ** 2 / self.noise * (2 * torch.pi * k) ** 2 / 2   # (F, shell)
        blur = self.blur_yx_angstrom if self.blur_yx_angstrom is not None else self.shared_blur_yx_angstrom
        if blur is None:
            return (power @ per_shell.T).to(torch.float32)
        length = blur.to(torch.float64).norm(dim=-1).expand(len(power), -1)
        kept = torch.sinc(length[..., None] * k / 2 ** 0.5) ** 2                                    # (P, F, shell)
        return torch.einsum("ps,fs,pfs->pf", power, per_shell, kept).to(torch.float32)


def power_per_shell(prediction, grid):
    """Sum of |A|^2 over the full plane in each shell: complex64 (P, h, w) -> float64 (P, shell)."""
    parts = as_real(prediction)
    return sum_over_shells(sum_pairs(parts * parts).unflatten(1, grid.shape), grid)


def _enough_nodes(turns):
    return next((nodes for most, nodes in NODES_OF_TURNS if turns <= most), MOST_NODES)


@functools.lru_cache(maxsize=32)
def _half_of_nodes(nodes, device):
    """Nodes and weights of the positive half, since the cosine is even: float32."""
    return tuple(torch.tensor(values[nodes // 2:], dtype=torch.float32, device=device) for values in np.polynomial.legendre.leggauss(nodes))


def motion_inside_frames(displacement_yx_angstrom):
    """Motion during each frame from mid-frame positions: (P, F, 2) -> (P, F, 2), A.

    Half the distance between the neighbours; the first frame is extrapolated linearly, since motion is fastest there.
    """
    d = displacement_yx_angstrom
    if d.shape[1] == 1:
        return torch.zeros_like(d)
    velocity = d[:, 1:] - d[:, :-1]
    first = 1.5 * velocity[:, :1] - 0.5 * velocity[:, 1:2] if d.shape[1] > 2 else velocity
    return torch.cat([first, 0.5 * (velocity[:, 1:] + velocity[:, :-1]), velocity[:, -1:]], dim=1)

