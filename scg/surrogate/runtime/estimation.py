"""Estimations: the lines that ask an estimator about its site, and what they add to the surrogate loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.stateless import _reparametrize_module as holding

from scg.estimators.protocol.border import check_estimates
from scg.estimators.protocol.kinds import Cut, Scored
from scg.estimators.protocol.site import Site
from scg.evaluation.elsewhere import selected
from scg.laws import is_transformed, sum_event
from scg.surrogate.runtime.blocks import chosen
from scg.surrogate.runtime.ops import add_all, descend, paired
from scg.surrogate.runtime.sites import Blueprint, Parameters

Descended = list[tuple[Tensor, Tensor]]
"""What controls descend, each with what multiplies its derivative."""


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


def _times_weight(site: Site, value: Tensor) -> Tensor:
    """Multiply a value by the weight of its node's elements."""
    assert site.weight is not None
    return value * site.spread(site.weight, value)
