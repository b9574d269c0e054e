"""Batched L-BFGS: exact metrics, curved valleys, reasons, and independence of the problems of a batch."""
import pytest
import torch

from refmotion_plugin.engine.maths import minimise as m

DTYPE = torch.float64


def quadratic(n=6, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, n, n, generator=generator, dtype=DTYPE)
    hessian = root @ root.transpose(1, 2) + 0.1 * torch.eye(n, dtype=DTYPE)
    centre = torch.randn(batch, n, generator=generator, dtype=DTYPE)

    def evaluate(x):
        pull = torch.einsum("bij,bj->bi", hessian, x - centre)
        return 0.5 * ((x - centre) * pull).sum(-1), pull

    return evaluate, hessian, centre


def rosenbrock(x):
    a, b = x[:, 0::2], x[:, 1::2]
    value = (100 * (b - a ** 2) ** 2 + (1 - a) ** 2).sum(-1)
    gradient = torch.empty_like(x)
    gradient[:, 0::2] = -400 * a * (b - a ** 2) - 2 * (1 - a)
    gradient[:, 1::2] = 200 * (b - a ** 2)
    return value, gradient


def test_with_the_exact_metric_a_quadratic_takes_one_step():
    evaluate, hessian, centre = quadratic()
    found = m.minimise(evaluate, torch.zeros_like(centre), lambda g: torch.linalg.solve(hessian, g))
    torch.testing.assert_close(found.x, centre, atol=1e-8, rtol=0)
    assert found.iterations.tolist() == [1, 1, 1] and found.reason == [m.CONVERGED] * 3
    assert float(found.value.abs().max()) < 1e-12


def test_with_a_poor_metric_it_still_gets_there():
    evaluate, _, centre = quadratic()
    found = m.minimise(evaluate, torch.zeros_like(centre), lambda g: 0.1 * g, tolerance=1e-14)
    torch.testing.assert_close(found.x, centre, atol=1e-5, rtol=0)
    assert set(found.reason) == {m.CONVERGED}


def test_curved_valleys_are_followed():
    start = torch.tensor([[-1.2, 1.0, -1.2, 1.0], [0.0, 0.0, 2.0, -1.0], [1.0, 1.0, 1.0, 1.0]], dtype=DTYPE)
    found = m.minimise(rosenbrock, start, lambda g: 1e-3 * g, max_iterations=300, tolerance=1e-12)
    torch.testing.assert_close(found.x, torch.ones_like(start), atol=1e-4, rtol=0)
    assert found.reason == [m.CONVERGED] * 3 and int(found.iterations[2]) == 0


def test_a_batch_gives_what_single_runs_give():
    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0], [0.1, 0.7], [1.0, 1.0]], dtype=DTYPE)
    precondition = lambda g: 2e-3 * g
    together = m.minimise(rosenbrock, start, precondition, max_iterations=60)
    for i in range(len(start)):
        alone = m.minimise(rosenbrock, start[i:i + 1], precondition, max_iterations=60)
        torch.testing.assert_close(together.x[i:i + 1], alone.x, rtol=1e-12, atol=1e-12)
        assert together.reason[i] == alone.reason[0] and int(together.iterations[i]) == int(alone.iterations[0])


def test_the_iteration_limit_is_named():
    found = m.minimise(rosenbrock, torch.tensor([[-1.2, 1.0]], dtype=DTYPE), lambda g: 1e-3 * g, max_iterations=3)
    assert found.reason == [m.ITERATION_LIMIT] and found.iterations.tolist() == [3]


@pytest.mark.parametrize("broken", ["wrong sign", "not a number"])
def test_no_descent_is_named_and_the_point_is_kept(broken):
    evaluate, hessian, centre = quadratic(batch=2)

    def wrong(x):
        value, gradient = evaluate(x)
        if broken == "wrong sign":
            return value, torch.cat([gradient[:1], -gradient[1:]])
        return torch.stack([value[0], value[1] * float("nan")]), gradient

    found = m.minimise(wrong, torch.zeros_like(centre), lambda g: torch.linalg.solve(hessian, g))
    assert found.reason == [m.CONVERGED, m.NO_DESCENT]
    torch.testing.assert_close(found.x[0], centre[0], atol=1e-8, rtol=0)
    assert (found.x[1] == 0).all() and int(found.iterations[1]) == 0


def test_the_value_never_rises():
    seen = []
    start = torch.tensor([[-1.2, 1.0]], dtype=DTYPE)
    for limit in range(1, 25):
        seen.append(float(m.minimise(rosenbrock, start, lambda g: 1e-3 * g, max_iterations=limit).value))
    assert all(b <= a for a, b in zip(seen, seen[1:])) and seen[-1] < seen[0]


def two_loops(pairs, gradient, metric):
    """Nocedal & Wright 2006, algorithm 7.4, for one problem; pairs without positive curvature are left out."""
    pairs = [(s, y) for s, y in pairs if s @ y > m.LEAST_CURVATURE * s.norm() * y.norm()]
    q, alphas = gradient.clone(), []
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (s @ y))
        q = q - alphas[-1] * y
    q = metric @ q
    for (s, y), alpha in zip(pairs, reversed(alphas)):
        q = q + (alpha - (y @ q) / (s @ y)) * s
    return q


@pytest.mark.parametrize("points", [1, 2, 5, 12])
def test_the_compact_form_is_the_two_loop_recursion(points):
    """A batch of three: curved upwards everywhere, here and there, and a problem that did not move between two points."""
    batch, n, memory = 3, 9, 4
    generator = torch.Generator().manual_seed(points)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=DTYPE)
    root = random(n, n)
    metric = root @ root.T + torch.eye(n, dtype=DTYPE)
    x = random(batch, points, n) * 10.0 ** -torch.arange(points, dtype=DTYPE)[:, None]            # steps become small, as in a search
    gradient = torch.stack([x[0] @ metric.inverse() * 2.0, -x[1] + random(points, n) * x[1].norm(dim=-1, keepdim=True), x[2]])
    if points > 2:
        x[2, -2], gradient[2, -2] = x[2, -3], gradient[2, -3]
    inverse, usable = m._InverseHessian(memory), []
    for k in range(points):
        found = inverse.applied(x[:, k], gradient[:, k], gradient[:, k] @ metric)
    for b in range(batch):
        pairs = [(x[b, k + 1] - x[b, k], gradient[b, k + 1] - gradient[b, k]) for k in range(points - 1)][-memory:]
        usable.append([bool(s @ y > 0) for s, y in pairs])
        torch.testing.assert_close(found[b], two_loops(pairs, gradient[b, -1], metric), rtol=1e-9, atol=1e-9 * float(found[b].abs().max()))
    if points > 2:
        assert all(usable[0]) and not all(usable[1]) and not all(usable[2])


def test_steps_that_are_too_long_are_shortened_problem_by_problem():
    """A metric a hundred times too bold for one of the problems: the value still falls, and the others keep their whole steps."""
    evaluate, hessian, centre = quadratic(batch=3)
    bold = torch.tensor([1.0, 100.0, 1.0], dtype=DTYPE)[:, None]
    found = m.minimise(evaluate, torch.zeros_like(centre), lambda g: bold * torch.linalg.solve(hessian, g))
    torch.testing.assert_close(found.x, centre, atol=1e-6, rtol=0)
    assert found.reason == [m.CONVERGED] * 3 and found.iterations.tolist()[::2] == [1, 1]
