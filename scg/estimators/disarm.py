"""DisARM: two evaluations at values that are as unlike as their noise allows."""

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
class DisARM(Cut):
    """(f(b) - f(b')) / 2 (-1)^b' 1[b != b'] sigmoid(|a|) for logits a, with b from noise u and b' from 1 - u.

    Dong, Mnih and Tucker (2020, "DisARM: An antithetic gradient estimator for binary latent variables",
    arXiv:2006.10680); the same as U2G (Yin, Ho, Yan, Qian and Zhou, 2020).
    """

    name: ClassVar[str] = "disarm"

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse all but Bernoulli variables."""
        family = facts.law.family
        return None if family == "Bernoulli" else Refusal(f"a {family} is not drawn from one uniform number")

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs at the other value."""
        return Asks(downstream=1)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, zero where both values are the same."""
        other = site.law.draw(site.parameters, 1 - site.noise)
        difference = site.credit - site.downstream(other[None])[0]
        sign = (site.value - other) * site.spread(difference, site.value) / 2
        ((name, leaf),) = site.parameters.items()
        if name == "logits":
            return {name: sign * leaf.abs().sigmoid()}
        return {name: sign / torch.minimum(leaf, 1 - leaf).clamp(min=torch.finfo(leaf.dtype).tiny)}
