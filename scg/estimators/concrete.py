"""Concrete: the derivative of the costs at a relaxed value, in place of that of their expectation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from scg.estimators.parts.temperature import (
    Temperature,
    check_temperature,
    count_run,
    held_temperature,
    temperature_at,
)
from scg.estimators.parts.variates import first_rough, relaxable
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Parameters, Site, derivative
from scg.laws import Relaxable, sum_event


@dataclass(frozen=True)
class Concrete(Cut):
    """df(relax(z)), z the variable of which b is the hard step, at a ``temperature``; also Gumbel-softmax.

    The program runs on b: values and costs are those of the graph, and f is evaluated at the relaxed value
    for the gradient alone. Maddison, Mnih and Teh (2017, "The concrete distribution: A continuous relaxation
    of discrete random variables", arXiv:1611.00712); Jang, Gu and Poole (2017, arXiv:1611.01144). The
    temperature is a number, a function of the number of runs so far, or "learned": it then descends
    f(relax(z)) as well.
    """

    name: ClassVar[str] = "concrete"
    unbiased: ClassVar[bool] = False

    temperature: Temperature = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no temperature."""
        check_temperature(self.temperature)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws without a relaxation, and nodes some cost of which is not smooth at relaxed values."""
        if not isinstance(facts.law, Relaxable):
            return Refusal(f"a {facts.law.family} cannot be relaxed")
        if facts.reaches_cost and facts.slice().obstacles:
            return Refusal(f"it takes every cost at relaxed values, and {first_rough(facts)}")
        return None

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the relaxed value and its costs, once more where the temperature descends them."""
        times = 1 + (self.temperature == "learned")
        return Asks(standard=True, relaxed=times * facts.reaches_cost)

    def learns(self, facts: NodeFacts) -> nn.Module | None:
        """Return the temperature, unless it is a number."""
        return held_temperature(self.temperature, facts.dtype)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the derivative at the relaxed value."""
        law, heat = relaxable(site), self._heat(site).detach()

        def cost(parameters: Parameters) -> tuple[Tensor, tuple[()]]:
            return _total(site, law.relax(law.location(parameters) + site.standard, heat), heat), ()

        found, _ = site.derivative(cost)
        return found

    def loss(self, site: Site) -> Tensor | None:
        """Return <sg df, relax(z)> for each element, of which the temperature takes the derivative of f."""
        law, heat = relaxable(site), self._heat(site)
        soft = law.relax(law.location(site.parameters) + site.standard, heat)
        held = heat.detach()
        slopes, _ = derivative(
            lambda at: (_total(site, at["soft"], held), ()), {"soft": soft}, attached=False
        )
        return sum_event(site.shared(slopes)["soft"] * soft, site.lead)

    def remember(self, site: Site) -> None:
        """Count the run."""
        count_run(site)

    def _heat(self, site: Site) -> Tensor:
        return torch.as_tensor(temperature_at(site, self.temperature)).to(site.credit)


def _total(site: Site, soft: Tensor, heat: Tensor) -> Tensor:
    """Return the costs at a relaxed value, every element of each counted once."""
    value = soft.to(site.value.dtype) if site.value.is_floating_point() else soft
    return site.relaxation(value[None], heat).total.sum()
