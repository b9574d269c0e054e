"""Search along rays in cylindrical coordinates, by ask and tell.

Two strengths are the components of a vector (r cos theta, r sin theta), z is a third parameter; rays stand at fixed (theta, z) and every
iteration moves each live ray outward in r by a fixed factor. A ray retires when its activity (how much still moves) has
fallen below a threshold or r has reached its limit: beyond, nothing changes any more.
"""
from dataclasses import dataclass, field
from typing import Dict, List, Tuple

import math


@dataclass(frozen=True)
class Ray:
    """Direction ``theta`` (radians, 0 .. pi / 2) and height ``z`` of one ray."""

    theta: float
    z: float


@dataclass(frozen=True)
class Trial:
    """One evaluated point: lower ``score`` is better; ``activity`` >= 0."""

    iteration: int
    ray: int
    r: float
    score: float
    activity: float


@dataclass
class RaySearch:
    """State of a search; :meth:`ask` gives points, :meth:`tell` takes their values.

    ``first_r`` and ``factor``: r of iteration i is ``first_r * factor ** i``; ``last_r`` the largest r; ``still`` the activity at
    which a ray retires.
    """

    rays: List[Ray]
    first_r: float
    factor: float
    last_r: float
    still: float
    trials: List[Trial] = field(default_factory=list)
    retired: Dict[int, str] = field(default_factory=dict)
    iteration: int = 0

    def __post_init__(self):
        if not self.rays or not self.first_r > 0 or not self.factor > 1 or not self.last_r >= self.first_r:
            raise ValueError("a ray search needs rays, first_r > 0, factor > 1 and last_r >= first_r")

    @property
    def r(self):
        """Radius of the present iteration."""
        return self.first_r * self.factor ** self.iteration

    def ask(self) -> List[Tuple[int, float]]:
        """(ray index, r) of every live ray; empty when the search is over."""
        return [(i, self.r) for i in range(len(self.rays)) if i not in self.retired]

    def tell(self, values):
        """``values`` (score, activity) of the points asked for, in their order. Returns the new trials."""
        asked = self.ask()
        if len(values) != len(asked):
            raise ValueError("%d values for %d points" % (len(values), len(asked)))
        fresh = [Trial(self.iteration, ray, r, float(score), float(activity)) for (ray, r), (score, activity) in zip(asked, values)]
        for trial in fresh:
            if not math.isfinite(trial.score):
                self.retired[trial.ray] = "score is not finite"
            elif trial.activity < self.still:
                self.retired[trial.ray] = "nothing moves any more"
            elif self.r * self.factor > self.last_r * (1 + 1e-9):
                self.retired[trial.ray] = "maximum strength"
        self.trials += fresh
        self.iteration += 1
        return fresh

    @property
    def best(self):
        """Trial of the lowest finite score. Raises ValueError if there is none."""
        usable = [t for t in self.trials if math.isfinite(t.score)]
        if not usable:
            raise ValueError("no point of the search has a finite score")
        return min(usable, key=lambda t: t.score)

    @property
    def last_activity(self):
        """Largest activity of the rays' outermost points: near zero if they went far enough."""
        ends = {t.ray: t.activity for t in self.trials}
        return max(ends.values())


def spread_rays(n_theta, heights):
    """Rays at ``n_theta`` directions, evenly between the axes without touching them, at each height."""
    return [Ray((i + 0.5) / n_theta * math.pi / 2, z) for z in heights for i in range(n_theta)]
