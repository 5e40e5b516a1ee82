"""LAX: a learned control variate for continuous nodes above what has no derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from scg.estimators.parts.variates import Controls, Remainder, centred, network
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut, names_of
from scg.estimators.protocol.site import Site
from scg.estimators.score import moves


@dataclass(frozen=True, eq=False)
class LAX(Remainder, Cut):
    """(f(x) - c(x)) dlog p(x) + dc(x) with a learned c(x, context); in the last term x depends on its noise.

    ``net`` is called ``net(x, *context)`` and gives one number for each plate element; without one, a
    network is made for the node, which reads the node's parents as well. ``context`` names the nodes that a
    network reads besides, and ``baseline``, which learns nothing of its own, is taken from the credit.
    ``train_on`` is the share of the elements of a plate, chosen anew in each run, from which the network
    learns: its second pass costs as much less.
    Grathwohl et al. (2018, arXiv:1711.00123).
    """

    name: ClassVar[str] = "lax"

    net: Callable[..., Tensor] | None = None
    context: Any = None
    baseline: Any = None  # what is kept is a Baseline
    train_on: float = 1.0

    def __post_init__(self) -> None:
        """Refuse baselines that would learn, and what is no share."""
        self.check_options()

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws whose draw cannot be differentiated twice, and supports that move."""
        law = facts.law
        if law.pathwise is None:
            return Refusal(f"a {law.family} has no differentiable map from noise to value")
        if not law.twice:
            return Refusal(
                f"torch has no second derivative of a draw from a {law.family}, through which its network "
                "would be trained"
            )
        if facts.moving is not None:
            return moves(facts)
        return self.cannot_train(facts, relaxed=False) or self.kept.refuses(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for a network of the value."""
        return replace(self.asks_of(facts, relaxed=False), site=True, points=True, context=self._context)

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the network."""
        return Controls(net=self.net or network(facts, facts.event, self._context or ()))

    @property
    def _context(self) -> tuple[str, ...] | None:
        """The default network reads the node's parents; one that is given reads what ``context`` says."""
        return None if self.net is not None and self.context is None else names_of(self.context)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in the network."""

        def variate(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            predicted = site.predict(site.law.draw(parameters, site.noise)[None])
            return site.total(predicted)[0], predicted[0]

        path, predicted = site.derivative(variate)
        return site.score(site.value, centred(site, site.credit - predicted, self.kept), path)
