"""The kit for authors of estimators: right ones pass every check, wrong ones fail the check that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

import scg
from scg import testing
from scg.estimators.registry import registry
from scg.testing.options import VARIANTS

OWN = [name for name, kind in registry().items() if kind.__module__.startswith("scg.")]
EXACT = [make() for name in OWN for make in (registry()[name], *VARIANTS.get(name, ()))]


@testing.parametrize_with_checks(EXACT)
def test_right_estimators_pass(estimator: scg.Estimator, check: testing.Check) -> None:
    testing.run(estimator, check)


@dataclass(frozen=True)
class Own(scg.Cut):
    """The score: what the wrong ones below are made of."""

    name: ClassVar[str] = "own"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None if facts.law.family == "Bernoulli" else scg.Refusal("it is for a Bernoulli")

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        return site.score(site.value, site.credit)


@dataclass(frozen=True)
class Scaled(Own):
    """One and a half times the estimate."""

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        return {name: 1.5 * part for name, part in super().gradient(site).items()}


@dataclass(frozen=True)
class OwnSample(Own):
    """A baseline of all replicates, the own one included."""

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        mean = site.credit.mean(0, keepdim=True) if site.lead else site.credit
        return site.score(site.value, site.credit - mean)


@dataclass(frozen=True)
class Drawing(Own):
    """Noise from torch's global generator."""

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        return {name: part + torch.randn_like(part) for name, part in super().gradient(site).items()}


@dataclass(frozen=True)
class Narrow(Own):
    """An estimate of the wrong shape."""

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        return {name: part.sum(0) for name, part in super().gradient(site).items()}


@dataclass(frozen=True)
class Refusing(Own):
    """Nothing is right for it."""

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return scg.Refusal("never")


@dataclass(frozen=True)
class Flipping(scg.Through):
    """The value is another than that of the law."""

    name: ClassVar[str] = "flipping"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None if facts.law.family == "Bernoulli" else scg.Refusal("it is for a Bernoulli")

    def value(self, site: scg.Site) -> Tensor:
        return 1 - site.law.draw(site.parameters, site.noise)


WRONG: dict[str, tuple[scg.Estimator, str]] = {
    "scaled": (Scaled(), "gradient-coins"),
    "own sample": (OwnSample(), "gradient-coins"),
    "global noise": (Drawing(), "repeats"),
    "wrong shape": (Narrow(), "repeats"),
    "refusing": (Refusing(), "accepts-something"),
    "other values": (Flipping(), "keeps-values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_estimators_fail_the_check_that_is_for_them(name: str) -> None:
    estimator, check = WRONG[name]
    with pytest.raises((AssertionError, scg.ScgError)):
        testing.checks()[check].run(estimator)


def test_all_checks_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        name: testing.checks()[name] for name in ("protocol", "repeats", "gradient-coins", "gradient-normal")
    }
    monkeypatch.setattr("scg.testing.estimators.checks", lambda: few)
    found = {outcome.check: outcome.status for outcome in testing.check_estimator(Own())}
    assert found == {
        "protocol": "passed",
        "repeats": "passed",
        "gradient-coins": "passed",
        "gradient-normal": "refused",
    }
    with pytest.raises(testing.CheckFailedError, match="fails 1 of 4 checks\n\ngradient-coins: biased"):
        testing.check_estimator(Scaled())
    testing.check_estimator(Scaled(), expected_failures={"gradient-coins": "it is scaled"})
    with pytest.raises(testing.CheckFailedError, match="repeats passes, though it is expected to fail: why"):
        testing.check_estimator(Own(), expected_failures={"repeats": "why"})
    assert [one.check for one in testing.check_estimator(Scaled(), only=["repeats"])] == ["repeats"]
    for asked in ({"expected_failures": {"gradient": "why"}}, {"only": ["gradient"]}):
        with pytest.raises(ValueError, match=r"there are no checks \['gradient'\]"):
            testing.check_estimator(Own(), **asked)  # type: ignore[arg-type]


def test_a_gradient_is_asserted_to_be_right() -> None:
    g = scg.Graph()
    g.cost("c", (g.sample("b", Bernoulli, logits=g.param("w", 0.3)) - 0.1) ** 2)
    assert testing.assert_unbiased(scg.compile(g, "disarm")).verdict == "unbiased"
    with pytest.raises(AssertionError, match="biased: along the reference, the mean is 1.5"):
        testing.assert_unbiased(scg.compile(g, Scaled()))
