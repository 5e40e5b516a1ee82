"""Making sites: from live tensors in an emitted program to what an estimator is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module as holding

from scg.choosing.networks import Caller, walked
from scg.estimators.protocol.border import check_estimates
from scg.estimators.protocol.facts import Axis, Bound
from scg.estimators.protocol.kinds import Cut, Scored
from scg.estimators.protocol.site import Provided, Relaxed, Site, Terms
from scg.evaluation.elsewhere import Existing, selected
from scg.laws import Law, broadcast, is_transformed, sum_event
from scg.surrogate.runtime.blocks import chosen, within
from scg.surrogate.runtime.ops import add_all, descend, discount_weights, paired

Parameters = dict[str, Tensor]
Descended = list[tuple[Tensor, Tensor]]
"""What controls descend, each with what multiplies its derivative."""


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
        count = 0 if places is None else max(len(places), 1)
        return torch.Size([count if count and dim == self.blocked else n for dim, n in enumerate(shape)])

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


@dataclass(frozen=True, eq=False)
class Estimation:
    """The lines that ask an estimator about its site at a node."""

    node: str
    estimator: Scored | Cut
    blueprint: Blueprint

    def factor(self, site: Site) -> Tensor:
        """Return the factor of the score, attached to the controls."""
        assert isinstance(self.estimator, Scored)
        with torch.enable_grad():
            factor = self._counted(site, self.estimator.factor(site))
        self.estimator.remember(site)
        return factor

    def baseline(self, site: Site) -> Tensor:
        """Return the baseline, a number, in the units of the weighed credit."""
        assert isinstance(self.estimator, Scored)
        factor = self._counted(site, self.estimator.factor(site))
        self.estimator.remember(site)
        return (self._counted(site, site.credit) - factor).detach()

    def surrogate(
        self, site: Site, parameters: Parameters, places: Tensor | None = None, size: int | None = None
    ) -> Tensor:
        """Return sum weight <sg ghat, eta> + <sg dV/dphi, phi>: its backward carries both on.

        V = sum weight |ghat|^2 is what the controls descend, or sum weight loss where they have one. The
        elements at some ``places`` stand for all of an axis there, which has that ``size``.
        """
        attached = {name: leaf for name, leaf in parameters.items() if leaf.requires_grad}
        if not attached:
            return site.credit.new_zeros(())
        if site.trained and is_transformed():
            weighed, taught = self._transformed(site, attached)
        else:
            with torch.enable_grad():
                weighed, several = self._weighed(site, attached)
            taught = [descend(several, site.trained)] if site.trained else []
        full = self.blueprint.full(attached, site.value, size)
        if places is not None and size is not None:
            full = {name: chosen(leaf, places, self.blueprint.blocked) for name, leaf in full.items()}
            taught = [term * (size / len(places)) for term in taught]
        self.estimator.remember(site)
        return add_all([paired(weighed[name], full[name]) for name in weighed] + taught)

    def _weighed(self, site: Site, attached: Parameters) -> tuple[Parameters, Descended]:
        """Return estimates of what needs a gradient times their weights, and what the controls descend."""
        if isinstance(self.estimator, Scored):
            return self._scored(site, self.estimator, attached)
        found = self.estimator.gradient(site)
        wanted = {name: site.parameters[name] for name in attached}
        check_estimates(self.estimator, self.node, found, wanted, tuple(site.parameters))
        estimates = {name: self._counted(site, found[name]) for name in attached}
        weighed = {name: _times_weight(site, estimate.detach()) for name, estimate in estimates.items()}
        if not site.trained:
            return weighed, []
        descended = self._descended(site)
        return weighed, descended or [(estimates[name], 2 * weighed[name]) for name in weighed]

    def _descended(self, site: Site) -> Descended:
        """Return what controls descend of their own accord, or nothing where it is the variance."""
        loss = self.estimator.loss(site)
        if loss is None:
            return []
        assert site.weight is not None
        return [(self._existing(site, loss), site.weight.expand(loss.shape))]

    def _scored(self, site: Site, estimator: Scored, attached: Parameters) -> tuple[Parameters, Descended]:
        """Return the same of a factor f of the score u: d weight |f u|^2 / df is 2 weight f |u|^2."""
        factor = self._counted(site, estimator.factor(site))
        unit = site.score(site.value, torch.ones((), dtype=factor.dtype, device=factor.device))
        weighed = {
            name: site.spread(_times_weight(site, factor.detach()), unit[name]) * unit[name]
            for name in attached
        }
        if not site.trained:
            return weighed, []
        if descended := self._descended(site):
            return weighed, descended
        slopes = add_all([sum_event(unit[name] * part, site.lead) for name, part in weighed.items()])
        return weighed, [(factor, 2 * slopes)]

    def _counted(self, site: Site, estimate: Tensor) -> Tensor:
        """Weigh an estimate by the ratio of its element, and put 0 where that does not exist."""
        if site.ratio is not None and not self.blueprint.by_step:
            estimate = estimate * site.spread(site.ratio, estimate)
        return self._existing(site, estimate)

    def _existing(self, site: Site, value: Tensor) -> Tensor:
        """Put 0 where elements do not exist."""
        return value if site.exists is None else selected(value, site.spread(site.exists, value))

    def _transformed(self, site: Site, attached: Parameters) -> tuple[Parameters, list[Tensor]]:
        """Return weighed estimates and what trains, by transforms that torch.compile can trace."""
        assert site.controls is not None
        controls = site.controls
        trained = {name: p for name, p in controls.named_parameters() if p.requires_grad}

        def objective(given: Parameters) -> tuple[Tensor, Parameters]:
            with holding(controls, given, tie_weights=True):
                weighed, several = self._weighed(site, attached)
            return add_all([(weights * found).sum() for found, weights in several]), weighed

        start = {name: p.detach() for name, p in trained.items()}
        gradients, weighed = torch.func.grad(objective, has_aux=True)(start)
        return weighed, [paired(gradients[name].detach(), p) for name, p in trained.items()]


def _product(unit: Tensor, *factors: Tensor | None) -> Tensor:
    """Return the weight of an element times the probability of its branches and its discount."""
    for factor in factors:
        unit = unit if factor is None else unit * factor
    return unit


def _over(credit: Tensor, ratio: Tensor) -> Tensor:
    """Divide credit by the ratio that it is weighed by already: 0 where that is."""
    return torch.where(ratio > 0, credit / ratio.clamp(min=torch.finfo(ratio.dtype).tiny), 0.0)


def _times_weight(site: Site, value: Tensor) -> Tensor:
    """Multiply a value by the weight of its node's elements."""
    assert site.weight is not None
    return value * site.spread(site.weight, value)
