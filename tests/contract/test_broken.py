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
from scg.estimators.parts import variates
from scg.estimators.protocol.site import Parameters, Site
from scg.laws import bernoulli
from scg.oracle import exact_gradient
from scg.surrogate.lowering import credit
from scg.surrogate.lowering.credit import Credit
from tests.contract import shapes
from tests.contract.judge import is_exact
from tests.contract.test_pairs import Make
from tests.contract.test_variate_pairs import LARGE, ends, judge

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


def path_at_one_point(patch: pytest.MonkeyPatch) -> None:
    """Leave out dc(z~)."""
    patch.setattr(variates, "signs", lambda points: points.new_tensor([1.0, 0.0]))


def points_swapped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(variates, "signs", lambda points: points.new_tensor([-1.0, 1.0]))


def condition_not_differentiated(patch: pytest.MonkeyPatch) -> None:
    """Move z~ with the logits as if its outcome were not given."""
    right = bernoulli.Bernoulli.points

    def points(law: bernoulli.Bernoulli, *given: Any) -> tuple[Tensor, Callable[[Tensor], Parameters]]:
        stacked, _ = right(law, *given)
        return stacked, lambda slopes: {"logits": slopes.sum(0)}

    patch.setattr(bernoulli.Bernoulli, "points", points)


def scaled_in_one_place(patch: pytest.MonkeyPatch) -> None:
    """Leave eta out of the path derivatives."""
    right = Site.spread

    def spread(self: Site, value: Tensor, like: Tensor) -> Tensor:
        return right(self, value if value.dim() else torch.ones_like(value), like)

    patch.setattr(Site, "spread", spread)


def share_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Take a path derivative of a discounted total for one of what the step is charged with."""

    def shared(self: Site, gradients: Parameters) -> Parameters:
        return gradients

    patch.setattr(Site, "shared", shared)


BROKEN_VARIATES: list[tuple[Break, Make]] = [
    (path_at_one_point, shapes.chain),
    (points_swapped, shapes.chain),
    (condition_not_differentiated, shapes.chain),
    (scaled_in_one_place, shapes.chain),
    (share_forgotten, shapes.ordered),
]


@pytest.mark.parametrize(
    ("broken", "make"), BROKEN_VARIATES, ids=[case[0].__name__ for case in BROKEN_VARIATES]
)
def test_broken_control_variates_are_caught(
    monkeypatch: pytest.MonkeyPatch, broken: Break, make: Make
) -> None:
    (end,) = ends("rebar+warm")
    legendre, tolerance = (LARGE[make][0], 1e-3) if make in LARGE else (8, 1e-4)
    judge(make, end, end, legendre=legendre, tolerance=tolerance)
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        judge(make, end, end, legendre=legendre, tolerance=tolerance)
