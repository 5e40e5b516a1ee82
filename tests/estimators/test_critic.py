"""The critic, integrated over cells of noise: exact however wrong it is, of no variance where it is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Binomial, Categorical, Normal, OneHotCategorical

import scg
from scg.errors import EstimatorError
from tests.contract.instances import stirred
from tests.contract.judge import gap
from tests.estimators.building import of
from tests.estimators.test_double_cv import bits, choice
from tests.support.integrate import integrated_gradient
from tests.support.running import gradients


class Table(nn.Module):
    """One number for every value of two bits, and more for a context."""

    def __init__(self, *start: float) -> None:
        super().__init__()
        self.table = nn.Parameter(of(*start))

    def forward(self, value: Tensor, *context: Tensor) -> Tensor:
        one, other = value.unbind(-1)
        corners = torch.stack(
            [(1 - one) * (1 - other), one * (1 - other), (1 - one) * other, one * other], -1
        )
        found: Tensor = (corners * self.table).sum(-1)
        return found + sum(item * value.sum(-1) for item in context)


def trials() -> scg.Graph:
    """How often a coin falls, which is no relaxable law."""
    g = scg.Graph()
    count = g.sample("b", Binomial, total_count=3, probs=g.param("theta", of(0.3)[0]))
    g.cost("c", lambda b: torch.sin(2 * b) + b**2, count)
    return g


def plated(**plate: Any) -> scg.Graph:
    """Two elements of two bits, joined by a cost, above a bit and below a parent that is read."""
    g = scg.Graph()
    n = g.plate("n", size=2, **plate)
    above = g.sample("a", Bernoulli, logits=g.param("top", of(0.2)[0]))
    start = g.param("theta", of(0.3, -0.6), plates=n)
    x = g.sample("x", Bernoulli, logits=g.det("l", lambda t, a: t + 0.8 * a, start, above))
    g.cost("c", lambda x, a: (x - 0.3 + a) ** 2, x, above)
    g.cost("d", lambda x: (x.sum(-1) - 1.2) ** 2, x, plates=())
    return g


GRAPHS = {
    "bits": bits,
    "bits-probs": lambda: bits("probs"),
    "trials": trials,
    "mean": lambda: plated(reduce="mean"),
    "ordered": lambda: plated(ordered=True, reduce="sum", discount=0.5),
    **{
        f"{dist.__name__}-{given}": lambda dist=dist, given=given: choice(dist, given)
        for dist in (Categorical, OneHotCategorical)
        for given in ("logits", "probs")
    },
}


@pytest.mark.parametrize("name", GRAPHS)
def test_its_mean_is_the_gradient(name: str) -> None:
    g = GRAPHS[name]()
    program = stirred(scg.compile(g, "critic"))
    assert gap(integrated_gradient(g, program), scg.exact_gradient(g)) < 1e-12


@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
def test_replicates_and_a_baseline(baseline: Any) -> None:
    g = bits()
    program = scg.compile(g, scg.Critic(Table(3.0, -1.0, 0.5, 2.0), baseline=baseline), samples=2)
    assert gap(integrated_gradient(g, program, samples=2), scg.exact_gradient(g)) < 1e-12


def test_below_an_enumerated_node_it_is_exact() -> None:
    g = plated(reduce="sum")
    program = stirred(scg.compile(g, {"a": "enumerate", "x": "critic"}))
    assert gap(integrated_gradient(g, program), scg.exact_gradient(g)) < 1e-12


def test_the_costs_themselves_leave_no_variance() -> None:
    g = bits()
    right = [(one - 0.7 * other) ** 3 + 0.8 * one * other for other in (0, 1) for one in (0, 1)]
    program = scg.compile(g, scg.Critic(Table(*right)))
    for seed in range(4):
        found = gradients(program, seed=seed)
        assert gap({"theta": found["theta"]}, {"theta": scg.exact_gradient(g)["theta"]}) < 1e-12


def test_it_learns_the_costs() -> None:
    """Below there is noise, which a baseline of the parents cannot tell from what the value does."""
    g = bits()
    program = scg.compile(g, "critic")

    def spread() -> float:
        draws = torch.stack([gradients(program, seed=seed)["theta"] for seed in range(1000, 1100)])
        return float(draws.var(0).sum())

    before = spread()
    optimizer = torch.optim.Adam(program.control_parameters(), lr=0.03)
    for seed in range(300):
        gradients(program, seed=seed)
        optimizer.step()
    assert spread() < 0.1 * before


def test_extreme_logits_give_numbers() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(40.0, -40.0, 200.0)))
    g.cost("c", lambda b: b.sum(-1) ** 2, b)
    program = stirred(scg.compile(g, "critic"))
    assert gap({"theta": gradients(program, seed=0)["theta"]}, scg.exact_gradient(g)) < 1e-9


def continuous() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, loc=g.param("theta", of(0.4)[0]), scale=of(1.0)[0])
    g.cost("c", lambda z: z**2, z)
    return g


def wide() -> scg.Graph:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(7)))
    g.cost("c", lambda b: b.sum(-1) ** 2, b)
    return g


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: scg.Critic(limit=0), "limit is a whole number"),
        (lambda: scg.Critic(baseline="moving-average"), "learns already"),
        (lambda: scg.compile(continuous(), "critic"), "the support of a Normal is not finite. Use "),
        (lambda: scg.compile(wide(), "critic"), "2\\*\\*7 outcomes, over the limit of 64: raise limit="),
    ],
)
def test_what_it_cannot_do_is_refused(make: Any, told: str) -> None:
    with pytest.raises(EstimatorError, match=told):
        make()


def test_a_limit_is_raised() -> None:
    assert gradients(scg.compile(wide(), scg.Critic(limit=128)), seed=0)["theta"].shape == (7,)
