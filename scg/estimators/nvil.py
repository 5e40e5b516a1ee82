"""NVIL: the score with a network, a moving average and a moving deviation of the credit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from scg.estimators.parts.memory import Memory
from scg.estimators.parts.variates import network
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Scored, names_of
from scg.estimators.protocol.site import Site
from scg.estimators.score import moves


@dataclass(frozen=True, eq=False)
class NVIL(Scored):
    """(Q - b(context) - c) / max(1, v) dlog p(x), b a network, and c and v mean and deviation of past credit.

    Without ``net`` one with a hidden layer is made for the node, which reads the node's parents; ``context``
    names what a network reads instead. It is trained on the variance. As c and v are of the past, and not of
    the sample, v scales the estimate of a node and does no more; with ``normalise=False`` it does not.
    With ``each``, the name of a plate, every element of it has a c and v of its own.
    Mnih and Gregor (2014, "Neural variational inference and learning in belief networks", arXiv:1402.0030).
    """

    name: ClassVar[str] = "nvil"

    net: nn.Module | None = None
    context: Any = None
    normalise: bool = True
    each: str | None = None

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse a support that moves, and a network without anything to read."""
        if facts.moving is not None:
            return moves(facts)
        if self.net is not None and not self._context(facts):
            return Refusal("there is nothing that its network could read", "give context=")
        return facts.lacks(self.each)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for what the network reads."""
        return Asks(context=self._context(facts) or None)

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the memory of past credit, with the network where there is something to read."""
        names = self._context(facts)
        net = self.net
        if net is None and names:
            net = network(facts, None, names)
        return Memory(net if names else None, deviates=self.normalise, each=facts.axis(self.each))

    def baseline(self, site: Site) -> Tensor:
        """Return the mean so far, and what the network adds."""
        assert isinstance(site.controls, Memory)
        mean = site.controls.placed(site.controls.mean(), site)
        return mean if site.controls.net is None else mean + site.predict()

    def factor(self, site: Site) -> Tensor:
        """Return Q - b - c over the deviation so far, which is at least 1."""
        assert isinstance(site.controls, Memory)
        left = site.credit - self.baseline(site)
        return left / site.controls.placed(site.controls.deviation(), site) if self.normalise else left

    def remember(self, site: Site) -> None:
        """Add the credit to what is remembered."""
        if site.training:
            assert isinstance(site.controls, Memory)
            site.controls.update(site.credit, site.weight, site.unit, site)

    def _context(self, facts: NodeFacts) -> tuple[str, ...]:
        """Return what is read: the parents that are floating point unless told otherwise."""
        given = names_of(self.context)
        return given or tuple(name for name in facts.parents if facts.shape(name) is not None)
