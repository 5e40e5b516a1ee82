"""RELAX: a learned control variate, added to the cost at relaxed values where that is smooth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from scg.laws import Relaxable
from scg.surrogate.estimators.base import Action, Estimator, NodeFacts, Remedy, names_of
from scg.surrogate.estimators.site import Site
from scg.surrogate.estimators.variates import (
    Controls,
    Positive,
    Variate,
    check_baseline,
    conditioned,
    first_rough,
    network,
    relaxed_costs,
)


@dataclass(frozen=True, eq=False)
class RELAX(Estimator):
    """(f(b) - c(z~)) dlog p(b) + dc(z) - dc(z~) with c(z) = r(z, context) + eta f(relax(z)).

    ``net`` is called ``net(z, *context)``, z before the hard step, and gives one number for each plate
    element; without one, a network is made for the node, which reads the node's parents as well. The
    second term is left out where no cost is smooth at relaxed values, or with ``relaxed_cost=False``.
    Grathwohl et al. (2018, "Backpropagation through the Void: Optimizing control variates for black-box
    gradient estimation", arXiv:1711.00123).
    """

    name: ClassVar[str] = "relax"
    preference: ClassVar[int] = 4
    noises: ClassVar[int] = 1
    perturbs: ClassVar[bool] = True

    net: Callable[..., Tensor] | None = None
    relaxed_cost: bool | None = None
    context: Any = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuse a baseline that there is not."""
        check_baseline(self.baseline)

    @classmethod
    def passed_over(cls, facts: NodeFacts) -> str | None:
        """Leave what has to be trained first to those who ask for it."""
        return "its network has to be trained first"

    @property
    def action(self) -> Action:
        """The value passes on detached."""
        return Action.CUT

    def refuses(self, facts: NodeFacts) -> str | None:
        """Refuse laws without a relaxation, and a relaxed cost where none is smooth."""
        if not isinstance(facts.law, Relaxable):
            return f"a {facts.law.family} cannot be relaxed"
        if self.baseline is not None and (facts.samples or 1) < 2:
            return Remedy("leave-one-out compares replicates: compile with samples=2 or more")
        if self.relaxed_cost and facts.reaches_cost and not facts.slice().smooth:
            return f"relaxed_cost=True needs a cost at relaxed values, and {first_rough(facts)}"
        return None

    def controls(self, facts: NodeFacts) -> nn.Module:
        """Return the network, with temperature and eta where the cost is relaxed."""
        assert isinstance(facts.law, Relaxable)
        rank = facts.law.soft.value_rank - facts.law.value_rank
        event = facts.event if not rank else (*facts.event, facts.outcomes or 0)
        net = self.net if self.net is not None else network(facts, event, self.reads_context or ())
        if not self.relaxes(facts):
            return Controls(net=net)
        temperature, eta = (Positive(value, facts.dtype, is_learned=True) for value in (0.5, 1.0))
        return Controls(temperature, eta, net)

    def evaluations(self, facts: NodeFacts) -> int:
        """Return 3 with the relaxed cost: the sample, z and z~."""
        return 3 if self.relaxes(facts) else 1

    def relaxes(self, facts: NodeFacts) -> bool:
        """Return whether there is a smooth cost, and it is wanted."""
        return self.relaxed_cost is not False and facts.reaches_cost and bool(facts.slice().smooth)

    @property
    def reads_points(self) -> bool:
        """The network reads z."""
        return True

    @property
    def reads_context(self) -> tuple[str, ...] | None:
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

        return conditioned(site, variate, baseline=self.baseline)
