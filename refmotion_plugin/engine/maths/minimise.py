"""Batched L-BFGS with a given metric. Knows vectors only; every problem of the batch stops for its own named reason."""
from dataclasses import dataclass
from typing import Callable, List

import torch

CONVERGED, ITERATION_LIMIT, NO_DESCENT = "converged", "iteration limit", "no descent"
REASONS = (CONVERGED, ITERATION_LIMIT, NO_DESCENT)
ARMIJO = 1e-4
MAX_HALVINGS = 12


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
    Hessian (symmetric, positive). A problem has converged when the expected decrease, half the squared Newton decrement, is
    below ``tolerance`` times (1 + |value|). Source: Nocedal & Wright 2006, algorithms 7.4 and 3.1.
    """
    x = x0.clone()
    value, gradient = evaluate(x)
    state = _State(x, memory)
    reason = torch.full((len(x),), REASONS.index(ITERATION_LIMIT), device=x.device)     # read back once, at the end
    alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(max_iterations):
        direction = -state.apply_inverse(gradient, precondition)
        slope = (direction * gradient).sum(-1)
        done = alive & (-0.5 * slope <= tolerance * (1.0 + value.abs()))
        alive, reason = _stop(alive, done, reason, CONVERGED)
        if not bool(alive.any()):
            break
        new_x, new_value, new_gradient, moved = _line_search(evaluate, x, value, gradient, direction, slope, alive)
        alive, reason = _stop(alive, alive & ~moved, reason, NO_DESCENT)
        state.remember(new_x - x, new_gradient - gradient)
        state.iterations += moved
        x, value, gradient = new_x, new_value, new_gradient
    return Minimum(x, value, state.iterations, [REASONS[i] for i in reason.tolist()])


def _stop(alive, which, reason, name):
    return alive & ~which, reason.masked_fill(which, REASONS.index(name))


def _line_search(evaluate, x, value, gradient, direction, slope, alive):
    """Backtracking with quadratic interpolation; problems that are not alive stay where they are."""
    step = alive.to(x.dtype)
    best = x.clone(), value.clone(), gradient.clone()
    waiting = alive.clone()
    for _ in range(MAX_HALVINGS):
        trial = x + step[:, None] * direction
        trial_value, trial_gradient = evaluate(trial)
        good = waiting & (trial_value <= value + ARMIJO * step * slope)
        best = tuple(torch.where(good.reshape((-1,) + (1,) * (new.dim() - 1)), new, old)
                     for new, old in zip((trial, trial_value, trial_gradient), best))
        waiting = waiting & ~good
        if not bool(waiting.any()):
            break
        curvature = 2.0 * (trial_value - value - step * slope)
        shorter = torch.where(curvature > 0, -slope * step ** 2 / curvature, 0.5 * step)
        step = torch.where(waiting, torch.minimum(torch.maximum(shorter, 0.1 * step), 0.5 * step), step)
    return best + (alive & ~waiting,)


class _State:
    """Pairs of steps and gradient changes of the last iterations."""

    def __init__(self, x, memory):
        self.memory, self.pairs = memory, []
        self.iterations = torch.zeros(len(x), dtype=torch.long, device=x.device)

    def remember(self, step, change):
        curvature = (step * change).sum(-1)
        usable = curvature > 1e-10 * step.norm(dim=-1) * change.norm(dim=-1)
        rho = torch.where(usable, 1.0 / torch.where(usable, curvature, torch.ones_like(curvature)), torch.zeros_like(curvature))
        self.pairs = (self.pairs + [(step, change, rho)])[-self.memory:]

    def apply_inverse(self, gradient, precondition):
        """Two-loop recursion around the given metric; pairs without positive curvature have rho = 0 and do nothing."""
        q, alphas = gradient.clone(), []
        for step, change, rho in reversed(self.pairs):
            alpha = rho * (step * q).sum(-1)
            q = q - alpha[:, None] * change
            alphas.append(alpha)
        q = precondition(q)
        for (step, change, rho), alpha in zip(self.pairs, reversed(alphas)):
            beta = rho * (change * q).sum(-1)
            q = q + (alpha - beta)[:, None] * step
        return q
