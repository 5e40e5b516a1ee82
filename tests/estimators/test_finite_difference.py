"""Finite differences: the weights are slopes of the distribution function, and one pick stands for all."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Binomial,
    Distribution,
    Geometric,
    NegativeBinomial,
    Normal,
    Poisson,
)

import scg
from scg.estimators.finite_difference import STEPS
from scg.estimators.protocol.facts import Axis
from scg.laws import law_for
from tests.estimators.building import facts, of, site

CASES: dict[str, tuple[type[Distribution], dict[str, Any], str]] = {
    "bernoulli-probs": (Bernoulli, {"probs": 0.3}, "probs"),
    "bernoulli-logits": (Bernoulli, {"logits": -0.8}, "logits"),
    "binomial-probs": (Binomial, {"total_count": 4, "probs": 0.3}, "probs"),
    "binomial-logits": (Binomial, {"total_count": 4, "logits": 0.7}, "logits"),
    "counted-binomial": (Binomial, {"total_count": 3.0, "logits": 0.7}, "logits"),
    "poisson": (Poisson, {"rate": 1.7}, "rate"),
    "geometric-probs": (Geometric, {"probs": 0.4}, "probs"),
    "geometric-logits": (Geometric, {"logits": 0.5}, "logits"),
    "negative-binomial-probs": (NegativeBinomial, {"total_count": 2.5, "probs": 0.3}, "probs"),
    "negative-binomial-logits": (NegativeBinomial, {"total_count": 2.5, "logits": -0.6}, "logits"),
}
MOST = 60
EXTREME = {"logits": (40.0, -40.0), "probs": (0.0, 1.0)}


def made(name: str) -> tuple[type[Distribution], dict[str, Any], str]:
    dist, given, learned = CASES[name]
    return (
        dist,
        {key: of(item)[0] if isinstance(item, float) else item for key, item in given.items()},
        learned,
    )


def support(dist: type[Distribution]) -> Tensor:
    most = {Bernoulli: 1, Binomial: 4}.get(dist, MOST)
    return torch.arange(most + 1, dtype=torch.double)


@pytest.mark.parametrize("name", CASES)
def test_weights_are_the_slope_of_the_distribution_function_over_the_mass(name: str) -> None:
    """-dF(x) / p(x) for a step up and -dF(x - 1) / p(x) for one down, each times its share of the mixture."""
    dist, given, learned = made(name)
    law, parameters = law_for(dist, given)
    values = support(dist)[: int(given["total_count"]) + 1 if dist is Binomial else None]
    leaf = parameters[learned].clone().requires_grad_()
    mass = law.log_prob({**parameters, learned: leaf}, values).exp()
    slopes = torch.stack([torch.autograd.grad(m, leaf, retain_graph=True)[0] for m in mass.cumsum(0)])
    chance = (
        Bernoulli(**{k: v for k, v in given.items() if k in ("probs", "logits")}).probs
        if name != "poisson"
        else of(0.0)
    )
    up = 1 - chance if dist in (Bernoulli, Binomial) else torch.ones(())
    below = torch.cat([of(0.0), slopes[:-1]])
    steps, weights = STEPS[law.family](
        law, {k: v.expand(values.shape) for k, v in parameters.items()}, values
    )
    inside = mass > 1e-9
    found = {sign: torch.where(steps == sign, weights, 0.0).sum(0) for sign in (1, -1)}
    assert torch.allclose(found[1][inside], (-slopes / mass * up)[inside], rtol=1e-6, atol=1e-9)
    assert torch.allclose(found[-1][inside], (-below / mass * (1 - up))[inside], rtol=1e-6, atol=1e-9)


def cost(x: Tensor) -> Tensor:
    return torch.cos(1.3 * x) + 0.1 * x


@pytest.mark.parametrize("name", CASES)
def test_its_mean_is_the_gradient(name: str) -> None:
    dist, given, learned = made(name)
    law, parameters = law_for(dist, given)
    values = support(dist)[: int(given["total_count"]) + 1 if dist is Binomial else None]
    leaf = parameters[learned].clone().requires_grad_()
    mass = law.log_prob({**parameters, learned: leaf}, values).exp()
    (expected,) = torch.autograd.grad(mass @ cost(values), leaf)
    total = 0.0
    for value, probability in zip(values, mass.detach(), strict=True):
        _, weights = STEPS[law.family](law, dict(parameters), value)
        for chance, u in cells(weights):
            provided = {"downstream": cost, "fresh": (u,)}
            noise = value if law.noise == "value" else of(0.5)[0]
            one = site(dist, given, noise, cost, provided=provided, value=value, credit=cost(value))
            total += probability * chance * scg.FiniteDifference().gradient(one)[learned]
    assert torch.allclose(total, expected, rtol=1e-9)


def cells(weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return how probable each pick is, and noise that makes it, for entries in the order of the picks."""
    edges = [0.0, *(weights.abs().flatten().cumsum(0) / weights.abs().sum()).tolist()]
    return [
        (of(high - low)[0], of((low + high) / 2)[0]) for low, high in itertools.pairwise(edges) if high > low
    ]


def joint(z: Tensor) -> Tensor:
    """A cost [n, groups, steps] of two steps and three entries together, of which a step sees its share."""
    total = (z * of(1.0, -0.7, 0.4)).sum(-1)
    return total.sum(-1, keepdim=True) ** 2 + total


def test_one_pick_for_each_group_stands_for_all_elements_in_it() -> None:
    """Groups have picks of their own; the steps of a joined axis, and the event, are picked from together."""
    axes = (Axis("batch", 2), Axis("time", 2, is_mean=False, joined=True))
    logits = torch.linspace(-1.5, 2.0, 12, dtype=torch.double).view(2, 2, 3)
    noise = torch.linspace(0.05, 0.95, 12, dtype=torch.double).view(2, 2, 3)
    weights = torch.sigmoid(logits) * torch.sigmoid(-logits)
    total = torch.zeros_like(logits)
    for group in range(2):
        for chance, u in cells(weights[group]):
            fresh = torch.full_like(noise, 0.5)
            fresh[group] = u
            one = site(
                Bernoulli,
                {"logits": logits},
                noise,
                joint,
                axes=axes,
                provided={"fresh": (fresh,), "downstream": joint},
            )
            found = scg.FiniteDifference().gradient(one)["logits"]
            assert int((found != 0).sum()) == 2
            total[group] += chance * found[group]
    value = one.value
    for place in itertools.product(range(2), range(2), range(3)):
        one_more, one_less = value.clone(), value.clone()
        one_more[place], one_less[place] = 1.0, 0.0
        gap = (joint(one_more[None]) - joint(one_less[None]))[0][place[:2]]
        assert torch.allclose(total[place], weights[place] * gap, rtol=1e-12)


def test_elements_that_do_not_exist_are_never_picked() -> None:
    axes = (Axis("time", 3, is_mean=False, joined=True),)
    exists = torch.tensor([True, False, True])
    for u in (0.01, 0.3, 0.5, 0.7, 0.99):
        one = site(
            Bernoulli,
            {"logits": of(0.3, 5.0, -0.2)},
            of(0.2, 0.4, 0.6),
            lambda z: z.sum(-1, keepdim=True) + 0 * z,
            axes=axes,
            provided={"fresh": (of(u).expand(3),)},
            exists=exists,
        )
        found = scg.FiniteDifference().gradient(one)["logits"]
        assert found[1] == 0 and found[exists].abs().sum() > 0


def infinite_at_one(b: Tensor) -> Tensor:
    return torch.where(b == 1, torch.inf, 0.3)


def test_what_cannot_happen_may_cost_anything() -> None:
    one = site(Bernoulli, {"probs": of(0.0)}, of(0.5), infinite_at_one, axes=(Axis("batch", 1),))
    assert scg.FiniteDifference().gradient(one)["probs"].tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["bernoulli-logits", "bernoulli-probs", "binomial-logits", "binomial-probs"])
def test_certain_outcomes_leave_finite_estimates(name: str, dtype: torch.dtype) -> None:
    dist, given, learned = made(name)
    for extreme in EXTREME[learned]:
        parameters = {**given, learned: torch.tensor([extreme, extreme], dtype=dtype)}
        fresh = torch.tensor([0.3, 0.3], dtype=dtype)
        one = site(dist, parameters, fresh, lambda z: z.sum(-1), provided={"fresh": (fresh,)})
        found = scg.FiniteDifference().gradient(one)[learned]
        assert found.dtype == dtype and bool(found.isfinite().all())


def test_what_it_refuses() -> None:
    estimator = scg.FiniteDifference()
    normal = {"loc": of(0.0), "scale": of(1.0)}
    assert "is no count" in str(estimator.refuses(facts(Normal, normal)))
    counted = {"total_count": of(2.0), "probs": of(0.3)}
    learned = facts(NegativeBinomial, counted, learned=lambda: frozenset({"total_count", "probs"}))
    assert "in total_count" in str(estimator.refuses(learned))
    assert estimator.refuses(facts(NegativeBinomial, counted, learned=lambda: frozenset({"probs"}))) is None


def test_it_takes_two_evaluations_of_any_number_of_elements() -> None:
    one, many = facts(Poisson, {"rate": of(1.0)}), facts(Poisson, {"rate": of(1.0)}, elements=500)
    assert scg.FiniteDifference().asks(one) == scg.Asks(downstream=1)
    assert scg.FiniteDifference().asks(many) == scg.Asks(downstream=1, fresh=("uniform",))
