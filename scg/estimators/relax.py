"""RELAX: a learned control variate, added to the cost at relaxed values where that is smooth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from scg.estimators.parts.variates import (
    Controls,
    Positive,
    Remainder,
    Variate,
    conditioned,
    first_rough,
    network,
    relaxed_costs,
)
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut, names_of
from scg.estimators.protocol.site import Site
from scg.laws import Relaxable


@dataclass(frozen=True, eq=False)
class RELAX(Remainder, Cut):
    """(f(b) - c(z~)) dlog p(b) + dc(z) - dc(z~) with c(z) = r(z, context) + eta f(relax(z)).

    ``net`` is called ``net(z, *context)``, z before the hard step, and gives one number for each plate
    element; without one, a network is made for the node, which reads the node's parents as well. The
    second term is left out where no cost is smooth at relaxed values, or with ``relaxed_cost=False``.
    ``context`` names the nodes that a network reads besides, and ``baseline``, which learns nothing of its
    own, is taken from the credit. ``train_on`` is the share of the elements of a plate, chosen anew in each
    run, from which the control variate learns: its second pass costs as much less.
    Grathwohl et al. (2018, "Backpropagation through the Void: Optimizing control variates for black-box
    gradient estimation", arXiv:1711.00123).
    """

    name: ClassVar[str] = "relax"

    net: Callable[..., Tensor] | None = None
    relaxed_cost: bool | None = None
    context: Any = None
    baseline: Any = None  # what is kept is a Baseline
    train_on: float = 1.0

    def __post_init__(self) -> None:
        """Refuse baselines that would learn, and what is no share."""
        self.check_options()

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws without a relaxation, and a relaxed cost where none is smooth."""
        if not isinstance(facts.law, Relaxable):
            return Refusal(f"a {facts.law.family} cannot be relaxed")
        if self.relaxed_cost and facts.reaches_cost and not facts.slice().smooth:
            return Refusal(f"relaxed_cost=True needs a cost at relaxed values, and {first_rough(facts)}")
        return self.cannot_train(facts, relaxed=self._relaxes(facts)) or self.kept.refuses(facts)

    def _relaxes(self, facts: NodeFacts) -> bool:
        """Whether the relaxed cost is wanted, and one is smooth."""
        return self.relaxed_cost is not False and facts.reaches_cost and bool(facts.slice().smooth)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for z and z~, and for the relaxed cost at both where one is smooth, and it is wanted."""
        is_wanted = self._relaxes(facts)
        return replace(
            self.asks_of(facts, relaxed=is_wanted),
            site=True,
            fresh=("base",),
            standard=True,
            relaxed=2 * is_wanted,
            points=True,
            context=self._context,
        )

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the network, with temperature and eta where the cost is relaxed."""
        assert isinstance(facts.law, Relaxable)
        rank = facts.law.soft.value_rank - facts.law.value_rank
        event = facts.event if not rank else (*facts.event, facts.outcomes or 0)
        net = self.net if self.net is not None else network(facts, event, self._context or ())
        if not self.asks(facts).relaxed:
            return Controls(net=net)
        temperature, eta = (Positive(value, facts.dtype, is_learned=True) for value in (0.5, 1.0))
        return Controls(temperature, eta, net)

    @property
    def _context(self) -> tuple[str, ...] | None:
        """The default network reads the node's parents; one that is given reads what ``context`` says."""
        return None if self.net is not None and self.context is None else names_of(self.context)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in the network, temperature and eta."""
        controls = site.controls
        assert isinstance(controls, Controls)

        def variate(points: Tensor) -> Variate:
            credit = site.predict(points)
            total = site.total(credit)
            if controls.temperature is None or controls.eta is None:
                return Variate(credit, total)
            eta, cost = controls.eta.value, relaxed_costs(site, points, controls.temperature.value)
            return Variate(credit + eta * cost.credit, total + eta * cost.total)

        return conditioned(site, variate, baseline=self.kept)
