"""VIMCO: exact under bounds of two and three samples, below its relatives in variance, refused elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from scg.estimators.vimco import stand_in
from scg.testing.examples import bounded
from tests.support.integrate import integrated_gradient

MEANS = [scg.VIMCO("geometric"), scg.VIMCO("arithmetic")]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def coin(size: int, given: str = "logits", reduce: Literal["mean", "sum"] = "mean") -> scg.Graph:
    """A coin for each particle."""
    g = scg.Graph()
    k = g.plate("k", size=size, reduce=reduce)
    a, t = g.param("a", torch.tensor(0.4)), g.param("t", torch.tensor(-0.3))
    z = g.sample("z", Bernoulli, **{given: a}, plates=k)
    likelihood = g.log_prob(Normal, 0.7, 1.3 * z - t, 0.5)
    g.bound("bound", g.log_prob(z) - g.log_prob(Bernoulli, z, logits=t) - likelihood, over=k)
    return g


def choice() -> scg.Graph:
    """A choice of three for each of two particles."""
    g = scg.Graph()
    k = g.plate("k", size=2)
    z = g.sample("z", Categorical, logits=g.param("a", torch.tensor([0.4, -0.3, 0.1])), plates=k)
    g.bound("bound", g.log_prob(z) + (z - 0.7 - g.param("t", 0.2)) ** 2, over=k)
    return g


def several() -> scg.Graph:
    """Two coins of each particle, a plate that the terms add over, and a cost besides."""
    g = scg.Graph()
    g.plate("k", size=2)
    w = g.param("w", torch.tensor([0.4, -0.6]))
    x = g.input("x", torch.tensor([0.3, -0.8]), plates="batch")
    z = g.sample("z", Bernoulli, logits=x + w[0], plates=("k", "batch"))
    total = g.det("total", lambda z, w: (z * w[1]).sum(-1), z, w, plates="k")
    g.bound(
        "bound", (total - 0.4) ** 2 + g.det("log", lambda q: q.sum(-1), g.log_prob(z), plates="k"), over="k"
    )
    g.cost("other", (z - 0.2) ** 2)
    return g


def layers(above: str) -> scg.Graph:
    """A coin below another, both of each particle."""
    g = scg.Graph()
    k = g.plate("k", size=2)
    a, b = g.param("a", torch.tensor(0.4)), g.param("b", torch.tensor(-0.9))
    y = g.sample("y", Bernoulli, logits=a, plates=k if above == "k" else ())
    z = g.sample("z", Bernoulli, logits=b * y + 0.3, plates=k)
    g.bound("bound", g.log_prob(z) + (z - 0.7 * y - 0.4) ** 2, over=k)
    return g


def right(g: scg.Graph, policy: Any, **options: Any) -> None:
    exact = scg.exact_gradient(g)
    program = scg.compile(g, policy, samples=options.get("samples"))
    found = integrated_gradient(g, program, **options)
    for name in exact:
        assert torch.allclose(found[name], exact[name], rtol=0, atol=1e-12), name


@pytest.mark.parametrize("estimator", MEANS, ids=lambda one: one.mean)
@pytest.mark.parametrize("size", [2, 3])
def test_a_bound_of_coins_is_exact(size: int, estimator: scg.VIMCO) -> None:
    right(coin(size), estimator)


@pytest.mark.parametrize("estimator", MEANS, ids=lambda one: one.mean)
@pytest.mark.parametrize("made", [choice, several, lambda: coin(2, "probs"), lambda: coin(2, reduce="sum")])
def test_other_laws_plates_and_costs_are_exact(made: Callable[[], scg.Graph], estimator: scg.VIMCO) -> None:
    right(made(), estimator)


@pytest.mark.parametrize("above", ["k", ""])
@pytest.mark.parametrize("other", ["vimco", "enumerate", "score", "disarm"])
def test_layers_are_exact(other: str, above: str) -> None:
    """The coin above has the particles too, or is one for all of them."""
    if other == "vimco" and not above:
        return
    right(layers(above), {"y": other, "z": "vimco"}, mirrored=True)
    if above:
        right(layers(above), {"y": "vimco", "z": other}, mirrored=True)


def test_replicates_are_exact() -> None:
    right(coin(2), "vimco", samples=2)


def test_a_plate_of_data_is_exact() -> None:
    right(bounded(), "vimco", shared=("batch",))


def test_variance_is_far_below_that_of_the_plain_score() -> None:
    g = coin(5)

    def spread(policy: Any) -> float:
        program = scg.compile(g, policy)
        rows = [torch.autograd.grad(program(seed=seed).loss, g["a"].value)[0] for seed in range(500)]
        return float(torch.stack(rows).var())

    score = spread("score")
    assert all(spread(estimator) < score / 5 for estimator in MEANS)


def test_stand_ins_are_the_formulas() -> None:
    costs = torch.randn(2, 4, 3)
    weights = (-costs).exp()
    for place in range(4):
        others = [index for index in range(4) if index != place]
        rest = weights[:, others]
        geometric = (rest.sum(1) + rest.log().mean(1).exp()) / 4
        assert torch.allclose(stand_in(costs, 1, "geometric")[:, place], -geometric.log())
        assert torch.allclose(stand_in(costs, 1, "arithmetic")[:, place], -rest.mean(1).log())


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_terms_without_weight_leave_stand_ins_finite(mean: str) -> None:
    found = stand_in(torch.tensor([torch.inf, 1.0, torch.inf]), 0, mean)
    assert found.isfinite().all()
    expected = [1 + math.log(3.0), 0.0, 1 + math.log(3.0)]
    if mean == "arithmetic":
        expected = [1 + math.log(2.0), 0.0, 1 + math.log(2.0)]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_extreme_logits_stay_finite(logit: float) -> None:
    g = coin(3)
    with torch.no_grad():
        g["a"].value.fill_(logit)
    scg.compile(g, "vimco")(seed=0).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite() for p in g.parameters())


def plain() -> scg.Graph:
    g = scg.Graph()
    g.cost("c", g.sample("z", Bernoulli, logits=g.param("a", 0.0)))
    return g


def mixed() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", size=3)
    z = g.sample("z", Bernoulli, logits=g.param("a", 0.0), plates="k")
    g.bound("bound", g.det("m", lambda z: z - z.mean(-1, keepdim=True), z, mixes="k") ** 2, over="k")
    return g


def twice() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", size=3)
    z = g.sample("z", Bernoulli, logits=g.param("a", 0.0), plates="k")
    g.bound("one", z * 2, over="k")
    g.bound("other", z * 3, over="k")
    return g


def wider() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", size=3)
    x = g.input("x", torch.zeros(2), plates="batch")
    z = g.sample("z", Bernoulli, logits=g.param("a", 0.0), plates="k")
    g.bound("bound", (z - x) ** 2, over="k")
    return g


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (plain, "reaches 0: declare g.bound"),
        (twice, "reaches 2: give each its own"),
        (mixed, "along 'k' reaches the terms of others"),
        (wider, "a value for each element of .*batch"),
        (lambda: coin(1), "plate 'k' has one element"),
    ],
)
def test_what_it_is_not_for_is_refused(made: Callable[[], scg.Graph], told: str) -> None:
    with pytest.raises(scg.EstimatorError, match=told):
        scg.compile(made(), "vimco")


def test_two_bounds_have_two_estimators() -> None:
    right(twice(), scg.Parts({"one": "vimco", "other": scg.VIMCO("arithmetic")}))


def test_other_means_are_refused() -> None:
    with pytest.raises(scg.EstimatorError, match="mean is one of"):
        scg.VIMCO("harmonic")  # type: ignore[arg-type]


def test_torch_compile_takes_it() -> None:
    g = coin(3)
    program = scg.compile(g, "vimco")

    def left() -> list[Tensor]:
        return list(torch.autograd.grad(program(seed=1).loss, list(g.parameters())))

    plain_ones = left()
    program.compile(backend="eager")
    left()
    assert all(torch.allclose(one, other) for one, other in zip(plain_ones, left(), strict=True))
