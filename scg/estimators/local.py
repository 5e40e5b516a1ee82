"""Local enumeration: every outcome of one element at a time, the others at their sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import Axis, NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site, derivative
from scg.laws import unbounded_count


@dataclass(frozen=True)
class Local(Cut):
    """The sum over outcomes of each element, sum_jk dp(b_j = k) f(b with b_j = k).

    Local expectation gradients (Titsias and Lazaro-Gredilla, 2015, "Local expectation gradients for black
    box variational inference").
    """

    name: ClassVar[str] = "local"

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse supports that are not finite."""
        return infinite(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the graph below at each outcome of each element."""
        return Asks(downstream=(facts.outcomes or 0) * facts.elements)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return d/d(eta) sum_jk p(b_j = k; eta) f(b with b_j = k), with f detached."""
        law, value = site.law, site.value
        support = law.support(site.parameters)
        batch = value.shape[: value.dim() - law.value_rank]
        elements = _element_masks(batch, site.axes, value.device)
        points = _set_each(value, support, elements, law.value_rank)
        costs = site.downstream(points.flatten(0, 1)).unflatten(0, (len(elements), len(support)))
        inner = (None,) * (len(batch) - site.lead)
        chosen = torch.where(elements, costs.transpose(0, 1)[(..., *inner)], 0.0).sum(1).detach()

        def expected(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
            mass = law.mass(parameters)
            possible = torch.where((mass == 0) & ~torch.isfinite(chosen), 0.0, chosen)
            return (mass * possible).sum(), ()

        return derivative(expected, site.parameters, attached=False)[0]


def infinite(facts: NodeFacts) -> Refusal | None:
    """Refuse supports that are not finite."""
    if unbounded_count(facts.law) is not None:
        return Refusal(f"nothing in the graph bounds the number of trials of its {facts.law.family}")
    if not facts.law.finite:
        return Refusal(f"the support of a {facts.law.family} is not finite")
    return None


def _element_masks(batch: torch.Size, axes: tuple[Axis, ...], device: torch.device) -> Tensor:
    """Return one boolean mask [n, *batch] for each element that is set on its own.

    Axes that no cost joins are set at once.
    """
    lead = [size if axis.joined else 1 for axis, size in zip(axes, batch, strict=False)]
    apart = [*lead, *batch[len(axes) :]]
    count = math.prod(apart)
    masks = torch.eye(count, dtype=torch.bool, device=device).view(count, *apart)
    return masks.expand(count, *batch)


def _set_each(value: Tensor, support: Tensor, elements: Tensor, value_rank: int) -> Tensor:
    """Return [n, outcomes, *value.shape]: the sample with each masked element at each outcome."""
    mask = elements[(slice(None), None, ..., *(None,) * value_rank)]
    batch_rank = value.dim() - value_rank
    outcomes = support[(None, slice(None), *(None,) * batch_rank)].to(value.dtype)
    return torch.where(mask, outcomes, value)
