"""Compositions that once gave a wrong gradient, each against the exact one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Gamma, Normal, Uniform

import scg
from tests.support.integrate import integrated_gradient


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def density_of_a_child() -> scg.Graph:
    g = scg.Graph()
    b1 = g.sample("b1", Bernoulli, logits=g.param("theta", 0.4))
    b2 = g.sample("b2", Bernoulli, logits=b1 * g.param("w", 1.5) - 0.3)
    g.cost("c", g.log_prob(b1) + g.log_prob(b2) + b2 * 2.0)
    return g


def balanced_bits() -> scg.Graph:
    g = scg.Graph()
    g.plate("n", size=2)
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.tensor([0.4, -0.2]), plates="n"))
    g.cost("c", lambda b: (b - b.mean(0)) ** 2 + b, b, mixes="n")
    return g


def impossible_branch() -> scg.Graph:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, probs=g.param("p", torch.tensor([1.0, 0.3])))
    g.cost("c", g.log_prob(b) + b.sum())
    return g


POLICIES: list[Any] = [
    "score",
    "enumerate",
    "auto",
    scg.Enumerate(local=True),
    {"b1": "score", "*": "enumerate"},
    {"b1": "enumerate", "*": "score"},
]


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_density_of_a_child_under_branches(policy: Any, samples: int | None) -> None:
    g = density_of_a_child()
    found = integrated_gradient(g, scg.compile(g, policy, samples=samples), samples=samples)
    for name, exact in scg.exact_gradient(g).items():
        torch.testing.assert_close(found[name], exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("policy", ["score", "enumerate", "auto", scg.Enumerate(local=True)], ids=str)
def test_mixing_is_not_hidden_by_balanced_bits(policy: Any) -> None:
    g = balanced_bits()
    found = integrated_gradient(g, scg.compile(g, policy))
    torch.testing.assert_close(found["theta"], scg.exact_gradient(g)["theta"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_a_cost_is_charged_along_a_plate_to_one_node_and_across_it_to_another(order: str) -> None:
    """An element of y reaches its own cost alone, and one of x all of them, through a total."""
    g = scg.Graph()
    g.plate("p", size=2)
    drawn = {
        name: g.sample(
            name, Bernoulli, logits=g.param(f"{name}_logits", torch.tensor([0.4, -0.2]), plates="p")
        )
        for name in order
    }
    total = g.det("total", lambda x: x.sum(-1), drawn["x"], plates=())
    g.cost("c", lambda y, total: (1 + y) * (total + 0.3) ** 2, drawn["y"], total)
    found = integrated_gradient(g, scg.compile(g, "score"))
    for name, exact in scg.exact_gradient(g).items():
        torch.testing.assert_close(found[name], exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("policy", ["enumerate", {"b": "enumerate", "y": "score"}], ids=str)
def test_an_infinite_cost_of_a_possible_branch_is_not_left_out(policy: Any) -> None:
    """Nor in the credit of another node, although the sample is of the other branch."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, probs=g.param("p", torch.tensor(0.3)))
    y = g.sample("y", Bernoulli, logits=g.param("t", torch.tensor(0.2)))
    g.cost("c", lambda b, y: torch.where(b > 0, torch.inf, y), b, y)
    with pytest.raises(scg.NonFiniteError):
        scg.compile(g, policy)(seed=0)


@pytest.mark.parametrize("policy", ["enumerate", "auto"])
def test_an_impossible_branch_of_infinite_cost_counts_as_nothing(policy: str) -> None:
    g = impossible_branch()
    estimate = scg.compile(g, policy)(seed=0)
    estimate.loss.backward()
    assert torch.isfinite(estimate.loss)
    torch.testing.assert_close(g["p"].value.grad, scg.exact_gradient(g)["p"])


def elements(size: int, fn: Callable[[Tensor], Tensor], *, ordered: bool = False) -> scg.Graph:
    g = scg.Graph()
    g.plate("p", size=size, ordered=ordered)
    z = g.sample("z", Normal, g.param("mu", torch.zeros(size), plates="p"), 1.0)
    g.cost("c", fn, z)
    return g


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16])
@pytest.mark.parametrize(
    "fn",
    [
        lambda z: z.flip(0),
        lambda z: z.roll(1),
        lambda z: z - z.mean(0),
        lambda z: z[[1, 0, *range(2, len(z))]],
    ],
    ids=["flip", "roll", "mean", "swap"],
)
def test_elements_that_read_each_other_are_found(size: int, fn: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(scg.PlateError, match="crosses plate 'p'"):
        elements(size, fn).check()


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_a_step_that_reads_the_next_is_found(size: int) -> None:
    for reader in range(size - 1):
        order = list(range(size))
        order[reader] = reader + 1
        with pytest.raises(scg.PlateError, match="an earlier element reads a later one"):
            elements(size, lambda z, order=order: z[order], ordered=True).check()
    elements(size, lambda z: z.cumsum(0), ordered=True).check()


def test_functions_that_write_into_their_parents_are_refused() -> None:
    g = scg.Graph()
    x = g.sample("x", Normal, g.param("w", 0.0), 1.0)
    g.cost("c", g.det("h", nn.ReLU(inplace=True), x) + x)
    with pytest.raises(scg.GraphError, match="'h' .*writes into a value of its parents"):
        scg.compile(g)


def test_a_support_that_moves_with_a_captured_parameter_is_refused() -> None:
    high = nn.Parameter(torch.tensor(2.0))
    g = scg.Graph()
    g.cost("c", g.sample("x", lambda: Uniform(0.0, high)) ** 2)
    with pytest.raises(scg.EstimatorError, match="support of its Uniform moves with parameter 'high'"):
        scg.compile(g, policy="score")


def test_a_support_that_stands_still_is_no_obstacle() -> None:
    g = scg.Graph()
    t = g.param("t", 0.3)
    g.cost("c", g.sample("x", lambda t: Uniform(torch.zeros(()), torch.ones(())), t) * t)
    scg.compile(g, policy="score")().loss.backward()


@pytest.mark.parametrize(
    "policy", ["enumerate", scg.Enumerate(local=True), scg.Score("self-critical")], ids=str
)
def test_gradients_replay_with_their_noise(policy: Any) -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", 0.2))
    x = g.sample("x", Gamma, 1.0 + b, 1.0)
    g.cost("c", x * (1 + b))
    program = scg.compile(g, {"b": policy, "x": "score"})
    noise = program.draw_noise(5)
    gradients = []
    for given in (noise, noise, dict(noise), dict(noise)):
        program.zero_grad()
        program(noise=given).loss.backward()
        gradients.append(g["t"].value.grad.clone())
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[2], gradients[3])


def test_several_results_may_lie_in_a_plate_that_no_parent_has() -> None:
    g = scg.Graph()
    g.input("x", plates="batch", example=torch.zeros(3))
    t = g.param("t", 0.2)
    m, s = g.det(("m", "s"), lambda t: (t[None], t.exp()[None]), t, plates="batch")
    g.cost("c", g.sample("z", Normal, m, s))
    estimate = scg.compile(g)(x=torch.zeros(5))
    assert estimate.samples["z"].shape == (5,)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_factories_without_the_plate_of_a_node_that_is_enumerated(reduce: str) -> None:
    """The density of the node, in a cost, is as long as its plate."""
    g = scg.Graph()
    g.plate("n", size=4, reduce=reduce)
    t = g.param("t", torch.tensor(0.3).double())
    b = g.sample("b", lambda t: Bernoulli(logits=2 * t), t, plates="n")
    g.cost("density", g.log_prob(b) * 0.7)
    g.cost("own", g.log_prob(lambda t: Bernoulli(logits=t), b, t) * b)
    scg.compile(g, "enumerate")().loss.backward()
    torch.testing.assert_close(g["t"].value.grad, scg.exact_gradient(g)["t"], rtol=1e-9, atol=1e-9)


def test_credit_that_lacks_a_branch_is_remembered_by_the_weight_of_branches() -> None:
    g = scg.Graph()
    a = g.sample("a", Bernoulli, logits=g.param("s", torch.tensor([0.4, -0.3]).double()))
    c = g.sample("c", Bernoulli, logits=g.det("h", lambda a: a.sum(), a))
    t = g.param("t", torch.zeros(()).double())
    b = g.sample("b", Bernoulli, logits=g.det("k", lambda c, t: c + t, c, t))
    g.cost("f", lambda b, c: (b - 0.3) ** 2 + c, b, c)
    policy = {"a": "enumerate", "c": "enumerate", "b": scg.Score("moving-average", normalise=True)}
    program = scg.compile(g, policy, samples=20_000)
    for seed in range(3):
        t.value.grad = None
        program(seed=seed).loss.backward()
    torch.testing.assert_close(t.value.grad, scg.exact_gradient(g)["t"], rtol=0.05, atol=0.01)
