"""Policies: what is chosen for each node and why, what is refused, and estimators of others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Distribution,
    Geometric,
    Normal,
    OneHotCategorical,
    Poisson,
    Uniform,
)

import scg
from scg import Asks, NodeFacts, Refusal, Site
from scg.choosing.refusing import AFFORDABLE
from scg.estimators.registry import registry
from tests.support.integrate import integrated_gradient


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def one(law: Any, cost: Callable[[Tensor], Tensor] = torch.sum, **parameters: Any) -> scg.Graph:
    g = scg.Graph()
    given = {name: g.param(name, value) for name, value in parameters.items()}
    g.cost("c", cost, g.sample("z", law, **given))
    return g


def step(z: Tensor) -> Tensor:
    return (z > 0.1).double().sum()


def chosen(g: scg.Graph, **options: Any) -> scg.Estimator:
    return scg.compile(g, **options).policy["z"]


@pytest.mark.parametrize(
    ("law", "parameters"),
    [
        (Bernoulli, {"logits": torch.zeros(3)}),
        (Categorical, {"logits": torch.zeros(5)}),
        (OneHotCategorical, {"logits": torch.zeros(5)}),
        (Bernoulli, {"probs": torch.tensor(0.3)}),
    ],
)
def test_small_finite_supports_are_enumerated(law: Any, parameters: dict[str, Tensor]) -> None:
    assert chosen(one(law, lambda z: z.double().cumsum(-1).sum(), **parameters)).name == "enumerate"


def test_smooth_continuous_nodes_are_reparameterised() -> None:
    program = scg.compile(one(Normal, loc=torch.zeros(2), scale=torch.ones(2)))
    assert program.policy["z"].name == "reparam"
    assert "automatic, since enumerate: the support of a Normal is not finite" in program.explain()


@pytest.mark.parametrize(
    "g",
    [
        lambda: one(Normal, step, loc=torch.zeros(2), scale=torch.ones(2)),
        lambda: one(Poisson, rate=torch.tensor(2.0)),
        lambda: one(Geometric, logits=torch.tensor(0.5)),
        lambda: one(Bernoulli, step, logits=torch.zeros(20)),
    ],
)
def test_the_rest_gets_the_score_with_a_baseline(g: Callable[[], scg.Graph]) -> None:
    past, others = chosen(g()), chosen(g(), samples=4)
    assert isinstance(past, scg.Score) and past.baseline == scg.MovingAverage()
    assert isinstance(others, scg.Score) and others.baseline == scg.LeaveOneOut()
    assert getattr(chosen(g(), samples=1), "baseline", None) == scg.MovingAverage()


def test_reasons_name_what_was_passed_over() -> None:
    text = scg.compile(one(Normal, step, loc=torch.zeros(2), scale=torch.ones(2))).explain()
    assert (
        "z: score (automatic, since enumerate: the support of a Normal is not finite; reparam: the path"
        in text
    )
    assert "z -> c is not differentiable" in text


def test_what_was_asked_for_is_said_to_be() -> None:
    assert (
        "z: score (asked for); Bernoulli"
        in scg.compile(one(Bernoulli, logits=torch.zeros(2)), policy="score").explain()
    )


def several(count: int, elements: int = 3) -> scg.Graph:
    g = scg.Graph()
    shape = torch.zeros(elements)
    nodes = [g.sample(f"b{k}", Bernoulli, logits=g.param(f"t{k}", shape)) for k in range(count)]
    g.cost("c", lambda *bits: torch.stack(bits).sum(), *nodes)
    return g


@pytest.mark.parametrize(
    ("count", "expected"), [(1, "enumerate"), (2, "enumerate"), (3, "rebar"), (4, "rebar")]
)
def test_finite_nodes_are_enumerated_together_or_not_at_all(count: int, expected: str) -> None:
    assert (8**count <= AFFORDABLE) == (expected == "enumerate")
    policy = scg.compile(several(count)).policy
    assert {estimator.name for estimator in policy.values()} == {expected}


def test_branches_that_meet_are_counted_together() -> None:
    g = several(3)
    with pytest.raises(scg.EstimatorError, match="b0, b1, b2 are summed over at once: 512 joint.*100"):
        scg.compile(g, policy=scg.Enumerate(limit=100))
    assert len(scg.compile(g, policy=scg.Enumerate(limit=512)).policy) == 3


def test_a_node_that_reaches_no_cost_costs_no_budget() -> None:
    g = one(Bernoulli, logits=torch.zeros(3))
    g.sample("idle", Bernoulli, probs=torch.full((30,), 0.5))
    assert chosen(g).name == "enumerate"
    assert "idle" in scg.compile(g).policy


def three() -> scg.Graph:
    g = scg.Graph()
    nodes = [g.sample(name, Bernoulli, logits=g.param(f"t_{name}", 0.3)) for name in ("a1", "a2", "b")]
    g.cost("c", lambda *bits: (sum(bits) - 0.4) ** 2, *nodes)
    return g


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("score", ["score"] * 3),
        ("auto", ["enumerate"] * 3),
        ({}, ["enumerate"] * 3),
        ({"a*": "score"}, ["score", "score", "enumerate"]),
        ({"a?": "score", "b": "enumerate"}, ["score", "score", "enumerate"]),
        ({"a1": "enumerate", "*": "score"}, ["enumerate", "score", "score"]),
        ({"*": "score", "a*": "enumerate"}, ["enumerate", "enumerate", "score"]),
        ({"*": "score", "b": "auto"}, ["score", "score", "enumerate"]),
        ({"[ab]1": "score"}, ["score", "enumerate", "enumerate"]),
    ],
)
def test_names_win_over_globs_and_later_globs_over_earlier(policy: Any, expected: list[str]) -> None:
    found = scg.compile(three(), policy=policy).policy
    assert [found[name].name for name in ("a1", "a2", "b")] == expected


def test_an_instance_is_used_as_it_is() -> None:
    local = scg.Enumerate(local=True)
    found = scg.compile(three(), policy={"a*": local}).policy
    assert found["a1"] is local and found["a2"] is local and found["b"] is not local


@pytest.mark.parametrize("policy", ["score", "enumerate", {"a1": scg.Enumerate(local=True), "b": "score"}])
def test_values_do_not_depend_on_the_policy(policy: Any) -> None:
    g = three()
    one, other = (scg.compile(g, policy=p)(seed=5) for p in ("auto", policy))
    assert torch.equal(one.loss.detach(), other.loss.detach())
    assert all(torch.equal(value, other.samples[name]) for name, value in one.samples.items())


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_estimator_is_found_by_its_name(name: str) -> None:
    kind = registry()[name]
    assert kind.name == name and issubclass(kind, scg.Estimator) and isinstance(kind().unbiased, bool)


# ---- refusals


def test_a_refusal_names_the_path_and_the_remedy() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("t", 0.0), 1.0)
    g.cost("c", g.det("hit", step, g.det("shift", torch.tanh, z)) * 3.0)
    with pytest.raises(scg.EstimatorError) as error:
        scg.compile(g, policy={"z": "reparam"})
    told = str(error.value)
    assert told.startswith(
        "reparam cannot estimate 'z': the path z -> shift -> hit -> mul_1 -> c is not differentiable"
    )
    assert told.endswith('Use "score" or "lax"')


REFUSED = [
    (Bernoulli, {"logits": 0.3}),
    (Categorical, {"logits": [0.3, 0.1, -0.4]}),
    (Poisson, {"rate": 1.2}),
    (Normal, {"loc": 0.2, "scale": 0.7}),
    (Beta, {"concentration1": 1.5, "concentration0": 0.8}),
    (Uniform, {"low": -0.3, "high": 0.9}),
]


@pytest.mark.parametrize("name", sorted(registry()))
@pytest.mark.parametrize(("dist", "given"), REFUSED, ids=[dist.__name__ for dist, _ in REFUSED])
def test_what_a_refusal_names_is_not_refused(
    dist: type[Distribution], given: dict[str, Any], name: str
) -> None:
    g = scg.Graph()
    z = g.sample("z", dist, **{key: g.param(key, torch.tensor(value)) for key, value in given.items()})
    g.cost("c", lambda z: (z > 0.4).float(), z)
    told = refused(g, name)
    if told is None or "compile with samples=" in told:
        return
    several = re.findall(r'"([a-z-]+)"', told.partition(". Use ")[2])
    if ". Use " not in told:  # there is another remedy
        assert any(f": {word} " in told for word in ("give", "declare", "raise"))
        return
    assert 1 <= len(several) <= 2
    assert name not in several
    for other in several:
        assert registry()[other].unbiased
        assert refused(g, other) is None


def refused(g: scg.Graph, name: str) -> str | None:
    """What is said of an estimator that is refused."""
    try:
        scg.compile(g, name, allow_biased=True)
    except scg.EstimatorError as error:
        return str(error)
    return None


def test_what_is_chosen_by_name_alone_is_told_where_nothing_else_is_right() -> None:
    g = scg.Graph()
    z = g.sample("z", Uniform, 0.0, g.param("high", torch.tensor(1.0)))
    g.cost("c", step, z)
    with pytest.raises(scg.EstimatorError, match='no estimator is chosen for.*Use "measure-valued"'):
        scg.compile(g)


def test_a_remedy_offers_only_what_can_carry_the_node() -> None:
    with pytest.raises(scg.EstimatorError, match='Use "score" or "finite-difference"$'):
        scg.compile(one(Poisson, rate=torch.tensor(1.0)), policy="enumerate")
    with pytest.raises(scg.EstimatorError, match='Use "enumerate" or "rebar"$'):
        scg.compile(one(Bernoulli, logits=torch.tensor(0.0)), policy="reparam")


def test_the_limit_of_enumeration_is_an_option() -> None:
    g = one(Bernoulli, logits=torch.zeros(5))
    with pytest.raises(scg.EstimatorError, match=r"2\*\*5 joint outcomes, over the limit of 16"):
        scg.compile(g, policy=scg.Enumerate(limit=16))
    assert chosen(g, policy=scg.Enumerate(limit=32)).name == "enumerate"


# ---- estimators of others


@dataclass(frozen=True)
class FiniteDifference(scg.Cut):
    """f(1) - f(0), times dp: the exact derivative of a Bernoulli given what lies below."""

    name: ClassVar[str] = "finite-difference"

    def asks(self, facts: NodeFacts) -> Asks:
        return Asks(downstream=2)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        family = facts.law.family
        return None if family == "Bernoulli" else Refusal(f"a {family} has no two values")

    def gradient(self, site: Site) -> dict[str, Tensor]:
        high, low = site.downstream(torch.stack([torch.ones_like(site.value), torch.zeros_like(site.value)]))
        (name,) = site.parameters
        leaf = site.parameters[name]
        p = leaf.sigmoid() if name == "logits" else leaf
        slope = p * (1 - p) if name == "logits" else torch.ones_like(p)
        return {name: (high - low) * slope}


@dataclass(frozen=True)
class HalfScore(scg.Scored):
    """The score times one half: biased, and says so."""

    name: ClassVar[str] = "half-score"
    unbiased: ClassVar[bool] = False
    tried: ClassVar[int | None] = -1

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        return None

    def baseline(self, site: Site) -> Tensor:
        return 0.5 * site.credit


def chain() -> scg.Graph:
    g = scg.Graph()
    t, u = g.param("t", 0.3), g.param("u", -0.4)
    a = g.sample("a", Bernoulli, logits=t)
    b = g.sample("b", Bernoulli, logits=u + 1.5 * a)
    n = g.sample("n", Binomial, 2, logits=t * b - a)
    g.cost("c", (a * 2 + b * 3 - n) ** 2 + t * b)
    g.cost("d", a * b - u * n)
    return g


def plated() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.tensor([0.5, -1.2]))
    t, u = g.param("t", torch.tensor([0.7, -0.2])), g.param("u", 0.2)
    a = g.sample("a", Bernoulli, logits=u)
    b = g.sample("b", Bernoulli, logits=g.det("logits", lambda x, t: x * t[0] + t[1], x, t))
    g.cost("c", (b + a * 2 - x) ** 2)
    g.cost("d", g.det("total", lambda b, a: b.sum(0) ** 2 * a, b, a, plates=()) * u)
    return g


def gradients(g: scg.Graph, policy: Any, **options: Any) -> Tensor:
    program = scg.compile(g, policy=policy, **options)
    found = integrated_gradient(g, program)
    return torch.cat([gradient.flatten() for gradient in found.values()])


@pytest.mark.parametrize(
    ("build", "policy"),
    [
        (chain, {"a": FiniteDifference(), "b": FiniteDifference(), "n": "score"}),
        (chain, {"a": FiniteDifference(), "b": "enumerate", "n": "enumerate"}),
        (chain, {"a": "enumerate", "b": FiniteDifference(), "n": "score"}),
        (plated, {"a": FiniteDifference(), "b": "score"}),
        (plated, {"a": "enumerate", "b": "score"}),
    ],
)
def test_an_estimator_of_another_works_through_an_instance(
    build: Callable[[], scg.Graph], policy: Any
) -> None:
    exact = gradients(build(), "enumerate")
    assert torch.allclose(gradients(build(), policy), exact, rtol=0.0, atol=1e-9)
    assert float(exact.abs().min()) > 1e-3


def test_an_estimator_of_another_is_told_and_may_refuse() -> None:
    program = scg.compile(chain(), policy={"a": FiniteDifference()})
    assert "a: finite-difference (asked for); Bernoulli" in program.explain()
    assert "charged with c, d; 3 evaluations below" in program.explain()
    with pytest.raises(
        scg.EstimatorError, match="finite-difference cannot estimate 'n': a Binomial has no two values"
    ):
        scg.compile(chain(), policy={"n": FiniteDifference()})


def test_a_biased_estimator_has_to_be_allowed() -> None:
    with pytest.raises(
        scg.BiasedEstimatorError, match="'half-score' at 'a' is biased: .*allow_biased=True.*\"score\""
    ):
        scg.compile(chain(), policy={"a": HalfScore()})
    program = scg.compile(chain(), policy={"a": HalfScore()}, allow_biased=True)
    assert program.policy["a"].name == "half-score"


def test_an_allowed_bias_is_really_there() -> None:
    """The factor that an estimator gives is what is used, neither corrected nor ignored."""
    g = one(Bernoulli, logits=torch.tensor(0.3))
    half = gradients(g, HalfScore(), allow_biased=True)
    assert torch.allclose(half, 0.5 * gradients(g, "enumerate"), rtol=1e-9)


def test_automatic_choice_never_takes_what_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry(), "half-score", HalfScore)
    for allow in (False, True):
        found = scg.compile(three(), allow_biased=allow).policy
        assert {estimator.name for estimator in found.values()} == {"enumerate"}


def test_biased_and_impossible_are_told_together() -> None:
    with pytest.raises(
        scg.EstimatorError, match="(?s)'half-score' at 'a'.*reparam cannot estimate 'b'"
    ) as error:
        scg.compile(chain(), policy={"a": HalfScore(), "b": "reparam"})
    assert type(error.value) is scg.EstimatorError
