"""Local enumeration: every outcome of one element at a time, the others at their sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.estimators.parts.elements import elements_of
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site, derivative
from scg.laws import unbounded_count


@dataclass(frozen=True)
class Local(Cut):
    """The sum over outcomes of each element, sum_jk dp(b_j = k) f(b with b_j = k).

    Local expectation gradients (Titsias and Lazaro-Gredilla, 2015, "Local expectation gradients for black
    box variational inference").
    """

    name: ClassVar[str] = "local"

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse supports that are not finite."""
        return infinite(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the graph below at each outcome of each element."""
        return Asks(downstream=(facts.outcomes or 0) * facts.elements)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return d/d(eta) sum_jk p(b_j = k; eta) f(b with b_j = k), with f detached."""
        law, support = site.law, site.law.support(site.parameters)
        elements = elements_of(site)
        outcomes = support[(slice(None), *(None,) * len(elements.batch))]
        costs = elements.evaluated(site, outcomes)

        def expected(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
            mass = law.mass(parameters)
            possible = torch.where((mass == 0) & ~torch.isfinite(costs), 0.0, costs)
            return (mass * possible).sum(), ()

        return derivative(expected, site.parameters, attached=False)[0]


def infinite(facts: NodeFacts) -> Refusal | None:
    """Refuse supports that are not finite."""
    if unbounded_count(facts.law) is not None:
        return Refusal(f"nothing in the graph bounds the number of trials of its {facts.law.family}")
    if not facts.law.finite:
        return Refusal(f"the support of a {facts.law.family} is not finite")
    return None
