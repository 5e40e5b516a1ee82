"""ReinMax: straight-through by Heun's method, of second order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.parts.hard import Hard, drawn, mean, passed, sloped
from scg.estimators.parts.temperature import Temperature, temperature_at
from scg.estimators.parts.variates import relaxable
from scg.estimators.protocol.site import Site


@dataclass(frozen=True)
class ReinMax(Hard):
    """db = 2 J(q) dl - J(p) dl / 2 with q = (b + relax(l)) / 2, p the probabilities and l their logits.

    J(p) is the derivative of probabilities in their logits. Exact at ``temperature`` 1 where the costs are
    quadratic in b. Liu, Dong, Liu, Yu and Gao (2023, "Bridging discrete and backpropagation: Straight-through
    and beyond", arXiv:2304.08612). The temperature is a number or a function of the number of runs so far.
    """

    name: ClassVar[str] = "reinmax"

    temperature: Temperature = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no temperature, and one that is learned."""
        super().__post_init__()
        if self.temperature == "learned":
            raise EstimatorError(
                "reinmax passes the temperature no derivative: give a number, or a function of the number of "
                "runs so far"
            )

    def value(self, site: Site) -> Tensor:
        """Return the hard value, attached by the derivative of second order."""
        law, hard, heat = relaxable(site), drawn(site), temperature_at(site, self.temperature)
        logits = law.location(site.parameters)
        p, is_vector = mean(site, site.parameters).detach(), law.value_rank > 0
        q = (hard.to(p.dtype) + law.relax(logits, heat).detach()) / 2
        change = logits - logits.detach()  # 0, with the derivative of the logits
        slope = 2 * sloped(q, change, is_vector=is_vector) - sloped(p, change, is_vector=is_vector) / 2
        return passed(hard, slope)
