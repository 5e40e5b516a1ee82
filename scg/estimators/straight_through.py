"""Straight-through: the hard value passes on with the derivative of its mean, or of a relaxed value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scg.estimators.parts.hard import Hard, drawn, mean, passed
from scg.estimators.parts.temperature import Temperature, temperature_at
from scg.estimators.parts.variates import relaxable
from scg.estimators.protocol.site import Site


@dataclass(frozen=True)
class StraightThrough(Hard):
    """b + m - sg m, with m the mean of b, or relax(z) at a ``temperature`` if there is one.

    Exact without a temperature where the costs are linear in b. Bengio, Leonard and Courville (2013,
    "Estimating or propagating gradients through stochastic neurons", arXiv:1308.3432); with a temperature,
    the straight-through Gumbel-softmax estimator of Jang, Gu and Poole (2017, arXiv:1611.01144). The
    temperature is a number, a function of the number of runs so far, or "learned": by the same derivative
    as the parameters.
    """

    name: ClassVar[str] = "straight-through"

    temperature: Temperature | None = None

    def value(self, site: Site) -> Tensor:
        """Return the hard value, attached as the soft one is."""
        if self.temperature is None:
            return passed(drawn(site), mean(site, site.parameters))
        law, heat = relaxable(site), temperature_at(site, self.temperature)
        return passed(drawn(site), law.relax(law.location(site.parameters) + site.standard, heat))
