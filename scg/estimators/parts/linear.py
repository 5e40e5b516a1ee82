"""Linear control variates: a slope times how far a discrete value is from its mean, which has a gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts.variates import relaxable
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.site import Site, derivative
from scg.laws import Categorical, Relaxable


class Linear(nn.Module):
    """What a linear control variate learns: a coefficient of slopes, and of a cost; or the slope itself."""

    slope: Tensor | None
    coefficient: Tensor | None
    level: Tensor | None

    def __init__(
        self,
        *,
        slope: Tensor | None = None,
        coefficient: Tensor | None = None,
        level: Tensor | None = None,
        is_learned: bool = True,
    ) -> None:
        """Start from what is given, and keep it unless it is learned."""
        super().__init__()
        for name, start in (("slope", slope), ("coefficient", coefficient), ("level", level)):
            if start is not None and is_learned:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)


def check_coefficient(given: object) -> None:
    """Refuse a coefficient that is no number."""
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise EstimatorError(f"coefficient is a number, not {given!r}")


def soft_event(facts: NodeFacts) -> tuple[int, ...]:
    """Return the shape of a value without plates, of a categorical variable as a one-hot vector."""
    is_index = isinstance(facts.law, Categorical) and not facts.law.one_hot
    return (*facts.event, facts.outcomes or 0) if is_index else facts.event


def unlinear(facts: NodeFacts) -> Refusal | None:
    """Refuse what has no relaxed values, and so no mean among them."""
    if isinstance(facts.law, Relaxable):
        return None
    return Refusal(f"the mean of a {facts.law.family} is no relaxed value of it")


def softened(site: Site) -> Tensor:
    """Return the value of a site, of a categorical variable as a one-hot vector."""
    return coded(site, site.value)


def coded(site: Site, values: Tensor) -> Tensor:
    """Return values of a node, of a categorical variable as one-hot vectors."""
    law = site.law
    if not isinstance(law, Categorical) or law.one_hot:
        return values
    count = site.parameters[law.given].shape[-1]
    hot = values.unsqueeze(-1) == torch.arange(count, device=values.device)
    return hot.to(site.credit.dtype)


def mean(site: Site) -> Tensor:
    """Return the mean of the value."""
    law = relaxable(site)
    mass = law.mass(site.parameters)
    return mass.movedim(0, -1) if isinstance(law, Categorical) else mass[1]


def slopes(site: Site, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivative of the smooth costs at relaxed ``points``, and the costs [*lead]; detached."""

    def cost(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        found = site.relaxation(leaves["points"])
        return found.total[0], found.credit[0]

    points = points.to(site.value.dtype) if site.value.is_floating_point() else points
    found, credit = derivative(cost, {"points": points[None]}, attached=False)
    inner = site.shared({"points": found["points"][0]})["points"]
    return inner.detach(), credit.detach()


def along(site: Site, slope: Tensor, away: Tensor) -> Tensor:
    """Return <slope, away> over the event, [*lead]."""
    product = slope * away
    return product.flatten(site.lead).sum(-1) if product.dim() > site.lead else product


def through_mean(site: Site, slope: Tensor) -> dict[str, Tensor]:
    """Return slope times d(mean) / d(parameter), attached to the slope; 0 where probs are certain."""
    law, middle = relaxable(site), mean(site)
    if isinstance(law, Categorical):
        slope = slope - (slope * middle).sum(-1, keepdim=True)
    if law.given == "logits":
        return {"logits": slope * middle * (1 - middle if not isinstance(law, Categorical) else 1.0)}
    total = site.parameters["probs"].sum(-1, keepdim=True) if isinstance(law, Categorical) else 1.0
    return {"probs": torch.where((middle > 0) & (middle < 1), slope / total, 0.0)}
