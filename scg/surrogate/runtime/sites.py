"""Making sites: from live tensors in an emitted program to what an estimator is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scg.choosing.networks import Caller, walked
from scg.estimators.protocol.facts import Axis, Bound
from scg.estimators.protocol.site import Provided, Relaxed, Site, Terms
from scg.evaluation.elsewhere import Existing, selected
from scg.laws import Law, broadcast
from scg.surrogate.runtime.blocks import within
from scg.surrogate.runtime.ops import discount_weights

Parameters = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Blueprint:
    """What a node's site will be, all but its tensors.

    ``axes`` are the leading dimensions, their sizes left out. ``caller`` tells how the network of the
    estimator is called, if it has one, ``by_step`` that the credit is not weighed by ratios, and ``restarts``
    that steps count alike.
    ``bound`` is the one whose terms are asked for. A site of a block has elements of the axis ``blocked``,
    and controls learn from it if it ``trains``.
    """

    law: Law
    axes: tuple[Axis, ...]
    caller: Caller | None = None
    by_step: bool = False
    restarts: bool = False
    bound: Bound | None = None
    blocked: int = 0
    trains: bool = True

    def site(
        self,
        parameters: Parameters,
        noise: Tensor,
        value: Tensor,
        credit: Tensor,
        weight: Tensor | None,
        exists: Existing | None = None,
        ratio: Tensor | None = None,
        redrawn: Tensor | None = None,
        places: Tensor | None = None,
        **given: Any,
    ) -> Site:
        """Return the site of live tensors, detached and in full shape, or of the elements at some places."""
        lead = len(self.axes)
        value, credit = value.detach(), credit.detach()
        if credit.shape != value.shape[:lead]:
            shape = broadcast(credit.shape, value.shape[:lead])
            value, credit = value.expand(shape + value.shape[lead:]), credit.expand(shape)
        shape = credit.shape
        share = self._share(credit, shape) if self.is_discounted else None
        unit = self._unit(credit, shape)
        total = _product(unit, weight, share)
        mask = None
        if exists is not None and exists.first is not None:
            mask = exists.mask.expand(shape)
            total = selected(total.expand(shape), mask)
        ratio = None if ratio is None else ratio.expand(shape)
        if redrawn is not None:
            redrawn = self._charged(redrawn.expand(redrawn.shape[:1] + shape), mask, ratio)
        site = Site(
            law=self.law,
            parameters={name: leaf.detach() for name, leaf in self.full(parameters, value).items()},
            noise=noise.detach(),
            value=value,
            credit=self._charged(credit, mask, ratio),
            axes=tuple(axis._replace(size=size) for axis, size in zip(self.axes, shape, strict=True)),
            weight=total,
            unit=unit,
            share=share,
            exists=mask,
            ratio=ratio,
            wanted=frozenset(name for name, leaf in parameters.items() if leaf.requires_grad),
            **self._providers(self._shape(shape, places), redrawn=redrawn, **given),
        )
        return site if places is None else within(site, places, self.blocked, trains=self.trains)

    def _shape(self, shape: torch.Size, places: Tensor | None) -> torch.Size:
        """Return the leading shape of the elements at some places, of which there is one at least."""
        if places is None:
            return shape
        count = max(len(places), 1)
        return torch.Size([count if dim == self.blocked else n for dim, n in enumerate(shape)])

    def _charged(self, credit: Tensor, mask: Tensor | None, ratio: Tensor | None) -> Tensor:
        """Return credit that is 0 where elements do not exist, and is weighed by ratios only by step."""
        credit = credit if mask is None else selected(credit, mask)
        return credit if ratio is None or self.by_step else _over(credit, ratio)

    @property
    def is_discounted(self) -> bool:
        """Whether the elements of the node count differently."""
        return not self.restarts and any(axis.discount != 1.0 for axis in self.axes)

    def full(self, parameters: Parameters, value: Tensor, size: int | None = None) -> Parameters:
        """Return parameters, attached as they are, with the leading and event dimensions of a value.

        That may be of some elements of the axis ``blocked``, whose ``size`` is then given.
        """
        batch = value.shape[: value.dim() - self.law.value_rank]
        if size is not None:
            batch = torch.Size([size if dim == self.blocked else n for dim, n in enumerate(batch)])
        return self.law.expand(parameters, batch)

    def _share(self, like: Tensor, shape: torch.Size) -> Tensor | None:
        """Return the discount of each element."""
        total = None
        for dim, axis in enumerate(self.axes):
            if axis.discount != 1.0:
                weights = discount_weights(like, shape[dim], axis.discount).view(
                    -1, *(1,) * (len(shape) - dim - 1)
                )
                total = weights if total is None else total * weights
        return total

    def _unit(self, like: Tensor, shape: torch.Size) -> Tensor:
        """Return the weight of an element: of its plates over which the objective averages."""
        size = 1.0
        for width, axis in zip(shape, self.axes, strict=True):
            size = size / width if axis.is_mean else size
        return torch.full((), size, dtype=like.dtype, device=like.device)

    def _providers(
        self,
        shape: torch.Size,
        context: tuple[Tensor, ...] = (),
        controls: nn.Module | None = None,
        downstream: Callable[[Tensor], Tensor] | None = None,
        relaxed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        fresh: tuple[Tensor, ...] = (),
        standard: Tensor | None = None,
        terms: Tensor | None = None,
        redrawn: Tensor | None = None,
    ) -> dict[str, Any]:
        """Return what the estimator of the site asked for."""
        found: dict[str, Any] = {}
        predict = None
        if controls is not None:
            held = {p: None for part in walked(controls) for p in part._parameters.values() if p is not None}
            trained = tuple(parameter for parameter in held if parameter.requires_grad)
            found.update(controls=controls, training=controls.training, trained=trained)
            if self.caller is not None:
                predict = self._predict(controls, context, shape)
        found["provided"] = Provided(
            fresh=tuple(noise.detach() for noise in fresh),
            standard=None if standard is None else standard.detach(),
            downstream=None if downstream is None else self._downstream(downstream, shape),
            relaxed=None if relaxed is None else self._relaxed(relaxed, shape),
            redrawn=redrawn,
            predict=predict,
            terms=None if terms is None else self._terms(terms, shape),
        )
        return found

    def _terms(self, terms: Tensor, shape: torch.Size) -> Terms:
        """Return the terms of a bound, which counts once for each element of mean plates that it lost."""
        assert self.bound is not None
        several = list(zip(self.axes, shape, strict=True))
        scale = math.prod([n for axis, n in several if axis.is_mean and axis.name in self.bound.lost])
        dim = [axis.name for axis in self.axes].index(self.bound.over)
        return Terms(terms.detach().expand(shape), dim, float(scale))

    def _predict(
        self, controls: nn.Module, context: tuple[Tensor, ...], shape: torch.Size
    ) -> Callable[..., Tensor]:
        net: Any = controls.net
        seen = [item.detach() for item in context]

        def predict(*points: Tensor) -> Tensor:
            assert self.caller is not None
            lead = torch.Size([len(points[0]), *shape]) if points else shape
            context = [item[None] if points else item for item in seen]
            return self.caller(net, lead, [*points, *context])

        return predict

    def _downstream(
        self, downstream: Callable[[Tensor], Tensor], shape: torch.Size
    ) -> Callable[[Tensor], Tensor]:
        def evaluate(points: Tensor) -> Tensor:
            with torch.no_grad():
                return downstream(points).expand(torch.Size([len(points)]) + shape)

        return evaluate

    def _relaxed(
        self, relaxed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], shape: torch.Size
    ) -> Callable[[Tensor, Tensor], Relaxed]:
        def evaluate(points: Tensor, temperature: Tensor) -> Relaxed:
            credit, total = relaxed(points, temperature)
            full = torch.Size([len(points)]) + shape
            return Relaxed(credit if credit.shape == full else credit.expand(full), total)

        return evaluate


def _product(unit: Tensor, *factors: Tensor | None) -> Tensor:
    """Return the weight of an element times the probability of its branches and its discount."""
    for factor in factors:
        unit = unit if factor is None else unit * factor
    return unit


def _over(credit: Tensor, ratio: Tensor) -> Tensor:
    """Divide credit by the ratio that it is weighed by already: 0 where that is."""
    return torch.where(ratio > 0, credit / ratio.clamp(min=torch.finfo(ratio.dtype).tiny), 0.0)
