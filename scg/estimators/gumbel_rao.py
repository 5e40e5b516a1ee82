"""Gumbel-Rao: straight-through Gumbel-softmax, averaged over the noise that gives the same value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.parts.hard import Hard, drawn, passed
from scg.estimators.parts.temperature import Temperature, temperature_at
from scg.estimators.parts.variates import relaxable
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.site import Site


@dataclass(frozen=True)
class GumbelRao(Hard):
    """b + m - sg m, with m the mean of relax(l + sg(z~ - l)) over several ``draws`` of z~ from p(z | b).

    It has the mean of the straight-through Gumbel-softmax estimator at the same ``temperature``, and less
    variance. Paulus, Maddison and Krause (2021, "Rao-Blackwellizing the straight-through Gumbel-softmax
    gradient estimator", arXiv:2010.04838). The temperature is a number, a function of the number of runs so
    far, or "learned": by the same derivative as the parameters.
    """

    name: ClassVar[str] = "gumbel-rao"

    temperature: Temperature = 0.5
    draws: int = 10

    def __post_init__(self) -> None:
        """Refuse what is no temperature, and what is no number of draws."""
        super().__post_init__()
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 1:
            raise EstimatorError(f"draws is a number from 1 on, not {self.draws!r}")

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the noise of every draw besides."""
        return Asks(standard=True, fresh=("base",) * self.draws)

    def value(self, site: Site) -> Tensor:
        """Return the hard value, attached as the mean of soft ones."""
        law, hard, heat = relaxable(site), drawn(site), temperature_at(site, self.temperature)
        logits = law.location(site.parameters)
        noise = torch.stack([site.fresh_noise(index) for index in range(self.draws)])
        several = hard.expand(self.draws, *hard.shape)
        added = (law.conditional(site.parameters, several, noise) - logits).detach()
        return passed(hard, law.relax(logits + added, heat).mean(0))
