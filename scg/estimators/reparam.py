"""Reparameterisation: the value is a differentiable function of the parameters and base noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Through


@dataclass(frozen=True)
class Reparam(Through):
    """The pathwise estimator d f(g(noise, eta)) / d eta, implicit where g has no closed form.

    Kingma and Welling (2014, arXiv:1312.6114); implicit: Figurnov et al. (2018, arXiv:1805.08498).
    """

    name: ClassVar[str] = "reparam"
    tried: ClassVar[int | None] = 1

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws without a right pathwise derivative, and paths that are not smooth."""
        if facts.law.pathwise is None:
            return Refusal(f"a {facts.law.family} has no differentiable map from noise to value")
        obstacle = facts.obstacle()
        return None if obstacle is None else Refusal(obstacle)

    def refuses_order(self, facts: NodeFacts) -> Refusal | None:
        """Refuse implicit derivatives, which torch differentiates once."""
        if facts.law.twice:
            return None
        return Refusal(f"torch has no second derivative of a draw from a {facts.law.family}", 'use "score"')
