"""Counts are averaged in closed form where costs are polynomials, and a wrong estimate is not proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Poisson

import scg


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def square(z: Tensor) -> Tensor:
    return (z - 0.45) ** 2


def poisson(cost: Callable[[Tensor], Tensor] = square) -> scg.Graph:
    g = scg.Graph()
    rate = g.det("rate", torch.exp, g.param("t", torch.tensor(0.3)))
    g.cost("c", cost, g.sample("z", Poisson, rate))
    return g


def coin() -> scg.Graph:
    g = scg.Graph()
    g.cost("c", square, g.sample("z", Bernoulli, logits=g.param("t", torch.tensor(0.3))))
    return g


def choice() -> scg.Graph:
    g = scg.Graph()
    g.cost("c", square, g.sample("z", Categorical, logits=g.param("t", torch.tensor([0.2, 0.3, 0.5]))))
    return g


def below() -> scg.Graph:
    """A Poisson whose rate is random."""
    g = scg.Graph()
    a = g.sample("a", Bernoulli, logits=g.param("t", torch.tensor(0.3)))
    g.cost("c", square, g.sample("z", Poisson, g.det("rate", lambda a: a + 0.5, a)))
    return g


@dataclass(frozen=True)
class Scaled(scg.Cut):
    """A tenth too much."""

    name: ClassVar[str] = "scaled"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(downstream=1)

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        return {"rate": 1.1 * (site.downstream(site.value[None] + 1)[0] - site.credit)}


@pytest.mark.parametrize("policy", ["finite-difference", "measure-valued", "score"])
@pytest.mark.parametrize("make", [poisson, coin])
def test_polynomials_of_counts_are_proved(make: Callable[[], scg.Graph], policy: str) -> None:
    assert scg.prove(scg.compile(make(), policy)).standing == "proved"


def test_choices_are_proved() -> None:
    assert scg.prove(scg.compile(choice(), "measure-valued")).standing == "proved"


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (poisson, Scaled()),
        (lambda: poisson(lambda z: (z > 1.5).to(z) * z), "finite-difference"),
        (below, "finite-difference"),
    ],
    ids=["wrong", "compared", "a random rate"],
)
def test_what_is_not_within_reach_is_not_proved(
    make: Callable[[], scg.Graph], policy: str | scg.Estimator
) -> None:
    assert scg.prove(scg.compile(make(), policy)).standing in ("assumed", "failed")
