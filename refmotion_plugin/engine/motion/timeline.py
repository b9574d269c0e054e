"""What belongs to the frames of a movie whatever the hyperparameters, and to hyperparameter sets whatever the movie: both ready on the device."""
from collections import namedtuple
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import torch

Columns = namedtuple("Columns", "velocity_sigma acceleration_sigma early_factor early_dose_e_per_A2 jitter_angstrom jitter_followed "
                                "global_angstrom offset_angstrom common_sigma")


def columns(hypers, device):
    """The numbers of b hyperparameter sets as one column (b, 1) each, float64, sent at once and without a wait."""
    table = torch.tensor([[getattr(h, name) for h in hypers] for name in Columns._fields], dtype=torch.float64)
    return Columns(*table.to(device, non_blocking=True)[..., None])


@dataclass(frozen=True)
class Timeline:
    """The frames of a movie: ``dose_e_per_A2`` (F,) at mid-frame and ``course_yx_angstrom`` (F, 2), the input's rigid motion (none: unknown), float64.

    A velocity belongs to the dose ``between`` (F - 1,) its two frames, ``step`` (F - 1,) apart; an acceleration to that of its middle
    frame, ``middle`` (F - 2,), half-way ``reach`` (F - 2,) from neighbour to neighbour.
    """

    dose_e_per_A2: torch.Tensor
    course_yx_angstrom: Optional[torch.Tensor] = None

    @property
    def middle(self):
        return self.dose_e_per_A2[1:-1]

    @cached_property
    def between(self):
        return 0.5 * (self.dose_e_per_A2[1:] + self.dose_e_per_A2[:-1])

    @cached_property
    def step(self):
        return torch.diff(self.dose_e_per_A2)

    @cached_property
    def reach(self):
        return 0.5 * (self.step[1:] + self.step[:-1])

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
