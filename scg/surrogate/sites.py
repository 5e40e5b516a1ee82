"""Making sites: from live tensors in an emitted program to what an estimator is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scg.laws import Law
from scg.nodes.plates import Index
from scg.surrogate.estimators.base import Estimator, Site
from scg.surrogate.ops import descend, discount_weights


@dataclass(frozen=True, eq=False)
class Frame:
    """The static part of a node's site.

    ``index`` gives values and parameters the leading dimensions that only the credit has. For each of
    the ``lead`` dimensions, ``mean`` tells whether the objective averages over it, ``rates`` its
    discount, and ``together`` whether no cost joins two of its elements.
    """

    law: Law
    index: Index | None
    mean: tuple[bool, ...]
    rates: tuple[float, ...]
    together: tuple[bool, ...]
    replicated: bool

    def site(
        self,
        parameters: dict[str, Tensor],
        noise: Tensor,
        value: Tensor,
        credit: Tensor,
        weight: Tensor | None,
        context: tuple[Tensor, ...],
        controls: nn.Module | None,
        downstream: Callable[[Tensor], Tensor] | None,
    ) -> Site:
        """Return the site of live tensors, every one of them detached and in full shape."""
        lead = len(self.mean)
        value = value.detach() if self.index is None else value.detach()[self.index]
        shape = torch.broadcast_shapes(credit.shape, value.shape[:lead])
        value = value.expand(shape + value.shape[lead:])
        detached = {name: leaf.detach() for name, leaf in self.full(parameters, value).items()}
        below = {} if downstream is None else {"downstream": self._downstream(downstream, shape)}
        return Site(
            law=self.law,
            parameters=detached,
            noise=noise.detach() if self.index is None else noise.detach()[self.index],
            value=value,
            credit=credit.detach().expand(shape),
            lead=lead,
            weight=self._weight(credit, shape, weight),
            replicated=self.replicated,
            together=self.together,
            context=tuple(item.detach() for item in context),
            controls=controls,
            training=controls is not None and controls.training,
            **below,
        )

    def full(self, parameters: dict[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        """Return parameters, attached as they are, with the leading and event dimensions of a value."""
        batch = value.shape[: value.dim() - self.law.value_rank]
        if self.index is None:
            return self.law.expand(parameters, batch)
        kept = [size for size, item in zip(batch, self.index, strict=False) if item is not None]
        inner = self.law.expand(parameters, torch.Size([*kept, *batch[len(self.index) :]]))
        return self.law.expand({name: leaf[self.index] for name, leaf in inner.items()}, batch)

    def _weight(self, like: Tensor, shape: torch.Size, weight: Tensor | None) -> Tensor:
        """Return the probability of the branches times the weight of the plates."""
        share = 1.0
        for size, is_mean in zip(shape, self.mean, strict=True):
            share = share / size if is_mean else share
        total = torch.full((), share, dtype=like.dtype, device=like.device)
        for dim, rate in enumerate(self.rates):
            if rate != 1.0:
                tail = (1,) * (len(shape) - dim - 1)
                total = total * discount_weights(like, shape[dim], rate).view(-1, *tail)
        return total if weight is None else total * weight

    def _downstream(
        self, downstream: Callable[[Tensor], Tensor], shape: torch.Size
    ) -> Callable[[Tensor], Tensor]:
        def evaluate(points: Tensor) -> Tensor:
            with torch.no_grad():
                return downstream(points).expand(torch.Size([len(points)]) + shape)

        return evaluate


@dataclass(frozen=True, eq=False)
class Inquiry:
    """The lines that ask an estimator about its site."""

    estimator: Estimator
    frame: Frame

    def factor(self, site: Site) -> Tensor:
        """Return the detached factor of the score."""
        factor = self.estimator.factor(site)
        assert factor is not None
        return factor.detach()

    def inner(self, site: Site, parameters: dict[str, Tensor]) -> Tensor:
        """Return sum weight <sg ghat, eta>, whose backward carries the estimate on."""
        attached = {name: leaf for name, leaf in parameters.items() if leaf.requires_grad}
        total = torch.zeros((), dtype=site.credit.dtype, device=site.credit.device)
        if not attached:
            return total
        full = self.frame.full(parameters, site.value)
        for name, estimate in self.estimator.gradient(site).items():
            if name in attached:
                weight = site.weight
                if weight is not None and weight.dim():
                    weight = weight[(..., *(None,) * (estimate.dim() - site.lead))]
                product = estimate.detach() * full[name]
                total = total + (product if weight is None else product * weight).sum()
        return total

    def descend(self, site: Site) -> Tensor:
        """Return the term whose backward gives the controls the gradient of their objective."""
        assert site.controls is not None
        with torch.enable_grad():
            return descend(self.estimator.objective(site), site.controls)
