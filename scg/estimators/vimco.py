"""VIMCO: the score under a bound of several samples, each of which is told what the bound is without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Scored
from scg.estimators.protocol.site import Site
from scg.estimators.score import moves

MEANS = ("geometric", "arithmetic")


@dataclass(frozen=True)
class VIMCO(Scored):
    """(L - L_k) dlog p(z_k) under L = -log mean_k w_k, L_k being L with the mean of the others for w_k.

    The ``mean`` of the other weights is "geometric" or "arithmetic". Mnih and Rezende (2016, "Variational
    inference for Monte Carlo objectives", arXiv:1602.06725).
    """

    name: ClassVar[str] = "vimco"

    mean: Literal["geometric", "arithmetic"] = "geometric"

    def __post_init__(self) -> None:
        """Refuse other means."""
        if self.mean not in MEANS:
            raise EstimatorError(f"mean is one of {MEANS}, not {self.mean!r}")

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse all but a node whose elements each have a term in one bound over their plate."""
        if facts.moving is not None:
            return moves(facts)
        if len(facts.bounds) != 1:
            told = f"it is for one bound over a plate of the node, and this one reaches {len(facts.bounds)}"
            return Refusal(told, _elsewhere(facts))
        (bound,) = facts.bounds
        if not bound.apart:
            return Refusal(
                f"an element of it along '{bound.over}' reaches the terms of others in '{bound.cost}'",
                'use "score"',
            )
        if bound.besides:
            return Refusal(
                f"'{bound.cost}' has a value for each element of {bound.besides}, where this has one",
                'use "score"',
            )
        return _sizes(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the terms of the bound."""
        return Asks(terms=True)

    def baseline(self, site: Site) -> Tensor:
        """Return the bound without each of the terms, as often as the credit counts it."""
        terms = site.terms
        return terms.scale * stand_in(terms.values, terms.dim, self.mean)


def _elsewhere(facts: NodeFacts) -> str:
    """Say what to write where there is no bound, or several."""
    if facts.bounds:
        return 'give each its own, as in scg.Parts({"bound": "vimco", "other": "score"})'
    return "declare g.bound(name, cost, over=plate)"


def _sizes(facts: NodeFacts) -> Refusal | None:
    """Refuse what there is nothing to compare with, or what counts differently from step to step."""
    (bound,) = facts.bounds
    if facts.is_weighed:
        return Refusal("ratios weigh the bound", 'use "score"')
    for axis in facts.axes:
        if axis.name == bound.over and axis.size < 2:
            return Refusal(f"plate '{bound.over}' has one element, and no others to compare", 'use "score"')
        if axis.name in bound.lost and axis.discount != 1.0:
            return Refusal(f"steps of plate '{axis.name}' count differently in one bound", 'use "score"')
    return None


def stand_in(costs: Tensor, dim: int, mean: str) -> Tensor:
    """Return -log mean exp(-costs) along a dimension, for each with the mean of the others in its place.

    It is 0 where all others have weight 0, so that none has anything to say.

    >>> stand_in(torch.tensor([1.0, 2.0, 2.0]), 0, "arithmetic")[0]
    tensor(2.)
    """
    logs = -costs.movedim(dim, -1)
    count = logs.shape[-1]
    own = torch.eye(count, dtype=torch.bool, device=logs.device)
    rows = logs[..., None, :].expand(*logs.shape, count)
    if mean == "geometric":
        others = torch.where(own, 0.0, rows).sum(-1, keepdim=True) / (count - 1)
        found = torch.where(own, others, rows).logsumexp(-1) - math.log(count)
    else:
        found = torch.where(own, -torch.inf, rows).logsumexp(-1) - math.log(count - 1)
    return -torch.where(found.isfinite(), found, 0.0).movedim(-1, dim)
