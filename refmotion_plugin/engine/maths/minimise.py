"""Batched L-BFGS with a given metric. Knows vectors only; every problem of the batch stops for its own named reason.

Vectors stay on their device. What is decided by numbers, one per problem, is decided on the host: a value is read once per evaluation.
"""
from dataclasses import dataclass
from typing import Callable, List

import numpy as np
import torch

CONVERGED, ITERATION_LIMIT, NO_DESCENT = "converged", "iteration limit", "no descent"
REASONS = (CONVERGED, ITERATION_LIMIT, NO_DESCENT)
ARMIJO = 1e-4
MAX_HALVINGS = 12
LEAST_CURVATURE = 1e-10     # of a pair, in units of the lengths of its step and its change of gradient


@dataclass(frozen=True)
class Minimum:
    """Where each problem ended: ``x`` (b, n), ``value`` (b,), ``iterations`` (b,), ``reason`` per problem."""

    x: torch.Tensor
    value: torch.Tensor
    iterations: torch.Tensor
    reason: List[str]


def minimise(evaluate: Callable, x0, precondition: Callable, max_iterations=100, tolerance=1e-7, memory=8):
    """Minimise b problems at once.

    ``evaluate(x (b, n)) -> (value (b,), gradient (b, n))``; ``precondition(g (b, n)) -> (b, n)`` applies an approximate inverse
    Hessian (linear, symmetric, positive). A problem has converged when the expected decrease, half the squared Newton decrement, is
    below ``tolerance`` times (1 + |value|). Source: Nocedal & Wright 2006, algorithms 7.4 and 3.1.
    """
    now, inverse = _Point.at(x0, evaluate), _InverseHessian(memory)
    alive = np.ones(len(x0), dtype=bool)
    iterations, reason = np.zeros(len(x0), dtype=np.int64), np.full(len(x0), ITERATION_LIMIT, dtype=object)
    for _ in range(max_iterations):
        direction = -inverse.applied(now.x, now.gradient, precondition(now.gradient))
        slope = (direction * now.gradient).sum(-1).cpu().numpy()
        done = alive & (-0.5 * slope <= tolerance * (1.0 + np.abs(now.value)))
        alive, reason[done] = alive & ~done, CONVERGED
        if not alive.any():
            break
        now, moved = _line_search(evaluate, now, direction, slope, alive)
        reason[alive & ~moved] = NO_DESCENT
        alive, iterations = moved, iterations + moved
    return Minimum(now.x, _sent(now.value, x0), _sent(iterations, x0), reason.tolist())


def _sent(array, like):
    """A small array on the device of another tensor, without a wait."""
    return torch.from_numpy(array).to(like.device, non_blocking=True)


@dataclass(frozen=True)
class _Point:
    """Positions ``x`` (b, n) with what was found there: ``gradient`` (b, n) on the device and ``value`` (b,) on the host."""

    x: torch.Tensor
    value: np.ndarray
    gradient: torch.Tensor

    @staticmethod
    def at(x, evaluate):
        value, gradient = evaluate(x)
        return _Point(x, value.cpu().numpy(), gradient)

    def where(self, better, new):
        """This point, for the problems of the mask (b,) the new one."""
        mask = _sent(better[:, None], self.x)
        x, gradient = (torch.where(mask, theirs, ours) for theirs, ours in ((new.x, self.x), (new.gradient, self.gradient)))
        return _Point(x, np.where(better, new.value, self.value), gradient)


def _line_search(evaluate, start, direction, slope, alive):
    """Backtracking with quadratic interpolation; problems that are not alive stay where they are.

    Returns the new :class:`_Point` and the mask of what has moved.
    """
    step, waiting, found = np.ones_like(slope), alive, start
    for _ in range(MAX_HALVINGS):
        whole = (step == 1.0).all()                             # as nearly always: nothing to be sent to the device
        length = 1.0 if whole else _sent(step[:, None], direction)
        trial = _Point.at(start.x + length * direction, evaluate)
        good = waiting & (trial.value <= start.value + ARMIJO * step * slope)
        found = trial if good.all() else found.where(good, trial)
        waiting = waiting & ~good
        if not waiting.any():
            break
        with np.errstate(all="ignore"):
            curvature = 2.0 * (trial.value - start.value - step * slope)
            shorter = np.where(curvature > 0, -slope * step ** 2 / curvature, 0.5 * step)
        step = np.where(waiting, np.clip(shorter, 0.1 * step, 0.5 * step), step)
    return found, alive & ~waiting


class _InverseHessian:
    """L-BFGS in its compact form around a metric H0: H = H0 + W^T M W with the last steps s and gradient changes y in W = (S, H0 Y).

    With R the upper triangle of S Y^T and D its diagonal, M = ((R^-T (D + Y H0 Y^T) R^-1, -R^-T), (-R^-1, 0)). Each pair is scaled so that
    s . y = 1 and D is the identity; a pair without positive curvature is all zeros and does nothing. H0 is linear: H0 y comes
    from gradients to which it was applied anyway. Source: Byrd, Nocedal & Schnabel 1994, theorem 2.2.
    """

    def __init__(self, memory):
        self.memory, self.last, self.pairs, self.newest = memory, None, None, -1

    def applied(self, x, gradient, preconditioned):
        """H times the gradient (b, n) at x, and this point remembered; ``preconditioned``: H0 times it."""
        here = torch.stack([x, preconditioned, gradient], dim=1)
        if self.last is not None:
            self._remember(here - self.last)
        self.last = here
        return preconditioned if self.pairs is None else preconditioned + self._correction(gradient)

    def _remember(self, change):
        """Changes (b, 3, n) of position, H0 times the gradient, and gradient: in the place of the oldest pair."""
        products = change @ change.transpose(-1, -2)
        curvature = products[:, 0, 2]
        flat = ~(curvature > LEAST_CURVATURE * (products[:, 0, 0] * products[:, 2, 2]).sqrt())
        pair = change * curvature.masked_fill(flat, torch.inf).rsqrt()[:, None, None]
        if self.pairs is None:
            self.pairs = change.new_zeros(len(change), 2, self.memory, change.shape[-1])                # S and H0 Y
            self.products = change.new_zeros(len(change), 2, self.memory, self.memory)                  # of both with Y
        self.newest = new = (self.newest + 1) % self.memory
        self.pairs[:, :, new] = pair[:, :2]
        self.products[..., new] = self._along(pair[:, 2])[..., 0]
        self.products[:, 1, new] = self.products[:, 1, :, new]          # symmetric; of the other only what is older than its y is read

    def _along(self, vector):
        """Products (b, 2, memory, 1) of S and H0 Y with a vector (b, n); as a row, which is faster on a CPU."""
        return (vector[:, None] @ self.pairs.flatten(1, 2).transpose(-1, -2)).reshape(len(vector), 2, self.memory, 1)

    def _correction(self, gradient):
        """W^T M W times the gradient."""
        older = -1 - self.newest                                                        # turned by this the oldest pair is the first
        root, square = self.products.roll((older, older), (2, 3)).unbind(1)             # of the first only the upper triangle is read
        steps, changes = self._along(gradient).roll(older, 2).unbind(1)
        first = torch.linalg.solve_triangular(root, steps, upper=True, unitriangular=True)
        second = first + square @ first - changes
        second = torch.linalg.solve_triangular(root.transpose(-1, -2), second, upper=False, unitriangular=True)
        weight = torch.stack([second, -first], dim=1).roll(-older, 2)
        return (weight.reshape(len(gradient), 1, -1) @ self.pairs.flatten(1, 2))[:, 0]
