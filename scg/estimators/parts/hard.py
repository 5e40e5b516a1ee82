"""Hard values that pass on a derivative which is not theirs: what straight-through estimators share."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from scg.estimators.parts.temperature import Temperature, check_temperature, count_run, held_temperature
from scg.estimators.parts.variates import relaxable
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Through
from scg.estimators.protocol.site import Parameters, Site
from scg.laws import Relaxable


class Hard(Through):
    """A discrete value as it is drawn, attached to the parameters by a relaxation of it."""

    unbiased: ClassVar[bool] = False

    temperature: Any  # an option of each

    def __post_init__(self) -> None:
        """Refuse what is no temperature."""
        if self.temperature is not None:
            check_temperature(self.temperature)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse values that are no relaxable numbers, and paths on which a derivative would be lost."""
        law = facts.law
        if not isinstance(law, Relaxable):
            return Refusal(f"a {law.family} cannot be relaxed")
        if law.soft.value_rank != law.value_rank:
            return Refusal(
                f"the value of a {law.family} is an index, which passes no derivative on",
                "declare a OneHotCategorical",
            )
        obstacle = facts.obstacle() if facts.reaches_cost else None
        return None if obstacle is None else Refusal(obstacle)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for what was added to the location."""
        return Asks(standard=True)

    def learns(self, facts: NodeFacts) -> nn.Module | None:
        """Return the temperature, unless it is a number."""
        given: Temperature | None = self.temperature
        return None if given is None else held_temperature(given, facts.dtype)

    def remember(self, site: Site) -> None:
        """Count the run."""
        count_run(site)


def drawn(site: Site) -> Tensor:
    """Return the value, which is not attached."""
    return relaxable(site).draw_standard(site.parameters, site.standard)


def passed(hard: Tensor, soft: Tensor) -> Tensor:
    """Return a hard value with the derivative of a soft one; what that adds is 0 in every digit."""
    soft = soft.to(hard.dtype)
    return hard + (soft - soft.detach())


def mean(site: Site, parameters: Parameters) -> Tensor:
    """Return the mean of the value: sum_k p_k v_k over its outcomes."""
    law = relaxable(site)
    mass = law.mass(parameters).movedim(0, -1)
    return mass @ law.support(parameters).to(mass.dtype)


def sloped(p: Tensor, direction: Tensor, *, is_vector: bool) -> Tensor:
    """Return J direction, J the derivative of probabilities p in their logits: diag(p) - p p' of a vector.

    >>> import torch
    >>> sloped(torch.tensor(0.5), torch.tensor(2.0), is_vector=False)
    tensor(0.5000)
    """
    if is_vector:
        return p * (direction - (p * direction).sum(-1, keepdim=True))
    return p * (1 - p) * direction
