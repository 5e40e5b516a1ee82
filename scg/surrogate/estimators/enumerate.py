"""Enumeration: every value of a finite support, weighted by its probability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.laws import unbounded_count
from scg.surrogate.estimators.base import Action, Estimator, NodeFacts, Remedy
from scg.surrogate.estimators.site import Site, derivative


@dataclass(frozen=True)
class Enumerate(Estimator):
    """The exact sum over outcomes, sum_k dp_k f_k; joint over elements, or ``local`` one at a time.

    Joint enumeration adds a weighted plate to everything below, up to ``limit`` branches. Local
    enumeration sets one element at a time with the others at their sample: local expectation
    gradients (Titsias and Lazaro-Gredilla, 2015, "Local expectation gradients for black box
    variational inference").
    """

    name: ClassVar[str] = "enumerate"
    preference: ClassVar[int] = 0

    local: bool = False
    limit: int = 4096

    @property
    def action(self) -> Action:
        """Branches when joint; a detached value when local."""
        return Action.CUT if self.local else Action.BRANCHES

    def refuses(self, facts: NodeFacts) -> str | None:
        """Refuse supports that are not finite, and joint supports beyond the limit."""
        if unbounded_count(facts.law) is not None:
            return f"nothing in the graph bounds the number of trials of its {facts.law.family}"
        if not facts.law.finite:
            return f"the support of a {facts.law.family} is not finite"
        branches = facts.branches
        if not self.local and branches is not None and branches > self.limit:
            return Remedy(
                f"it has {facts.outcomes}**{facts.elements} joint outcomes, over the limit of {self.limit}: "
                f"write scg.Enumerate(local=True), which sets one element at a time, or raise limit="
            )
        return None

    def evaluations(self, facts: NodeFacts) -> int:
        """Return the number of branches, the sampled one counted apart."""
        assert facts.outcomes is not None and facts.branches is not None
        return 1 + (facts.outcomes * facts.elements if self.local else facts.branches)

    @property
    def needs_downstream(self) -> bool:
        """Local enumeration evaluates the graph below at each value of each element."""
        return self.local

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return d/d(eta) sum_jk p(b_j = k; eta) f(b with b_j = k), with f detached."""
        law, value = site.law, site.value
        support = law.support(site.parameters)
        batch = value.shape[: value.dim() - law.value_rank]
        elements = _element_masks(batch, site.lead, site.together, value.device)
        points = _set_each(value, support, elements, law.value_rank)
        costs = site.downstream(points.flatten(0, 1)).unflatten(0, (len(elements), len(support)))
        inner = (None,) * (len(batch) - site.lead)
        chosen = torch.where(elements, costs.transpose(0, 1)[(..., *inner)], 0.0).sum(1).detach()

        def expected(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
            mass = law.mass(parameters)
            possible = torch.where((mass == 0) & ~torch.isfinite(chosen), 0.0, chosen)
            return (mass * possible).sum(), ()

        return derivative(expected, site.parameters, attached=False)[0]


def _element_masks(batch: torch.Size, lead: int, together: tuple[bool, ...], device: torch.device) -> Tensor:
    """Return one boolean mask [n, *batch] for each element that is set on its own.

    Leading dimensions marked ``together`` are set at once, since no two of their elements share a cost.
    """
    apart = [1 if index < lead and together[index] else size for index, size in enumerate(batch)]
    count = math.prod(apart)
    masks = torch.eye(count, dtype=torch.bool, device=device).view(count, *apart)
    return masks.expand(count, *batch)


def _set_each(value: Tensor, support: Tensor, elements: Tensor, value_rank: int) -> Tensor:
    """Return [n, outcomes, *value.shape]: the sample with each masked element at each outcome."""
    mask = elements[(slice(None), None, ..., *(None,) * value_rank)]
    batch_rank = value.dim() - value_rank
    outcomes = support[(None, slice(None), *(None,) * batch_rank)].to(value.dtype)
    return torch.where(mask, outcomes, value)
