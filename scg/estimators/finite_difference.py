"""Finite differences: a count one more or one less, at one element that is picked at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.estimators.parts.chances import chance
from scg.estimators.parts.elements import elements_of, where_possible
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Parameters, Site
from scg.laws import Law, trials


@dataclass(frozen=True)
class FiniteDifference(Cut):
    """-dF(x) / p(x) (Q(x + 1) - Q(x)), or -dF(x - 1) / p(x) (Q(x) - Q(x - 1)), F the distribution function.

    Any fixed mixture of both has the mean dJ; here it is one of bounded weights, where there is one: for a
    Binomial the first counts 1 - p and the second p, for all others the first counts alone. Of the elements
    that a cost reads together one is set, i with probability |w_i| / W for weights w of sum W, and then
    counts sign(w_i) W. Cong, Zhao, Bai and Carin (2019, "GO gradient for expectation-based objectives",
    arXiv:1901.06020); Arya, Schauer, Schäfer and Rackauckas (2022, "Automatic differentiation of programs
    with discrete randomness", arXiv:2210.08572).
    """

    name: ClassVar[str] = "finite-difference"

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse what is no count, and numbers of failures that are learned."""
        family = facts.law.family
        if family not in STEPS:
            return Refusal(f"a {family} is no count, or none whose distribution function is known here")
        if family == "NegativeBinomial" and facts.may_learn("total_count"):
            return Refusal(
                "the distribution function of a NegativeBinomial has no known slope in total_count"
            )
        return None

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs at one other value, and for noise to pick it where there are several."""
        moves = 2 if facts.law.family == "Binomial" else 1
        several = facts.elements * moves > 1
        return Asks(fresh=("uniform",) if several else (), downstream=1)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, zero but at the element that was picked."""
        steps, weights = STEPS[site.law.family](site.law, site.parameters, site.value)
        if site.exists is not None:
            weights = torch.where(site.spread(site.exists, site.value), weights, 0.0)
        elements = elements_of(site)
        several = len(weights) * elements.count > 1
        left = elements.picked(weights, site.fresh_noise()) if several else weights
        other = site.value + torch.where(left != 0, steps, 0.0).sum(0).to(site.value.dtype)
        difference = site.spread(site.downstream(other[None])[0] - site.credit, site.value)
        difference = where_possible(site, other, difference)
        estimate = torch.where(left != 0, left * steps * difference, 0.0).sum(0)
        given = next(name for name in ("probs", "logits", "rate") if name in site.parameters)
        if site.law.family == "Binomial" and "total_count" in site.parameters:
            return {given: estimate, "total_count": torch.zeros_like(site.parameters["total_count"])}
        return {given: estimate}


def _bernoulli(law: Law, p: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
    return (1 - 2 * x)[None], chance(p).slope[None]


def _binomial(law: Law, p: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
    slope = chance(p).slope
    up = torch.ones_like(x)
    return torch.stack([up, -up]), torch.stack([(trials(law, p) - x) * slope, x * slope])


def _geometric(law: Law, p: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
    per = 1 / p["probs"] if "probs" in p else chance(p).failure
    return torch.ones_like(x)[None], -((x + 1) * per)[None]


def _negative_binomial(law: Law, p: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
    per = 1 / (1 - p["probs"]) if "probs" in p else chance(p).success
    return torch.ones_like(x)[None], ((x + p["total_count"]) * per)[None]


def _poisson(law: Law, p: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(x)[None], torch.ones_like(x)[None]


STEPS: Mapping[str, Callable[[Law, Parameters, Tensor], tuple[Tensor, Tensor]]] = {
    "Bernoulli": _bernoulli,
    "Binomial": _binomial,
    "Geometric": _geometric,
    "NegativeBinomial": _negative_binomial,
    "Poisson": _poisson,
}
"""The steps [m, *batch] that a value may take, and the weight of each in the parameter that is given."""
