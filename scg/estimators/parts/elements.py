"""Elements: what is set one by one at a node, the entries of its event and of plates that costs join."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.estimators.protocol.site import Site


@dataclass(frozen=True, eq=False)
class Elements:
    """The elements of a node's values [*batch], of which ``lead`` dimensions are axes.

    ``apart`` has the size of every dimension whose elements are set one by one, and 1 where all are set at
    once, as along plates that no cost joins. A value has ``rank`` more dimensions.
    """

    batch: torch.Size
    apart: tuple[int, ...]
    lead: int
    rank: int
    joined: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return math.prod(self.apart)

    def masks(self, device: torch.device) -> Tensor:
        """Return which entries each of them is, [n, *batch]."""
        masks = torch.eye(self.count, dtype=torch.bool, device=device).view(self.count, *self.apart)
        return masks.expand(self.count, *self.batch)

    def set(self, value: Tensor, others: Tensor) -> Tensor:
        """Return the value with one element at each of some others [m, *batch, ...], [n, m, *batch, ...]."""
        mask = self.masks(value.device)[(slice(None), None, ..., *(None,) * self.rank)]
        return torch.where(mask, others.to(value.dtype), value)

    def own(self, costs: Tensor) -> Tensor:
        """Return what each element is charged with where it was the one that was set.

        Costs are [n, m, *lead], and what is returned [m, *batch].
        """
        spread = costs[(..., *(None,) * (len(self.batch) - self.lead))].movedim(0, 1)
        return torch.where(self.masks(costs.device), spread, 0.0).sum(1)

    def evaluated(self, site: Site, others: Tensor) -> Tensor:
        """Return what each element is charged with at others [m, *batch, ...], the rest at the sample."""
        points = self.set(site.value, others)
        costs = site.downstream(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        return self.own(costs).detach()

    def picked(self, weights: Tensor, noise: Tensor) -> Tensor:
        """Return weights [m, *batch] of which one for each group of elements is left, without bias.

        Entry i is left with probability |w_i| / W, and is then sign(w_i) W, W the sum of all |w_i| of its
        group. ``noise`` is uniform, [*batch] but for sizes of 1.
        """
        if len(weights) * self.count == 1:
            return weights
        apart = [dim for dim in range(len(self.batch)) if dim not in self.joined]
        order = [*(1 + dim for dim in (*apart, *self.joined)), 0]
        turned = weights.permute(order)
        rows = turned.reshape(*turned.shape[: len(apart)], len(weights) * self.count)
        sums = rows.abs().cumsum(-1)
        total = sums[..., -1:]
        own = noise.expand(self.batch).permute([*apart, *self.joined])
        own = own.reshape(*turned.shape[: len(apart)], self.count)[..., :1]
        place = (sums <= own * total).sum(-1, keepdim=True).clamp(max=rows.shape[-1] - 1)
        chosen = torch.arange(rows.shape[-1], device=rows.device) == place
        left = torch.where(chosen, rows.sign() * total, 0.0).view(turned.shape)
        return left.permute([order.index(dim) for dim in range(len(order))])


def elements_of(site: Site) -> Elements:
    """Return the elements of a site."""
    rank = site.law.value_rank
    batch = site.value.shape[: site.value.dim() - rank]
    inner = range(site.lead, len(batch))
    joined = (*(dim for dim, axis in enumerate(site.axes) if axis.joined), *inner)
    apart = tuple(size if dim in joined else 1 for dim, size in enumerate(batch))
    return Elements(batch, apart, site.lead, rank, joined)


def where_possible(site: Site, values: Tensor, costs: Tensor) -> Tensor:
    """Return costs, with 0 where they are not finite at values of a finite law that cannot happen."""
    if not site.law.finite:
        return costs
    impossible = torch.isneginf(site.law.log_prob(site.parameters, values))
    return torch.where(impossible & ~torch.isfinite(costs), 0.0, costs)
