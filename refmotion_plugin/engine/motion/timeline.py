"""What belongs to a movie's frames whatever the hyperparameters, and to hyperparameters whatever the movie: once, ready on the device."""
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Optional

import torch

UNKNOWN_SIGMA = 1e6         # A per e/A^2: a course of which nothing is known


class Columns(NamedTuple):
    """What the formulas need of b hyperparameter sets, each (b, 1) float64: precisions of velocity and acceleration, early factor beta and
    -1 / tau, variances of the offset, of the jitter, of the part of it that is followed and of that which is left out, of the
    shift and of the course's acceleration."""

    velocity: torch.Tensor
    acceleration: torch.Tensor
    early_factor: torch.Tensor
    early_decay: torch.Tensor
    offset: torch.Tensor
    jitter: torch.Tensor
    followed: torch.Tensor
    left_out: torch.Tensor
    shift: torch.Tensor
    common: torch.Tensor

    @staticmethod
    def of(hypers, device):
        """Sent to the device at once and without a wait."""
        rows = [(h.velocity_sigma ** -2, h.acceleration_sigma ** -2, h.early_factor, -1.0 / h.early_dose_e_per_A2, h.offset_angstrom ** 2,
                 h.jitter_angstrom ** 2, h.jitter_angstrom ** 2 * h.jitter_followed, h.jitter_angstrom ** 2 * (not h.jitter_followed),
                 h.global_angstrom ** 2, (h.common_sigma or UNKNOWN_SIGMA) ** 2) for h in hypers]
        table = torch.tensor(rows, dtype=torch.float64).T.contiguous()
        return Columns(*table.to(device, non_blocking=True)[..., None])


@dataclass(frozen=True)
class Timeline:
    """The frames of a movie: ``dose_e_per_A2`` (F,) at mid-frame and ``course_yx_angstrom`` (F, 2), the input's rigid motion,
    none: unknown; float64.

    A velocity belongs to the dose between its two frames and extends from one to the other; an acceleration to that of its middle frame
    and extends half-way from neighbour to neighbour.
    """

    dose_e_per_A2: torch.Tensor
    course_yx_angstrom: Optional[torch.Tensor] = None

    @cached_property
    def doses(self):
        """Doses (2 F - 3,) of velocities, then of accelerations."""
        dose = self.dose_e_per_A2
        return torch.cat([0.5 * (dose[1:] + dose[:-1]), dose[1:-1]])

    @cached_property
    def spans(self):
        """Doses (2 F - 3,) that velocities, then accelerations extend over."""
        step = torch.diff(self.dose_e_per_A2)
        return torch.cat([step, 0.5 * (step[1:] + step[:-1])])

    @cached_property
    def eye(self):
        """Unit matrix (F, F)."""
        return torch.eye(len(self.dose_e_per_A2), dtype=torch.float64, device=self.dose_e_per_A2.device)

    @cached_property
    def turns(self):
        """Matrix (F - 2, F - 1): velocities -> accelerations."""
        return torch.diff(self.eye[1:, 1:], dim=0)

    @cached_property
    def positions(self):
        """Matrix (F, F - 1): velocities -> positions of mean zero."""
        summed = torch.ones_like(self.eye)[:, 1:].tril(-1)
        return summed - summed.mean(0)

    @cached_property
    def bends(self):
        """Accelerations (F - 2, F + 2) of a unit shift of each frame and, last, of the course along both axes."""
        second = torch.diff(self.eye, n=2, dim=0)
        return torch.cat([second, second @ self.course_yx_angstrom], dim=1)

    @cached_property
    def bends_product(self):
        """Covariance (F - 2, F - 2) of the accelerations of a white shift."""
        second = self.bends[:, :-2]
        return second @ second.T

    def strengths(self, sets: Columns):
        """Standard deviations (b, 2 F - 3) A of velocities, then of accelerations, where the strength is 1 A per e/A^2."""
        return self.spans * (1.0 + sets.early_factor * torch.exp(self.doses * sets.early_decay))
