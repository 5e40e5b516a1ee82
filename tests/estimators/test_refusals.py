"""What estimators refuse, ask for and learn, by the facts of a node alone."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Normal, Uniform

import scg
from scg.estimators.protocol.border import refusal
from scg.estimators.protocol.facts import Axis, Slice
from scg.estimators.reparam import Reparam
from tests.estimators.building import facts, of

BIT = {"logits": of(0.3)}
TIME = Axis("time", 3, is_mean=False)


def test_reparam_refuses_a_path_that_is_not_smooth() -> None:
    normal = {"loc": of(0.0), "scale": of(1.0)}
    assert Reparam().refuses(facts(Normal, normal)) is None
    found = Reparam().refuses(facts(Normal, normal, obstacle=lambda: "the path z -> hit is a step"))
    assert found == scg.Refusal("the path z -> hit is a step")


def test_the_score_refuses_a_support_that_moves() -> None:
    found = scg.Score().refuses(facts(Uniform, {"low": of(0.0), "high": of(1.0)}, moving="high"))
    assert found is not None and "moves with parameter 'high'" in str(found)


def test_self_critical_refuses_a_law_without_a_mode() -> None:
    estimator = scg.Score(baseline="self-critical")
    assert estimator.refuses(facts(Bernoulli, BIT)) is None
    assert "most likely value" in str(estimator.refuses(facts(Bernoulli, BIT, has_mode=False)))


@pytest.mark.parametrize(
    "axis", [TIME._replace(joined=True), TIME._replace(discount=0.9)], ids=["joined", "discounted"]
)
def test_elements_that_are_not_alike_and_apart_are_not_compared(axis: Axis) -> None:
    estimator = scg.Score(baseline=scg.LeaveOneOut("time"))
    assert refusal(estimator, facts(Bernoulli, BIT, axes=(TIME,))) is None
    assert "which costs below join" in str(refusal(estimator, facts(Bernoulli, BIT, axes=(axis,))))


def test_relax_asks_for_relaxed_costs_where_they_are_wanted() -> None:
    known = facts(Bernoulli, BIT, slice=lambda: Slice(("c",), {}))
    assert scg.RELAX().asks(known).relaxed == 2
    assert scg.RELAX(relaxed_cost=False).asks(known).relaxed == 0
    assert scg.RELAX().asks(facts(Bernoulli, BIT)).relaxed == 0


@pytest.mark.parametrize("tune", [False, True])
def test_rebar_learns_both_of_its_numbers_or_none(tune: bool) -> None:
    made = scg.REBAR(temperature=0.4, eta=0.7, tune=tune).learns(facts(Bernoulli, BIT))
    assert [name for name, _ in made.named_parameters()] == (["temperature.log", "eta.log"] if tune else [])


def test_a_default_network_starts_at_0() -> None:
    """So that the first step has the variance of the rest alone."""
    made = scg.RELAX().learns(facts(Bernoulli, BIT))
    assert made.net(torch.linspace(-2, 2, 5, dtype=torch.double)).abs().max() == 0
    assert any(bool((p != 0).any()) for p in made.net.parameters())
