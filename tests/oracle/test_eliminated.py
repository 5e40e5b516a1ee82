"""Sums made one node after another are those over all assignments, listed where they are few."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from scg.graph import Graph
from scg.oracle.cases import Cases, cases_of, terms
from scg.oracle.eliminated import Elimination
from tests.oracle.graphs import SMALL, drawn
from tests.oracle.test_twin import SEEDS


def every(graph: Graph, points: int = 8) -> list[Cases]:
    ir = graph.freeze()
    return [cases_of(ir, cost, ir.store.examples, points=points) for cost in ir.costs]


def assert_same(graph: Graph) -> None:
    """Value and gradient of every cost, made both ways, with tables that costs share."""
    parameters = [p for p in graph.freeze().store.tensors.values() if p.requires_grad]
    held: dict[object, Tensor] = {}
    for cases in every(graph):
        listed, summed = torch.stack(list(terms(cases))).sum(), Elimination(cases, held).total()
        assert torch.allclose(summed, listed, rtol=0, atol=1e-10)
        if listed.requires_grad:
            for one, other in zip(
                torch.autograd.grad(listed, parameters, retain_graph=True, allow_unused=True),
                torch.autograd.grad(summed, parameters, retain_graph=True, allow_unused=True),
                strict=True,
            ):
                one, other = (torch.zeros(()) if g is None else g for g in (one, other))
                assert torch.allclose(other, one, rtol=0, atol=1e-10)


@pytest.mark.parametrize("build", SMALL, ids=lambda build: build.__name__)
def test_small_graphs(build: Callable[[], Graph]) -> None:
    assert_same(build())


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs(seed: int) -> None:
    assert_same(drawn(seed))


def pick(table: Tensor, index: Tensor) -> Tensor:
    return table[index]


def test_a_normal_number_and_the_log_probability_of_a_state_read_what_is_above_them() -> None:
    g = Graph()
    w = g.param("w", torch.tensor([0.3, -0.7, 0.4], dtype=torch.float64))
    a = g.sample("a", Bernoulli, logits=w[0])
    x = g.sample("x", Normal, w[1] + a, 0.7)
    b = g.sample("b", Bernoulli, logits=w[2] * x)
    e = g.sample("e", Bernoulli, logits=w[0] * b)
    g.cost("c", (e - 0.3) ** 2 + g.log_prob(b) * a)
    g.cost("d", g.log_prob(x) + e * x)
    assert_same(g)


def test_a_long_chain_needs_pairs_of_states() -> None:
    g = Graph()
    step = g.param("step", torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    z = g.sample("z0", Categorical, logits=step[0])
    for t in range(1, 25):
        z = g.sample(f"z{t}", Categorical, logits=g.det(f"l{t}", pick, step, z))
    g.cost("c", (z - torch.tensor(1.3, dtype=torch.float64)) ** 2)
    (cases,) = every(g)
    assert cases.count == 4**25 and Elimination(cases).largest == 16
    start = step.value.detach().requires_grad_()
    mass = start.softmax(-1)[0] @ torch.matrix_power(start.softmax(-1), 24)
    (mass @ (torch.arange(4).double() - 1.3) ** 2).backward()
    assert torch.allclose(scg.exact_gradient(g)["step"], start.grad, rtol=0, atol=1e-12)


def test_a_graph_that_is_too_wide_says_how_wide() -> None:
    g = Graph()
    bits = [g.sample(f"b{k}", Bernoulli, logits=g.param(f"w{k}", 0.1)) for k in range(12)]
    last = g.sample("last", Bernoulli, logits=sum(bits))
    g.cost("c", last)
    with pytest.raises(scg.GraphError, match="needs 8192 assignments"):
        scg.exact_objective(g, limit=1000)
