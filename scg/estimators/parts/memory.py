"""Memory of past credit: moving averages that all ranks of a distributed run have in common."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from scg.errors import EstimatorError
from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.site import Site


class Memory(nn.Module):
    """The running mean of past credit and of its square, and the baseline module if there is one.

    The square is remembered if it ``deviates``; ``mass`` is the total weight of the past, which corrects the
    bias towards the initial 0. Where there are several ranks, each step takes the credit of all of them.
    With ``each``, an axis, every element of it has a memory of its own.
    """

    first: Tensor
    second: Tensor | None
    mass: Tensor

    def __init__(
        self, net: nn.Module | None, *, deviates: bool, decay: float = 0.9, each: Axis | None = None
    ) -> None:
        """Remember nothing yet."""
        super().__init__()
        self.net = net
        self.decay = decay
        self.each = None if each is None else each.name
        shape = () if each is None else (each.size,)
        for name, is_kept in (("first", True), ("second", deviates), ("mass", True)):
            self.register_buffer(name, torch.zeros(shape) if is_kept else None)

    def mean(self) -> Tensor:
        """Return the running mean of past credit, 0 before there is any."""
        return self.first / self.mass.clamp(min=1.0 - self.decay)

    def deviation(self) -> Tensor:
        """Return the running standard deviation of past credit, but at least 1."""
        assert self.second is not None
        variance = self.second / self.mass.clamp(min=1.0 - self.decay) - self.mean().square()
        return variance.clamp(min=1.0).sqrt()

    def placed(self, value: Tensor, site: Site) -> Tensor:
        """Put what the elements of an axis remember where the axis is among those of a site."""
        if self.each is None:
            return value
        dim = site.dim(self.each)
        if site.axes[dim].size != len(self.first):
            raise EstimatorError(
                f"each element of '{self.each}' has a past of its own, and there were {len(self.first)} of "
                f"them, not {site.axes[dim].size}: compile a program for as many"
            )
        return value.view(-1, *(1,) * (site.lead - dim - 1))

    def update(
        self, credit: Tensor, weight: Tensor | None, unit: Tensor | None = None, site: Site | None = None
    ) -> None:
        """Take the credit of this step into account for the next.

        ``weight`` is what elements count where they differ, in units that need not be those of other ranks:
        ``unit`` is what an element of probability 1 counts here. The axes are those of ``site``.
        """
        dim = None if self.each is None or site is None else site.dim(self.each)
        with torch.no_grad():
            found = [credit] if self.second is None else [credit, credit.square()]
            past = [self.mass, self.first] if self.second is None else [self.mass, self.first, self.second]
            if has_ranks():
                past, means = _of_all_ranks(past, found, weight, unit, dim)
            else:
                means = [_mean(value, weight, dim) for value in found]
            now = [torch.ones_like(self.mass), *means]
            # New tensors: what torch.compile saves for the backward of this step is the old ones, and it
            # would read from them what was written into them since.
            rate = 1.0 - self.decay
            kept = [old.lerp(new.to(old), rate) for old, new in zip(past, now, strict=True)]
            self.mass, self.first = kept[:2]
            if self.second is not None:
                self.second = kept[2]


def _of_all_ranks(
    past: list[Tensor],
    found: list[Tensor],
    weight: Tensor | None,
    unit: Tensor | None,
    dim: int | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return what ranks remember on average, and means over the elements of all, by one sum over ranks.

    A rank that remembers less, as after a checkpoint that one rank alone has read, has less mass.
    """
    share = torch.ones_like(found[0]) if weight is None else weight.expand(found[0].shape)
    share = share if weight is None or unit is None else share / unit
    here = [_sum(share, dim), *(_sum(value * share, dim) for value in found)]
    sums = torch.stack([part.to(torch.float64) for part in (*past, *here)])
    distributed.all_reduce(sums)
    ranks, (count, *totals) = distributed.get_world_size(), sums[len(past) :]
    few = torch.finfo(sums.dtype).tiny
    level = [(total / ranks).to(held) for held, total in zip(past, sums, strict=False)]
    return level, [total / count.clamp(min=few) for total in totals]


def averages(controls: nn.Module) -> list[str]:
    """Return the names of buffers that ranks sum by themselves, so that none is to send its own to others."""
    memories = [(name, part) for name, part in controls.named_modules() if isinstance(part, Memory)]
    return [f"{name}.{key}" for name, part in memories for key, _ in part.named_buffers(recurse=False)]


def has_ranks() -> bool:
    """Say whether several processes run this together, as a group of torch.distributed."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _mean(value: Tensor, weight: Tensor | None, dim: int | None) -> Tensor:
    """Return the mean of a value, by weights of its elements where they differ; all of it but for a dim."""
    if weight is None or not weight.dim():
        return value.mean() if dim is None else value.movedim(dim, 0).flatten(1).mean(1)
    share = weight.expand(value.shape)
    return _sum(value * share, dim) / _sum(share, dim).clamp(min=torch.finfo(value.dtype).tiny)


def _sum(value: Tensor, dim: int | None) -> Tensor:
    return value.sum() if dim is None else value.movedim(dim, 0).flatten(1).sum(1)
