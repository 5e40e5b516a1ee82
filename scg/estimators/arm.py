"""ARM: the costs at u and at 1 - u, weighed by how far u is from one half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site


@dataclass(frozen=True)
class ARM(Cut):
    """(f(b) - f(b')) (u - 1/2) in logits, b of noise u and b' of 1 - u.

    "coupled" has its mean given both values, and so less variance: this is for comparison. Yin and Zhou
    (2019, "ARM: Augment-REINFORCE-merge gradient for stochastic binary networks", arXiv:1807.11143).
    """

    name: ClassVar[str] = "arm"

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse all but Bernoulli variables."""
        family = facts.law.family
        if family == "Bernoulli":
            return None
        return Refusal(f"a {family} is not drawn from one uniform number")

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs at the other value."""
        return Asks(downstream=1)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, 0 where probs are certain."""
        other = site.law.draw(site.parameters, 1 - site.noise)
        difference = site.credit - site.downstream(other[None])[0]
        found = site.spread(difference, site.value) * (site.noise - 0.5)
        ((name, leaf),) = site.parameters.items()
        if name == "logits":
            return {name: found}
        variance = leaf * (1 - leaf)
        return {name: torch.where(variance > 0, found / variance, 0.0)}
