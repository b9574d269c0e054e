"""Local refinement by pattern search, by ask and tell: steps along each coordinate, halved when none improves."""
from dataclasses import dataclass
from typing import List

import math


@dataclass
class PatternSearch:
    """Minimise from ``center`` with ``steps`` per coordinate (e.g. natural logarithms of parameters).

    :meth:`ask` gives the points around the centre (to be evaluated together), :meth:`tell` takes their
    scores. A parabola per coordinate through the three points adds one combined point. Ends when all steps are below
    ``smallest`` times their first size, or after ``max_rounds``. Source: Hooke & Jeeves 1961.
    """

    center: List[float]
    steps: List[float]
    score: float
    smallest: float = 0.3
    max_rounds: int = 8
    rounds: int = 0
    shrink: float = 1.0

    @property
    def over(self):
        """Whether the search has ended."""
        return self.shrink < self.smallest or self.rounds >= self.max_rounds

    def ask(self):
        """Points to evaluate: two per coordinate."""
        if self.over:
            return []
        points = []
        for i, step in enumerate(self.steps):
            for sign in (-1.0, 1.0):
                point = list(self.center)
                point[i] += sign * step * self.shrink
                points.append(point)
        return points

    def combined(self, scores):
        """The point that the parabolas along all coordinates propose from the scores of :meth:`ask`; no numbers are infinitely bad."""
        point, scores = list(self.center), [s if math.isfinite(s) else math.inf for s in scores]
        for i, step in enumerate(self.steps):
            low, high, width = scores[2 * i], scores[2 * i + 1], step * self.shrink
            bend = low - 2 * self.score + high
            if math.isfinite(low) and math.isfinite(high) and bend > 0:
                point[i] += max(-width, min(width, 0.5 * (low - high) / bend * width))
            elif min(low, high) < self.score:
                point[i] += width if high < low else -width
        return point

    def tell(self, points, scores):
        """Take evaluated points; move to the best one, or halve the steps. Returns whether the centre moved."""
        self.rounds += 1
        best = min(range(len(scores)), key=lambda i: scores[i] if math.isfinite(scores[i]) else math.inf)
        if scores[best] < self.score:
            self.center, self.score = list(points[best]), scores[best]
            return True
        self.shrink *= 0.5
        return False
