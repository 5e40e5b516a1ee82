"""The comparisons of the contract are able to fail: each way of breaking credit is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.distributions import Bernoulli

import scg
from scg.analysis.influence import Influence
from scg.oracle import exact_gradient
from scg.surrogate.lowering import credit
from scg.surrogate.lowering.credit import Credit
from tests.contract.judge import is_exact

Break = Callable[[pytest.MonkeyPatch], None]


def plates() -> scg.Graph:
    """Two steps of an ordered plate in each element of another, with an aligned and an aggregate cost."""
    g = scg.Graph()
    p = g.plate("p", size=2)
    t = g.plate("t", size=2, ordered=True, discount=0.6)
    a = g.param("a", torch.tensor([[0.3, -0.5], [0.8, 0.1]]).double(), plates=(p, t))
    x = g.sample("x", Bernoulli, logits=a)
    past = g.det("past", lambda x: x.cumsum(-1), x)
    total = g.det("total", lambda x: x.sum(0), x, plates="t")
    g.cost("aligned", lambda past: (past - 0.4) ** 2, past)
    g.cost("aggregate", lambda total: 0.5 * (total - 0.6) ** 2, total)
    return g


def pieces() -> scg.Graph:
    """An element of a plate that nothing joins."""
    g = scg.Graph()
    p = g.plate("p", size=2)
    x = g.sample("x", Bernoulli, logits=g.param("a", torch.tensor([0.3, -0.5]).double(), plates=p))
    g.cost("cost", (x - 0.3) ** 2)
    return g


def counted_twice(patch: pytest.MonkeyPatch) -> None:
    right = Credit.term

    def term(self: Credit, world: Any, cost: str, name: str, *rest: Any) -> fx.Node:
        once = right(self, world, cost, name, *rest)
        return world.emitter.call(torch.add, once, once) if cost == "aggregate" else once

    patch.setattr(Credit, "term", term)


def forgotten(patch: pytest.MonkeyPatch) -> None:
    right = Influence.costs_of

    def costs_of(self: Influence, bits: int) -> list[str]:
        several = list(right(self, bits))
        return several[:1]

    patch.setattr(Influence, "costs_of", costs_of)


def dropped_plate_kept(patch: pytest.MonkeyPatch) -> None:
    """Credit an element with its own share of an aggregate, as if no path left the plate."""
    right = Credit._write

    def write(self: Credit, world: Any, cost: str, kept: tuple[str, ...], lead: Any) -> fx.Node:
        value = right(self, world, cost, kept, lead)
        return value if "p" in kept else world.emitter.call(torch.mul, value, 0.5)

    patch.setattr(Credit, "_write", write)


def kept_plate_summed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Influence, "kept", lambda self, ir, name, cost: ())


def shifted(patch: pytest.MonkeyPatch) -> None:
    """Credit a step with what comes after it, without its own cost."""
    right = credit.to_go

    def to_go(value: Tensor, dim: int, rate: float) -> Tensor:
        return right(value, dim, rate) - value

    patch.setattr(credit, "to_go", to_go)


def discounted_once_more(patch: pytest.MonkeyPatch) -> None:
    right = credit.to_go
    patch.setattr(credit, "to_go", lambda value, dim, rate: rate * right(value, dim, rate))


def restarted(patch: pytest.MonkeyPatch) -> None:
    """Count the discount from the start of the plate where it should count from the step."""
    right = credit.to_go

    def to_go(value: Tensor, dim: int, rate: float) -> Tensor:
        return right(credit.discounted(value, dim, rate), dim, 1.0)

    patch.setattr(credit, "to_go", to_go)


def judged(make: Callable[[], scg.Graph], policy: scg.Estimator) -> None:
    g = make()
    is_exact(g, scg.compile(g, policy), exact_gradient(g))


CASES: list[tuple[Break, Callable[[], scg.Graph], scg.Estimator]] = [
    (counted_twice, plates, scg.Score()),
    (forgotten, plates, scg.Score()),
    (dropped_plate_kept, plates, scg.Score()),
    (shifted, plates, scg.Score()),
    (discounted_once_more, plates, scg.Score()),
    (restarted, plates, scg.Score()),
    (kept_plate_summed, pieces, scg.Enumerate(local=True)),
]


@pytest.mark.parametrize(("broken", "make", "policy"), CASES, ids=[case[0].__name__ for case in CASES])
def test_broken_credit_is_caught(
    monkeypatch: pytest.MonkeyPatch, broken: Break, make: Callable[[], scg.Graph], policy: scg.Estimator
) -> None:
    judged(make, policy)
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        judged(make, policy)


def test_credit_across_a_kept_plate_shows_where_noise_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crediting too much has no bias under independent noise; under shared noise it has."""
    g = pieces()
    expected = exact_gradient(g)
    is_exact(g, scg.compile(g, "score"), expected, shared=("p",))
    kept_plate_summed(monkeypatch)
    is_exact(g, scg.compile(g, "score"), expected)
    with pytest.raises(AssertionError):
        is_exact(g, scg.compile(g, "score"), expected, shared=("p",))
