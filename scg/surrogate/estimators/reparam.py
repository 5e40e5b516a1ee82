"""Reparameterisation: the value is a differentiable function of the parameters and base noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scg.surrogate.estimators.base import Action, Estimator, NodeFacts


@dataclass(frozen=True)
class Reparam(Estimator):
    """The pathwise estimator d f(g(noise, eta)) / d eta, implicit where g has no closed form.

    Kingma and Welling (2014, arXiv:1312.6114); implicit: Figurnov et al. (2018, arXiv:1805.08498).
    """

    name: ClassVar[str] = "reparam"
    preference: ClassVar[int] = 1

    @property
    def action(self) -> Action:
        """The value stays attached to the parameters."""
        return Action.THROUGH

    def refuses(self, facts: NodeFacts) -> str | None:
        """Refuse laws without a right pathwise derivative, and paths that are not smooth."""
        if facts.law.pathwise is None:
            return f"a {facts.law.family} has no differentiable map from noise to value"
        return facts.obstacle()
