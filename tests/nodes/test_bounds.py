"""Bounds: their value and gradient, which dimension they take, and what there is none of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.errors import GraphError, PlateError
from scg.testing.text.code import as_code
from tests.support.integrate import integrated_gradient


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def data() -> scg.Graph:
    """A bound of inputs alone, in a plate between two others."""
    g = scg.Graph()
    x = g.input("x", torch.randn(2, 3, 4), plates=("a", "k", "b"))
    g.bound("bound", x * g.param("w", 1.3), over="k")
    return g


def test_a_bound_is_minus_the_log_of_the_mean_of_exponentials() -> None:
    g = data()
    x = torch.randn(5, 3, 2)
    estimate = scg.compile(g)(x=x)
    assert torch.allclose(estimate.costs["bound"], -(-1.3 * x).exp().mean(1).log())
    assert torch.allclose(estimate.loss, -(-1.3 * x).exp().mean(1).log().mean())


@pytest.mark.parametrize("size", [1e3, -1e3, 1e300])
def test_large_terms_stay_finite(size: float) -> None:
    g = data()
    program = scg.compile(g)
    x = size + torch.arange(12.0).view(1, 3, 4)
    found = program(x=x / 1.3).costs["bound"]
    assert torch.allclose(found - size, -(size - x).exp().mean(1).log() if size < 1e4 else 0 * found)


def test_the_place_of_a_plate_is_that_of_the_finished_graph() -> None:
    """A later declaration puts the plate elsewhere."""
    g = scg.Graph()
    x = g.input("x", torch.zeros(3), plates="k")
    y = g.input("y", torch.zeros(2), plates="b")
    g.bound("bound", x + y, over="k")
    g.input("z", torch.zeros(2, 3), plates=("b", "k"))
    terms = torch.randn(3), torch.randn(2)
    found = scg.compile(g)(x=terms[0], y=terms[1], z=torch.zeros(2, 3)).costs["bound"]
    assert torch.allclose(found, -(-(terms[0] + terms[1][:, None])).exp().mean(1).log())


def particles(size: int, *, reduce: str = "mean") -> scg.Graph:
    g = scg.Graph()
    k = g.plate("k", size=size, reduce=reduce)  # type: ignore[arg-type]
    a, t = g.param("a", torch.tensor(0.4)), g.param("t", torch.tensor(-0.3))
    z = g.sample("z", Bernoulli, logits=a, plates=k)
    likelihood = g.log_prob(Normal, 0.7, 1.3 * z - t, 0.5)
    g.bound("bound", g.log_prob(z) - g.log_prob(Bernoulli, z, logits=t) - likelihood, over=k)
    return g


@pytest.mark.parametrize("policy", ["score", "enumerate", "local", "disarm"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_every_estimator_is_exact_under_a_bound(policy: str, reduce: str) -> None:
    g = particles(2, reduce=reduce)
    exact = scg.exact_gradient(g)
    found = integrated_gradient(g, scg.compile(g, policy), mirrored=True)
    assert all(torch.allclose(found[name], exact[name], rtol=0, atol=1e-12) for name in exact)


def test_the_exact_objective_is_the_expected_bound() -> None:
    g = particles(2)
    p = torch.sigmoid(torch.tensor(0.4))
    prior = torch.sigmoid(torch.tensor(-0.3))
    mass = torch.stack([1 - p, p])
    weight = torch.stack([1 - prior, prior]) / mass
    at = torch.tensor([0.3, 1.6])
    weight = weight * Normal(at, 0.5).log_prob(torch.tensor(0.7)).exp()
    bound = -((weight[:, None] + weight) / 2).log()
    assert torch.allclose(scg.exact_objective(g), (mass[:, None] * mass * bound).sum())


def test_a_bound_is_written_as_one() -> None:
    assert 'g.bound("bound", ' in as_code(data()) and 'over="k"' in as_code(data())


def of_a_cost() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", torch.zeros(3), plates="k")
    g.bound("bound", g.cost("c", x**2), over="k")
    return g


def elsewhere() -> scg.Graph:
    g = scg.Graph()
    g.bound("bound", g.input("x", torch.zeros(3), plates="b") ** 2, over="k")
    return g


def ordered() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", ordered=True)
    g.bound("bound", g.input("x", torch.zeros(3), plates="k") ** 2, over="k")
    return g


def masked() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", reduce="sum")
    x, mask = g.input("x", torch.zeros(3), plates="k"), g.input("mask", torch.ones(3), plates="k")
    z = g.sample("z", Normal, g.param("m", 0.0), 1.0, value=x, where=mask)
    g.bound("bound", z**2, over="k")
    return g


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (of_a_cost, "'bound' .* is of 'c', a cost, which would count by itself"),
        (elsewhere, "over 'k', and the plates of 'pow_1' are b"),
        (ordered, "an ordered plate"),
        (masked, "some elements of 'z' do not exist"),
    ],
)
def test_what_there_is_no_bound_of_is_refused(made: Callable[[], scg.Graph], told: str) -> None:
    with pytest.raises(PlateError, match=told):
        made().freeze()


def test_replicates_are_no_plate() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", 0.0), 1.0)
    with pytest.raises(GraphError, match=r"samples=K averages.*g.plate\(\"particles\", size=K\)"):
        g.bound("bound", z**2, over="samples")
    with pytest.raises(GraphError, match="of a node, not of a float"):
        g.bound("bound", 3.0, over="k")  # type: ignore[arg-type]


def test_terms_have_one_number_for_each_element() -> None:
    g = scg.Graph()
    g.bound("bound", g.input("x", torch.zeros(3, 2), plates="k"), over="k")
    with pytest.raises(scg.ScgError, match="bound"):
        scg.compile(g)


def test_replicates_average_bounds() -> None:
    g = particles(2)
    program = scg.compile(g, "score", samples=3)
    estimate = program(seed=0)
    assert estimate.costs["bound"].shape == (3,)
    assert torch.allclose(estimate.loss, estimate.costs["bound"].mean())


def test_no_weight_at_all_has_no_part_in_a_bound() -> None:
    from scg.nodes.bounds import LogMeanExp

    terms = torch.tensor([1.0, torch.inf], requires_grad=True)
    found: Tensor = LogMeanExp(-1)(terms)
    assert torch.allclose(found, 1 + torch.tensor(2.0).log())
    (slope,) = torch.autograd.grad(found, terms)
    assert slope.tolist() == [1.0, 0.0]
