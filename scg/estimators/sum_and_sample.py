"""Sum and sample: the likeliest outcomes of each element are summed, and the rest has one draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.estimators.local import infinite
from scg.estimators.parts.outcomes import check_number, drawn, every, own_noise, summed
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site


@dataclass(frozen=True)
class SumAndSample(Cut):
    """sum over the k likeliest c of dp(c) f(c), and (1 - P) f(b') dlog p(b') with b' from the rest.

    P is the probability of those k. One element is set at a time, the others at their sample. Liu, Regier,
    Tripuraneni, Jordan and McAuliffe (2019, "Rao-Blackwellized stochastic gradients for discrete
    distributions", arXiv:1810.04777).
    """

    name: ClassVar[str] = "sum-and-sample"

    k: int = 4

    def __post_init__(self) -> None:
        """Refuse what is no number of outcomes."""
        check_number("k", self.k, 1)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse supports that are not finite."""
        return infinite(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs at k outcomes and a draw of each element, or at all outcomes if that is less."""
        outcomes = facts.outcomes or 0
        fresh = ("uniform",) if outcomes > self.k + 1 else ()
        return Asks(fresh=fresh, downstream=min(self.k + 1, outcomes) * facts.elements)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the sum, in which the draw counts the mass of the rest over its own."""
        mass = site.law.mass(site.parameters)
        if len(mass) <= self.k + 1:
            return summed(site, every(mass), lambda costs: costs)
        top = mass.topk(self.k, dim=0).indices
        rest = mass.scatter(0, top, 0.0)
        place = drawn(rest, own_noise(site))[None]
        own = rest.gather(0, place)
        weight = torch.where(own > 0, rest.sum(0) / own, 0.0)
        weights = torch.cat([torch.ones_like(top, dtype=mass.dtype), weight])

        def counted(costs: Tensor) -> Tensor:
            # Where nothing is left to draw, what masses of 0 would gain is unseen: no slope, and not half.
            mean = (mass.gather(0, top) * costs[: self.k]).sum(0)
            return weights * (costs - torch.where(rest.sum(0) > 0, 0.0, mean))

        return summed(site, torch.cat([top, place]), counted)
