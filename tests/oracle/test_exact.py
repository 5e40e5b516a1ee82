"""The exact objective and gradient equal closed forms and hand enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Distribution,
    Independent,
    Normal,
    OneHotCategorical,
)

from scg.graph import Graph
from scg.nodes.handle import Node
from scg.oracle import exact_gradient, exact_objective

THETA, PHI = 0.4, -0.7


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def assert_exact(
    graph: Graph, closed: Callable[..., Tensor], atol: float = 1e-12, points: int = 32, limit: int = 2**20
) -> None:
    """``closed`` takes the parameters by name and is differentiated by autograd."""
    leaves = {name: p.detach().clone().requires_grad_() for name, p in graph.named_parameters()}
    expected = closed(**leaves)
    parts = torch.autograd.grad(expected, list(leaves.values()))
    torch.testing.assert_close(
        exact_objective(graph, points=points, limit=limit), expected, rtol=0, atol=atol
    )
    found = exact_gradient(graph, points=points, limit=limit)
    for name, part in zip(leaves, parts, strict=True):
        torch.testing.assert_close(found[name], part, rtol=0, atol=atol)


def f(value: Tensor) -> Tensor:
    return (value - 0.45) ** 2


# ---- the five graphs of Schulman et al. (2015), Figure 1


def test_graph_one() -> None:
    g = Graph()
    x = g.det("x", torch.tanh, g.param("theta", scalar(THETA)))
    g.cost("f", f, g.sample("y", Bernoulli, logits=x))
    assert_exact(g, lambda theta: _two(torch.tanh(theta), f))


def test_graph_two() -> None:
    g = Graph()
    x = g.sample("x", Bernoulli, logits=g.param("theta", scalar(THETA)))
    g.cost("f", f, g.det("y", torch.exp, x))
    assert_exact(g, lambda theta: _two(theta, lambda x: f(torch.exp(x))))


def test_graph_three() -> None:
    g = Graph()
    x = g.sample("x", Bernoulli, logits=g.param("theta", scalar(THETA)))
    g.cost("f", f, g.sample("y", Bernoulli, logits=g.det("l", lambda x: 2 * x - 0.5, x)))
    assert_exact(g, lambda theta: _two(theta, lambda x: _two(2 * x - 0.5, f)))


def test_graph_four() -> None:
    g = Graph()
    x = g.det("x", torch.sin, g.param("theta", scalar(THETA)))
    y = g.sample("y", Bernoulli, logits=x)
    g.cost("f", lambda x, y: (x + y) ** 3, x, y)
    assert_exact(g, lambda theta: _two(torch.sin(theta), lambda y: (torch.sin(theta) + y) ** 3))


def test_graph_five() -> None:
    g = Graph()
    theta, x0 = g.param("theta", scalar(THETA)), g.input("x0", example=scalar(1.5))
    x1 = g.sample("x1", Bernoulli, logits=g.det("l1", torch.mul, theta, x0))
    x2 = g.sample("x2", Bernoulli, logits=g.det("l2", lambda theta, x1: theta - x1, theta, x1))
    g.cost("f1", f, x1)
    g.cost("f2", torch.exp, x2)
    assert_exact(
        g, lambda theta: _two(1.5 * theta, f) + _two(1.5 * theta, lambda x: _two(theta - x, torch.exp))
    )


def _two(logit: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """``E fn(b)`` for b ~ Bernoulli(sigmoid(logit))."""
    p = torch.sigmoid(logit)
    return p * fn(torch.ones_like(p)) + (1 - p) * fn(torch.zeros_like(p))


# ---- plates


def test_toy() -> None:
    g = Graph()
    g.cost("loss", f, g.sample("b", Bernoulli, logits=g.param("theta", scalar(0.0))))
    assert exact_objective(g).item() == pytest.approx(0.2525)
    assert exact_gradient(g)["theta"].item() == pytest.approx(0.025)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_nested_plates_of_fifteen(reduce: str) -> None:
    """2**18 joint assignments, and 4 of what each element of the cost sees."""
    g = Graph()
    g.plate("a", size=3, reduce=reduce)
    g.plate("b", size=5)
    top = torch.linspace(-1, 1, 3, dtype=torch.float64)
    x = g.sample("x", Bernoulli, logits=g.param("theta", top, plates="a"))
    u = g.param("u", torch.linspace(0, 2, 5, dtype=torch.float64), plates="b")
    y = g.sample("y", Bernoulli, logits=g.det("l", lambda x, u: u - 2 * x, x, u))
    g.cost("loss", lambda x, y: torch.cos(x + 2 * y), x, y)

    def closed(theta: Tensor, u: Tensor) -> Tensor:
        def below(x: Tensor) -> Tensor:
            return _two(u[None] - 2 * x[:, None], lambda y: torch.cos(x[:, None] + 2 * y)).mean(1)

        rows = _two(theta, below)
        return rows.mean() if reduce == "mean" else rows.sum()

    assert_exact(g, closed, limit=4)


def test_element_of_an_aggregate_sees_its_whole_plate() -> None:
    """Aligned cost plus aggregate, where crediting only the kept plate would lose the aggregate."""
    g = Graph()
    g.plate("a", size=3)
    p = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    b = g.sample("b", Bernoulli, probs=g.param("p", p, plates="a"))
    g.cost("aligned", lambda b: 3 * b, b)
    g.cost("product", g.det("all", lambda b: b.prod(), b, plates=()))
    assert_exact(g, lambda p: p.sum() + p.prod())


def test_mixed_plate() -> None:
    g = Graph()
    g.plate("a", size=3, reduce="sum")
    p = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    b = g.sample("b", Bernoulli, probs=g.param("p", p, plates="a"))
    g.cost("loss", lambda c, b: c * b, g.det("next", lambda b: b.roll(-1, 0), b, mixes="a"), b)
    assert_exact(g, lambda p: (p * p.roll(-1, 0)).sum())


def test_time_is_discounted_once() -> None:
    """Costs ``(sum of b up to t)**2`` at weights ``0.9**t``, with mean and variance in closed form."""
    g = Graph()
    g.plate("t", size=4, reduce="sum", ordered=True, discount=0.9)
    p = torch.tensor([0.2, 0.5, 0.9, 0.4], dtype=torch.float64)
    b = g.sample("b", Bernoulli, probs=g.param("p", p, plates="t"))
    g.cost("loss", g.det("state", lambda b: b.cumsum(0) ** 2, b))

    def closed(p: Tensor) -> Tensor:
        moments = (p * (1 - p)).cumsum(0) + p.cumsum(0) ** 2
        return (moments * 0.9 ** torch.arange(4, dtype=torch.float64)).sum()

    assert_exact(g, closed)


def test_ordered_mean_plate_has_both_weights() -> None:
    g = Graph()
    g.plate("t", size=2, ordered=True, discount=0.5)
    b = g.sample("b", Bernoulli, probs=g.param("p", scalar(0.3)), plates="t")
    g.cost("loss", b)
    assert_exact(g, lambda p: (1 + 0.5) / 2 * p)


def test_cost_without_plates_is_not_averaged() -> None:
    g = Graph()
    g.plate("batch", size=4)
    b = g.sample("b", Bernoulli, probs=g.param("p", scalar(0.3)), plates="batch")
    g.cost("loss", g.det("sum", lambda b: b.sum() ** 2, b, plates=()))
    assert_exact(g, lambda p: 4 * p * (1 - p) + (4 * p) ** 2)


def test_size_of_a_plate_comes_from_any_input_of_the_graph() -> None:
    g = Graph()
    g.input("x", plates="batch", example=torch.zeros(2, 1, dtype=torch.float64))
    b = g.sample("b", Bernoulli, probs=g.param("p", scalar(0.3)), plates="batch")
    g.cost("loss", g.det("sum", lambda b: b.sum() ** 2, b, plates=()))
    assert exact_objective(g).item() == pytest.approx(2 * 0.21 + 0.36)
    assert exact_objective(g, x=torch.zeros(5, 1)).item() == pytest.approx(5 * 0.21 + 1.5**2)


# ---- families

ROW = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def _softmax_or_share(given: str) -> Callable[[Tensor], Tensor]:
    return (lambda row: row.softmax(-1)) if given == "logits" else (lambda row: row / row.sum())


def sampled(g: Graph, dist: type[Distribution], given: str, init: Tensor, **more: int) -> Node:
    """Declare a node "b" whose parameter "w" is given as probs or as logits."""
    arguments: dict[str, Any] = {given: g.param("w", init), **more}
    return g.sample("b", dist, **arguments)


@pytest.mark.parametrize("given", ["probs", "logits"])
def test_bernoulli(given: str) -> None:
    g = Graph()
    g.cost("loss", f, sampled(g, Bernoulli, given, scalar(0.3)))
    probs = torch.sigmoid if given == "logits" else torch.clone
    assert_exact(g, lambda w: _two(torch.logit(probs(w)), f))


@pytest.mark.parametrize("given", ["probs", "logits"])
def test_binomial(given: str) -> None:
    """``E k**2 = n p (1 - p) + (n p)**2``."""
    g = Graph()
    g.cost("loss", torch.square, sampled(g, Binomial, given, scalar(0.3), total_count=5))
    probs = torch.sigmoid if given == "logits" else torch.clone
    assert_exact(g, lambda w: 5 * probs(w) * (1 - probs(w)) + (5 * probs(w)) ** 2)


@pytest.mark.parametrize("given", ["probs", "logits"])
def test_categorical(given: str) -> None:
    g = Graph()
    g.cost("loss", lambda k: (k - 0.5) ** 2, sampled(g, Categorical, given, ROW))
    probs = _softmax_or_share(given)
    assert_exact(g, lambda w: (probs(w) * (torch.arange(3) - 0.5) ** 2).sum())


@pytest.mark.parametrize("given", ["probs", "logits"])
def test_one_hot(given: str) -> None:
    g = Graph()
    z = sampled(g, OneHotCategorical, given, ROW)
    g.cost("loss", lambda z, v: (z @ v) ** 2, z, g.param("v", torch.tensor([1.0, -2.0, 0.5]).double()))
    probs = _softmax_or_share(given)
    assert_exact(g, lambda w, v: (probs(w) * v**2).sum())


def test_callable_that_returns_a_distribution_over_a_vector() -> None:
    g = Graph()
    p = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    b = g.sample("b", lambda p: Independent(Bernoulli(p), 1), g.param("p", p))
    g.cost("loss", g.det("all", lambda b: b.prod(-1) - b.sum(-1) ** 2, b))
    assert_exact(g, lambda p: p.prod() - (p * (1 - p)).sum() - p.sum() ** 2)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_bernoulli(p: float) -> None:
    """``J = p f(1) + (1 - p) f(0)`` has the slope ``f(1) - f(0)`` at both ends too."""
    g = Graph()
    g.plate("a", size=2, reduce="sum")
    b = g.sample("b", Bernoulli, probs=g.param("p", scalar(p)), plates="a")
    g.cost("loss", lambda b: 3 * b + 1, b)
    assert_exact(g, lambda p: 2 * (3 * p + 1))
    g.cost("both", g.det("product", lambda b: b.prod(), b, plates=()))
    assert_exact(g, lambda p: 2 * (3 * p + 1) + p**2)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_binomial(p: float) -> None:
    g = Graph()
    g.cost("loss", torch.square, g.sample("k", Binomial, total_count=3, probs=g.param("p", scalar(p))))
    assert_exact(g, lambda p: 3 * p * (1 - p) + (3 * p) ** 2)


def test_certain_categorical() -> None:
    g = Graph()
    k = g.sample("k", Categorical, probs=g.param("w", torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)))
    g.cost("loss", lambda k: (k - 0.5) ** 3, k)
    assert_exact(g, lambda w: (w / w.sum() * (torch.arange(3) - 0.5) ** 3).sum())


def test_what_cannot_happen_counts_for_nothing() -> None:
    """The log-probability of a masked outcome is infinite, and its weight is zero."""
    g = Graph()
    logits = torch.tensor([0.3, -0.2, -torch.inf], dtype=torch.float64)
    k = g.sample("k", Categorical, logits=g.param("w", logits))
    g.cost("entropy", g.log_prob(k))
    log_p = torch.log_softmax(logits[:2], -1)
    gradient = torch.autograd.functional.jacobian(
        lambda w: (w.softmax(-1) * w.log_softmax(-1)).sum(), logits[:2]
    )
    assert exact_objective(g).item() == pytest.approx(float((log_p.exp() * log_p).sum()))
    torch.testing.assert_close(exact_gradient(g)["w"], torch.cat([gradient, torch.zeros(1).double()]))


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_large_logits(logit: float) -> None:
    g = Graph()
    g.cost("loss", f, g.sample("b", Bernoulli, logits=g.param("theta", scalar(logit))))
    gradient = exact_gradient(g)["theta"].item()
    assert gradient == pytest.approx(0.1 * math.exp(-40), rel=1e-9)


# ---- normal nodes

SMOOTH: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "square": (torch.square, lambda m, s: m**2 + s**2),
    "exp": (torch.exp, lambda m, s: torch.exp(m + s**2 / 2)),
    "sin": (torch.sin, lambda m, s: torch.sin(m) * torch.exp(-(s**2) / 2)),
    "sixth": (lambda x: x**6, lambda m, s: m**6 + 15 * m**4 * s**2 + 45 * m**2 * s**4 + 15 * s**6),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("differentiable", [None, False])
def test_normal(name: str, differentiable: bool | None) -> None:
    fn, closed = SMOOTH[name]
    g = Graph()
    x = g.sample("x", Normal, g.param("m", scalar(0.3)), g.param("s", scalar(0.8)))
    g.cost("loss", g.det("f", fn, x, differentiable=differentiable))
    assert_exact(g, closed, atol=1e-10)


def test_normal_through_a_step_is_approximate_but_not_zero() -> None:
    """``d/dm P(x > 0) = p(0)``, which a derivative along the path would miss altogether."""
    g = Graph()
    x = g.sample("x", Normal, g.param("m", scalar(0.3)), 1.0)
    g.cost("loss", lambda x: (x > 0).double(), x)
    slope = math.exp(-(0.3**2) / 2) / math.sqrt(2 * math.pi)
    assert exact_gradient(g, points=400)["m"].item() == pytest.approx(slope, abs=0.05)


def test_normal_between_parameters() -> None:
    """Parameters below a quadrature node get their gradient through what they weigh there."""
    g = Graph()
    x = g.sample("x", Normal, g.param("m", scalar(0.3)), g.param("s", scalar(0.8)))
    y = g.sample("y", Normal, g.det("mean", lambda x, u: u * x, x, g.param("u", scalar(1.4))), 0.5)
    g.cost("loss", lambda x, y: x * y**2, x, y)

    def closed(m: Tensor, s: Tensor, u: Tensor) -> Tensor:
        return u**2 * (m**3 + 3 * m * s**2) + 0.25 * m

    assert_exact(g, closed, atol=1e-10)


def test_normal_and_bernoulli() -> None:
    """reparam x -> b -> f: the value of x counts in the law of b and in the cost."""
    g = Graph()
    x = g.sample("x", Normal, g.param("m", scalar(0.3)), 0.8)
    g.cost("loss", lambda x, b: b * x + torch.cos(x), x, g.sample("b", Bernoulli, logits=x))
    z, w = (torch.from_numpy(column) for column in _hermite(200))

    def closed(m: Tensor) -> Tensor:
        x = m + 0.8 * z
        return (w * (torch.sigmoid(x) * x + torch.cos(x))).sum()

    assert_exact(g, closed, atol=1e-8)
    assert_exact(g, closed, atol=1e-12, points=100)


def _hermite(points: int) -> tuple[object, object]:
    from numpy.polynomial.hermite_e import hermegauss

    z, w = hermegauss(points)
    return z, w / math.sqrt(2 * math.pi)


def test_entropy_of_a_normal() -> None:
    g = Graph()
    x = g.sample("x", Normal, g.param("m", scalar(0.3)), g.param("s", scalar(0.8)))
    g.cost("negentropy", g.log_prob(x))
    assert_exact(g, lambda m, s: 0 * m - s.log() - 0.5 * math.log(2 * math.pi * math.e), atol=1e-10)


def test_normal_plate_is_set_together() -> None:
    g = Graph()
    loc = torch.linspace(-1, 1, 6, dtype=torch.float64)
    x = g.sample("x", Normal, g.param("m", loc, plates="batch"), 0.5)
    g.cost("loss", torch.square, x)
    assert_exact(g, lambda m: (m**2 + 0.25).mean(), atol=1e-10, limit=32)


# ---- what callers rely on


def test_second_derivative() -> None:
    """``x (1 - theta) + (1 - x) (1 + theta)`` for x ~ Bernoulli(theta): -4 (Foerster et al., 2018)."""
    g = Graph()
    theta = g.param("theta", scalar(0.3))
    x = g.sample("x", Bernoulli, probs=theta)
    g.cost("loss", lambda x, theta: x * (1 - theta) + (1 - x) * (1 + theta), x, theta)
    (first,) = torch.autograd.grad(exact_objective(g), theta.value, create_graph=True)
    assert torch.autograd.grad(first, theta.value)[0].item() == pytest.approx(-4)


def test_second_derivative_of_a_normal() -> None:
    g = Graph()
    m = g.param("m", scalar(0.3))
    g.cost("loss", torch.sin, g.sample("x", Normal, m, 0.8))
    (first,) = torch.autograd.grad(exact_objective(g), m.value, create_graph=True)
    expected = -math.sin(0.3) * math.exp(-0.32)
    assert torch.autograd.grad(first, m.value)[0].item() == pytest.approx(expected, abs=1e-10)


def test_grad_is_untouched_and_every_parameter_is_named() -> None:
    g = Graph()
    layer = nn.Linear(1, 1).double()
    b = g.sample("b", Bernoulli, logits=g.det("logits", layer, torch.ones(1, dtype=torch.float64)))
    g.param("idle", scalar(1.0))
    frozen = nn.Parameter(scalar(2.0), requires_grad=False)
    g.cost("loss", lambda b, k: b.sum(-1) * k, b, g.param("frozen", frozen))
    with torch.no_grad():
        gradient = exact_gradient(g)
    assert list(gradient) == [name for name, _ in g.named_parameters()]
    assert all(parameter.grad is None for parameter in g.parameters())
    assert gradient["idle"].item() == gradient["frozen"].item() == 0
    p = torch.sigmoid(layer.weight + layer.bias).item()
    assert gradient["logits.bias"].item() == pytest.approx(2 * p * (1 - p))


def test_captured_parameters_get_their_gradient_from_the_objective() -> None:
    captured = nn.Parameter(scalar(0.2))
    g = Graph()
    b = g.sample("b", Bernoulli, probs=0.3)
    g.cost("loss", lambda b: captured * b, b)
    exact_objective(g).backward()
    assert captured.grad is not None
    assert captured.grad.item() == pytest.approx(0.3)


def test_buffers_are_untouched() -> None:
    norm = nn.BatchNorm1d(2, dtype=torch.float64)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    g = Graph()
    x = g.input("x", plates="batch", example=torch.randn(3, 2, dtype=torch.float64))
    b = g.sample("b", Bernoulli, logits=g.det("h", norm, x, mixes="batch"))
    g.cost("loss", g.det("sum", lambda b: b.sum(-1), b))
    exact_objective(g).backward()
    assert norm.weight.grad is not None
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffer, before[name], rtol=0, atol=0)


def test_functions_that_refuse_vmap_are_called_one_by_one() -> None:
    def branching(b: Tensor) -> Tensor:
        return b.sum() if float(b[0]) > 0.5 else 2 - b.sum()

    g = Graph()
    p = torch.tensor([0.2, 0.7], dtype=torch.float64)
    b = g.sample("b", Bernoulli, probs=g.param("p", p))
    g.cost("loss", branching, b)
    assert_exact(g, lambda p: p[0] * (1 + p[1]) + (1 - p[0]) * (2 - p[1]))


def test_many_cases() -> None:
    """More cases than are evaluated at once, counted exactly once each."""
    g = Graph()
    p = torch.linspace(0.1, 0.9, 12, dtype=torch.float64)
    b = g.sample("b", Bernoulli, probs=g.param("p", p))
    g.cost("loss", lambda b: b.sum(-1) ** 2, b)
    assert_exact(g, lambda p: (p * (1 - p)).sum() + p.sum() ** 2)


def test_nodes_beside_the_costs_are_ignored() -> None:
    g = Graph()
    b = g.sample("b", Bernoulli, probs=g.param("p", scalar(0.3)))
    g.sample("unused", torch.distributions.Gamma, g.det("rate", torch.exp, b), 1.0)
    g.cost("loss", b)
    assert_exact(g, lambda p: p.clone())


def test_float32_graphs() -> None:
    g = Graph()
    g.cost("loss", f, g.sample("b", Bernoulli, logits=g.param("theta", 0.4)))
    assert exact_gradient(g)["theta"].dtype == torch.float32
