"""Numbers of trials that come from nodes are live: values, gradients, and what may be enumerated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

import scg
from scg.laws import bound_of, bounded, law_for, law_of, unbounded, unbounded_count

F64 = torch.float64


def cost(n: Tensor, k: Tensor) -> Tensor:
    return (k - 1.3) ** 2 + n * k


def exact(objective: Callable[..., Tensor], *at: float) -> list[Tensor]:
    """The gradient of an expectation that is written out as a sum."""
    leaves = [torch.tensor(value, dtype=F64, requires_grad=True) for value in at]
    return list(torch.autograd.grad(objective(*leaves), leaves))


def nested(a: Tensor, b: Tensor) -> Tensor:
    """E cost(n, k) for n ~ Binomial(3, a), k ~ Binomial(n + 1, b)."""
    total = torch.zeros((), dtype=F64)
    for n in torch.arange(4.0, dtype=F64):
        for k in torch.arange(float(n) + 2, dtype=F64):
            log = td.Binomial(3, logits=a).log_prob(n) + td.Binomial(int(n) + 1, logits=b).log_prob(k)
            total = total + log.exp() * cost(n, k)
    return total


def sampled(make: Callable[..., Any], *, as_class: bool) -> scg.Graph:
    g = scg.Graph()
    a, b = (g.param(name, torch.tensor(value, dtype=F64)) for name, value in (("a", 0.3), ("b", -0.2)))
    n = g.sample("n", td.Binomial, 3, logits=a)
    k = g.sample("k", td.Binomial, total_count=n + 1, logits=b) if as_class else g.sample("k", make, n, b)
    g.cost("c", cost, n, k)
    return g


FACTORIES: dict[str, Callable[..., Any]] = {
    "int": lambda n, b: td.Binomial(int(n) + 1, logits=b),
    "tensor": lambda n, b: td.Binomial(n + 1, logits=b),
}


def gradients(program: scg.Program, runs: int) -> Tensor:
    """Estimates [runs, 2] of the gradient in a and b."""
    rows = []
    for seed in range(runs):
        program.zero_grad()
        program(seed=seed).loss.backward()
        rows.append(torch.stack([program.a.grad.clone(), program.b.grad.clone()]))
    return torch.stack(rows)


@pytest.mark.parametrize("policy", ["auto", "enumerate"])
@pytest.mark.parametrize("samples", [None, 3])
def test_a_sampled_count_is_enumerated_exactly(policy: str, samples: int | None) -> None:
    program = scg.compile(sampled(td.Binomial, as_class=True), policy, samples=samples)
    torch.testing.assert_close(gradients(program, 1)[0], torch.stack(exact(nested, 0.3, -0.2)))


@pytest.mark.parametrize("policy", ["score", scg.Enumerate(local=True)], ids=["score", "local"])
def test_a_sampled_count_is_estimated_without_bias(policy: Any) -> None:
    program = scg.compile(sampled(td.Binomial, as_class=True), policy, samples=3000)
    found, truth = gradients(program, 20), torch.stack(exact(nested, 0.3, -0.2))
    error = found.std(0) / len(found) ** 0.5
    assert bool((error < 0.05).all())
    assert bool(((found.mean(0) - truth).abs() < 4.5 * error).all()), (found.mean(0), truth, error)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_with_a_sampled_count(name: str) -> None:
    """Nothing bounds what a factory computes, so that the score is left."""
    program = scg.compile(sampled(FACTORIES[name], as_class=False), samples=200)
    assert program.policy["k"].name == "score"
    found, truth = gradients(program, 60), torch.stack(exact(nested, 0.3, -0.2))
    error = found.std(0) / len(found) ** 0.5
    assert bool((error < 0.1).all())
    assert bool(((found.mean(0) - truth).abs() < 4.5 * error).all()), (found.mean(0), truth, error)
    with pytest.raises(scg.EstimatorError, match="nothing in the graph bounds the number of trials"):
        scg.compile(sampled(FACTORIES[name], as_class=False), {"k": "enumerate"})


@pytest.mark.parametrize("make", [td.Binomial, FACTORIES["int"]], ids=["class", "factory"])
def test_a_count_that_is_an_input_is_live(make: Any) -> None:
    g = scg.Graph()
    n = g.input("n", example=torch.tensor(2.0, dtype=F64))
    b = g.param("b", torch.tensor(-0.2, dtype=F64))
    k = g.sample("k", make, n, logits=b) if make is td.Binomial else g.sample("k", make, n, b)
    g.cost("c", k)
    program = scg.compile(g, samples=20_000)
    for count in (2.0, 6.0, 11.0):
        extra = 0 if make is td.Binomial else 1
        mean = float(program(n=torch.tensor(count, dtype=F64), seed=0).loss.detach())
        assert mean == pytest.approx((count + extra) * float(torch.sigmoid(torch.tensor(-0.2))), abs=0.1)


@pytest.mark.parametrize("as_class", [True, False])
def test_a_multinomial_with_a_sampled_count(as_class: bool) -> None:
    g = scg.Graph()
    n = g.sample("n", td.Binomial, 3, logits=g.param("a", torch.tensor(0.3, dtype=F64)))
    logits = g.param("b", torch.tensor([-0.2, 0.4, 0.1], dtype=F64))
    if as_class:
        k = g.sample("k", td.Multinomial, total_count=n, logits=logits)
    else:
        k = g.sample("k", lambda n, b: td.Multinomial(int(n), logits=b), n, logits)
    g.cost("c", lambda n, k: n + k[..., 1] if k.dim() > 1 else n + k[1], n, k)
    program = scg.compile(g, samples=4000)
    estimate = program(seed=0)
    torch.testing.assert_close(estimate.samples["k"].sum(-1), estimate.samples["n"].double())
    mean = 3 * float(torch.sigmoid(torch.tensor(0.3)))
    share = float(torch.softmax(torch.tensor([-0.2, 0.4, 0.1]), -1)[1])
    assert float(estimate.loss.detach()) == pytest.approx(mean * (1 + share), abs=0.1)


def test_values_beyond_a_live_count_have_no_mass() -> None:
    law, parameters = law_for(
        td.Binomial, {"total_count": torch.tensor([0.0, 1.0, 3.0]), "probs": torch.tensor([0.5, 1.0, 0.2])}
    )
    law = bounded(law, 4)
    mass = law.mass(parameters)
    assert mass.shape == (5, 3)
    torch.testing.assert_close(mass.sum(0), torch.ones(3))
    torch.testing.assert_close(
        mass[:4, 2], td.Binomial(3, torch.tensor(0.2)).log_prob(torch.arange(4.0)).exp()
    )
    assert law.draw(parameters, torch.full((3,), 1 - 1e-7)).tolist() == [0.0, 1.0, 3.0]
    assert law.log_prob(parameters, torch.tensor([1.0, 2.0, 4.0])).tolist() == [-torch.inf] * 3
    assert "total_count" in (law.violations({**parameters, "total_count": torch.tensor(5.0)}) or "")


def test_bounds_come_and_go() -> None:
    law, _ = law_of(td.Independent(td.Binomial(3, torch.tensor([0.5])), 1), live=True)
    assert unbounded_count(law) == "total_count" and bound_of(law) is None
    assert bound_of(bounded(law, 3)) == ("total_count", 3)
    assert unbounded(bounded(law, 3)) == law


@pytest.mark.parametrize(
    ("dist", "arguments"),
    [
        (td.LKJCholesky, {"dim": torch.tensor(3), "concentration": 1.0}),
        (td.ContinuousBernoulli, {"probs": 0.3, "lims": (torch.tensor(0.4), 0.6)}),
    ],
)
def test_what_cannot_be_live_is_refused_by_name(dist: Any, arguments: dict[str, Any]) -> None:
    name = "dim" if "dim" in arguments else "lims"
    with pytest.raises(scg.GraphError, match=f"one '{name}' .*cannot come from a node"):
        law_for(dist, arguments)


def test_nodes_inside_an_argument_are_refused() -> None:
    g = scg.Graph()
    a = g.param("a", torch.tensor(0.3))
    g.cost("c", g.sample("b", td.Bernoulli, logits=[a]).sum())
    with pytest.raises(scg.GraphError, match="'b' .*takes one tensor as logits.*torch.stack"):
        scg.compile(g)
