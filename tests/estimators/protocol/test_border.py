"""The border: a class that breaks the protocol is refused when it is met, an estimate when it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.estimators import registry as registering
from scg.estimators.protocol.border import check_estimates, check_kind


@dataclass(frozen=True)
class Free(scg.Cut):
    """Whatever a test wants: ``give`` makes the estimate, ``want`` is asked for."""

    name: ClassVar[str] = "free"
    give: Callable[[scg.Site], Any] = lambda site: site.score(site.value, site.credit)
    want: Any = field(default_factory=scg.Asks)
    no: Any = None

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        found: scg.Refusal | None = self.no
        return found

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        found: scg.Asks = self.want
        return found

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.give(site)
        return found


def two() -> scg.Graph:
    """A normal with two parameters that need a gradient."""
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", torch.zeros(3)), g.param("s", torch.ones(())))
    g.cost("c", (z**2).sum())
    return g


def test_what_is_right_passes() -> None:
    program = scg.compile(two(), Free())
    program(seed=0).loss.backward()
    assert all(p.grad is not None for p in program.parameters())


GIVEN: dict[str, tuple[Callable[[scg.Site], Any], str]] = {
    "no dict": (lambda site: site.credit, "free at 'z': gradient.. returns a dict by parameter, not Tensor"),
    "a parameter left out": (
        lambda site: {"loc": torch.zeros(3)},
        "free at 'z' gave parameter 'scale', which needs a gradient, no estimate",
    ),
    "another parameter": (
        lambda site: {"loc": torch.zeros(3), "scale": torch.zeros(3), "mean": torch.zeros(3)},
        "free at 'z' gave 'mean' an estimate; the parameters are loc, scale",
    ),
    "a shape that would broadcast": (
        lambda site: {"loc": torch.zeros(1), "scale": torch.zeros(3)},
        r"'loc' an estimate of shape \(1,\): return one of its own shape, \(3,\)",
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_an_estimate_that_does_not_fit_is_refused(name: str) -> None:
    give, message = GIVEN[name]
    with pytest.raises(scg.EstimatorError, match=message):
        scg.compile(two(), Free(give))(seed=0)


READ: dict[str, tuple[Callable[[scg.Site], Any], str]] = {
    "fresh noise": (lambda site: site.fresh_noise(), r"Asks\(fresh=\(1 kinds\)\)"),
    "the standardised variable": (lambda site: site.standard, r"Asks\(standard=True\)"),
    "costs at other values": (lambda site: site.downstream(site.value[None]), r"Asks\(downstream=n\)"),
    "costs at relaxed values": (lambda site: site.relaxed(site.value[None]), r"Asks\(relaxed=n\)"),
    "a network": (lambda site: site.predict(), r"Asks\(points=True or context"),
    "an axis": (lambda site: site.dim("batch"), "there is no axis 'batch' here; there are none"),
}


@pytest.mark.parametrize("name", READ)
def test_what_was_not_asked_for_is_not_there(name: str) -> None:
    read, message = READ[name]
    with pytest.raises(scg.EstimatorError, match=message):
        scg.compile(two(), Free(read))(seed=0)


ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "another record": ({"want": {"fresh": 1}}, r"free at 'z': asks\(\) returns a scg.Asks, not dict"),
    "another kind of noise": (
        {"want": scg.Asks(fresh=("cauchy",))},
        "'z' asks for fresh noise of kind 'cauchy'; there are base, uniform, normal",
    ),
    "a refusal in words": (
        {"no": "no"},
        r"free at 'z': refuses\(\) returns a scg.Refusal or None, not 'no'",
    ),
    "replicates that are not there": (
        {"want": scg.Asks(independent="replicates")},
        "compares replicates: compile with samples=2",
    ),
    "a plate that is not there": (
        {"want": scg.Asks(independent="batch")},
        "along 'batch', and the axes here are none: name one of them",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_given_is_refused_when_compiling(name: str) -> None:
    options, message = ASKED[name]
    with pytest.raises(scg.EstimatorError, match=message):
        scg.compile(two(), Free(**options))


@dataclass(frozen=True)
class Value(scg.Through):
    """Passes on the draw, or what is made of the standardised variable."""

    name: ClassVar[str] = "value"
    want: scg.Asks = field(default_factory=scg.Asks)

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return self.want

    def value(self, site: scg.Site) -> Tensor:
        soft = (site.parameters["logits"] + site.standard).sigmoid()
        hard = site.law.draw(site.parameters, site.noise)
        assert torch.equal(hard, (site.parameters["logits"] + site.standard > 0).to(hard))
        return hard.detach() + soft - soft.detach()


def test_a_value_is_made_of_noise_alone() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.3, -2.0]).double()))
    g.cost("c", b.sum())
    program = scg.compile(g, Value(scg.Asks(standard=True)), samples=4)
    program(seed=0).loss.backward()
    assert program.t.grad is not None
    with pytest.raises(scg.EstimatorError, match=r"Asks\(standard=True\)"):
        scg.compile(g, Value())(seed=0)
    with pytest.raises(scg.EstimatorError, match="makes values, before there is a site"):
        scg.compile(g, Value(scg.Asks(downstream=1)))


def lacking(**members: Any) -> type:
    """A class like ``Free`` with other members."""
    return type("Mine", (Free,), members)


class NoMethod(scg.Through):
    name = "none"


class TwoKinds(Free, scg.Through):
    """Of two kinds at once."""


class Plain(scg.Through):
    name: ClassVar[str] = "plain"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None


@dataclass(frozen=True)
class Required(Plain):
    tried: ClassVar[int | None] = 1
    option: float


BROKEN: dict[str, tuple[Any, str]] = {
    "no estimator": (dict, "dict is no estimator: it is no class of one of the four kinds"),
    "no kind": (type("Bare", (scg.Estimator,), {}), "it has to be of one of the four kinds"),
    "two kinds": (TwoKinds, "it has to be of one of the four kinds"),
    "no method": (NoMethod, r"NoMethod is no estimator: it lacks the method refuses\(\)"),
    "no name": (lacking(name=None), "name is the word for it in policies"),
    "tried in words": (lacking(tried="first"), "tried is a number, .* or None, not 'first'"),
    "unbiased in words": (lacking(unbiased="yes"), "unbiased is True or False, not 'yes'"),
    "another signature": (lacking(gradient=lambda self: {}), r"its method gradient\(\) takes one argument"),
    "no options": (Plain, "its options are the fields of a frozen dataclass"),
    "an option that is required": (Required, "its option 'option' has no default"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_class_that_breaks_the_protocol_is_refused(name: str) -> None:
    kind, message = BROKEN[name]
    with pytest.raises(scg.EstimatorError, match=message):
        check_kind(kind)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register classes of others."""

    def register(*kinds: Any) -> None:
        points = [EntryPoint(str(index), "none", "scg.estimators") for index, _ in enumerate(kinds)]
        monkeypatch.setattr(EntryPoint, "load", lambda self: kinds[int(self.name)])
        monkeypatch.setattr(registering, "entry_points", lambda group: points)
        registering.registry.cache_clear()

    yield register
    registering.registry.cache_clear()


def test_others_are_checked_when_they_are_registered(registered: Any) -> None:
    registered(Free)
    assert registering.registry()["free"] is Free
    registered(lacking(tried="first"))
    with pytest.raises(scg.EstimatorError, match="Mine is no estimator: tried is a number"):
        scg.compile(two())


def test_a_name_is_taken_once(registered: Any) -> None:
    registered(lacking(name="score"))
    with pytest.raises(scg.EstimatorError, match="two estimators 'score'"):
        scg.compile(two())


def test_a_name_whose_options_are_required_says_so(registered: Any) -> None:
    registered(type("Mine", (Required,), {"tried": None}))
    with pytest.raises(scg.PolicyError, match="'plain' has options without a default"):
        scg.compile(two(), "plain")


def test_instances_are_checked_as_well() -> None:
    with pytest.raises(scg.EstimatorError, match="tried is a number"):
        scg.compile(two(), lacking(tried="first")())


def test_axes_are_named() -> None:
    seen: list[tuple[scg.Axis, ...]] = []

    def give(site: scg.Site) -> dict[str, Tensor]:
        seen.append(site.axes)
        return site.score(site.value, site.credit)

    g = scg.Graph()
    x = g.input("x", plates=("time", "batch"), example=torch.zeros(4, 2))
    g.plate("time", ordered=True, discount=0.5, reduce="sum")
    g.cost("c", g.sample("b", Bernoulli, logits=x + g.param("t", 0.1)) ** 2)
    scg.compile(g, Free(give), samples=3)(x=torch.zeros(4, 2), seed=0)
    assert [axis.name for axis in seen[-1]] == ["replicates", "time", "batch"]
    assert [axis.size for axis in seen[-1]] == [3, 4, 2]
    assert [axis.is_mean for axis in seen[-1]] == [True, False, True]
    assert [axis.discount for axis in seen[-1]] == [1.0, 0.5, 1.0]


def test_an_estimate_of_as_many_numbers_in_another_shape_is_refused() -> None:
    wanted = {"logits": torch.zeros(3, 2)}
    check_estimates(scg.Coupled(), "b", {"logits": torch.zeros(3, 2)}, wanted, ["logits"])
    with pytest.raises(
        scg.EstimatorError, match=r"estimate of shape \(2, 3\): return one of its own shape, \(3, 2\)"
    ):
        check_estimates(scg.Coupled(), "b", {"logits": torch.zeros(2, 3)}, wanted, ["logits"])
