"""Critic: a learned function of a value as a control variate, whose mean is summed over the support."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scg.estimators.enumerate import digits_of
from scg.estimators.local import infinite
from scg.estimators.parts.baselines import besides
from scg.estimators.parts.linear import coded, soft_event
from scg.estimators.parts.outcomes import check_number
from scg.estimators.parts.variates import Controls, Remainder, centred, network
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut, names_of
from scg.estimators.protocol.site import Site, derivative


@dataclass(frozen=True, eq=False)
class Critic(Remainder, Cut):
    """(Q - V(x, context)) dlog p(x) + d/d(eta) sum_k p(k; eta) V(k, context), with a learned V.

    It is unbiased however wrong V is, which descends the variance. ``net`` is called ``net(x, *context)``, an
    index as a one-hot vector, and gives one number for each plate element; without one, a network is made for
    the node, which reads the node's parents as well. The sum is over all values of one plate element, of
    which there are ``limit`` at most. ``context`` names the nodes that a network reads besides, and
    ``baseline``, which learns nothing of its own, is taken from the credit. Weber et al. (2019, "Credit
    assignment techniques in stochastic computation graphs", arXiv:1901.01761); Gu et al. (2017, "Q-Prop:
    Sample-efficient policy gradient with an off-policy critic", arXiv:1611.02247).
    """

    name: ClassVar[str] = "critic"

    net: Callable[..., Tensor] | None = None
    context: Any = None
    baseline: Any = None  # what is kept is a Baseline
    limit: int = 64

    def __post_init__(self) -> None:
        """Refuse baselines that would learn, and a limit that is no number."""
        object.__setattr__(self, "baseline", besides(self.baseline))
        check_number("limit", self.limit, 1)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse supports that are not finite, or have too many values."""
        found = infinite(facts)
        if found is not None:
            return found
        count = (facts.outcomes or 0) ** _width(facts)
        if count > self.limit:
            return Refusal(
                f"its value has {facts.outcomes}**{_width(facts)} outcomes, over the limit of {self.limit}",
                "raise limit=",
            )
        return self.kept.refuses(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for a network of the value."""
        return replace(self.kept.asks(), site=True, points=True, context=self._context)

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the network."""
        return Controls(net=self.net or network(facts, soft_event(facts), self._context or ()))

    @property
    def _context(self) -> tuple[str, ...] | None:
        """The default network reads the node's parents; one that is given reads what ``context`` says."""
        return None if self.net is not None and self.context is None else names_of(self.context)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in the network.

        The derivative of the sum is that of sum_k p_k V_k log p(k), which is one with the score where an
        outcome is certain.
        """
        law, inner = site.law, site.value.shape[site.lead : site.value.dim() - site.law.value_rank]
        support = law.support(site.parameters)
        codes = digits_of(len(support), [math.prod(inner)], support.device)
        outcomes = support[codes.view(-1, *inner)].to(site.value.dtype)
        outcomes = outcomes[(slice(None), *(None,) * site.lead)].expand(-1, *site.value.shape)
        points = torch.cat((site.value[None], outcomes))
        found = site.predict(coded(site, points))
        mass = _joint(law.mass(site.parameters), codes, site.lead)
        weights = mass * found[1:]
        is_possible = (mass > 0)[(..., *(None,) * (outcomes.dim() - mass.dim()))]
        outcomes = torch.where(is_possible, outcomes, site.value)  # the weight is 0 where it is another

        def expected(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
            return (law.log_prob_over(parameters, outcomes, site.lead + 1) * weights).sum(), ()

        path, _ = derivative(expected, site.parameters, attached=len(site.trained) > 0)
        return site.score(site.value, centred(site, site.credit - found[0], self.kept), path)


def _width(facts: NodeFacts) -> int:
    """Return how many variables of the support the value of one plate element has."""
    return math.prod(facts.event[: len(facts.event) - facts.law.value_rank])


def _joint(mass: Tensor, codes: Tensor, lead: int) -> Tensor:
    """Return the probability [n, *lead] of every row of places, from that of each [k, *lead, *event]."""
    each = mass.flatten(1 + lead) if mass.dim() > 1 + lead else mass.unsqueeze(-1)
    found = each[codes[:, 0], ..., 0]
    for index in range(1, codes.shape[1]):
        found = found * each[codes[:, index], ..., index]
    return found
