"""Facts and sites of one node, made by hand: what an estimator is told, without a graph around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from scg.estimators.protocol.facts import Axis, NodeFacts
from scg.estimators.protocol.site import Provided, Site
from scg.laws import law_for


def of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.double)


def facts(dist: type[Distribution], parameters: dict[str, Any], **changed: Any) -> NodeFacts:
    """Facts of a node without plates, of one element, that reaches a cost along smooth paths."""
    law, _ = law_for(dist, parameters)
    found = NodeFacts(
        name="b",
        law=law,
        event=(),
        elements=1,
        outcomes=2 if law.finite else None,
        axes=(),
        moving=None,
        obstacle=lambda: None,
        reaches_cost=True,
        dtype=torch.double,
    )
    return replace(found, **changed)


def site(
    dist: type[Distribution],
    parameters: dict[str, Tensor],
    noise: Tensor,
    cost: Callable[[Tensor], Tensor],
    *,
    axes: tuple[Axis, ...] = (),
    provided: dict[str, Any] | None = None,
    **changed: Any,
) -> Site:
    """The site of a value drawn from noise, charged with a cost [*lead] of values [*lead, *event]."""
    law, tensors = law_for(dist, parameters)
    value = law.draw(tensors, noise).detach()
    made = Site(
        law=law,
        parameters=dict(tensors),
        noise=noise,
        axes=axes,
        provided=Provided(**{"downstream": cost, **(provided or {})}),
        value=value,
        credit=cost(value[None])[0].detach(),
    )
    return replace(made, **changed)
