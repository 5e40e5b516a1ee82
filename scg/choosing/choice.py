"""Choices: the estimator of each node, and a node as each of its estimators sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scg.analysis.facts import Facts
from scg.choosing.parts import Part, Parts
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.kinds import Cut, Estimator, Scored, Through


@dataclass(frozen=True)
class Choice:
    """The estimator of one node, the reason it was chosen, and what it asks for.

    ``parts`` has the choice for each part, where the node has several. It ``recovers`` if an estimator reads
    noise, and the value was drawn elsewhere. The noise is ``coupled`` across replicates by a scheme, or not.
    """

    estimator: Estimator | Parts
    reason: str
    asks: Asks
    parts: Mapping[Part, Choice] = field(default_factory=dict)
    recovers: bool = False
    coupled: str | None = None

    @property
    def fresh(self) -> tuple[str, ...]:
        """The kinds of fresh noise: what is asked for, then what recovers that of a value drawn elsewhere."""
        return (*self.asks.fresh, *(("base",) if self.recovers else ()))

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """The estimator, or those of all parts."""
        if isinstance(self.estimator, Parts):
            return tuple(found for choice in self.parts.values() for found in choice.estimators)
        return (self.estimator,)

    @property
    def is_charged(self) -> bool:
        """Whether some estimator reads what the node is charged with."""
        return any(isinstance(found, (Scored, Cut)) for found in self.estimators)

    @property
    def through(self) -> Through | None:
        """The estimator that passes the value on with its gradient, if one does."""
        return next((found for found in self.estimators if isinstance(found, Through)), None)


@dataclass(frozen=True, eq=False)
class View:
    """A node as one of its estimators sees it: in the graph with only the costs that are its own.

    ``key`` is the name of the node, with that of the part where there are several: controls are held under
    it. ``fresh`` counts the tensors of fresh noise that the parts before it have.
    """

    key: str
    facts: Facts
    choice: Choice
    fresh: int = 0

    @property
    def last(self) -> str:
        """The last word of the key."""
        return self.key.rpartition(".")[2]

    @property
    def label(self) -> str:
        """What lines are called after."""
        return self.key.replace(".", "_")


def views(facts: Facts, name: str, choice: Choice) -> tuple[View, ...]:
    """Return a node as each of its estimators sees it; one in parts that reaches no cost has none."""
    if not isinstance(choice.estimator, Parts):
        return (View(name, facts, choice),)
    found, fresh = list[View](), 0
    for part, own in choice.parts.items():
        found.append(View(f"{name}.{part.key}", facts.only(part.costs), own, fresh))
        fresh += len(own.asks.fresh)
    return tuple(found)


def recovers(estimator: Estimator, facts: NodeFacts) -> bool:
    """Say whether fresh noise is needed to recover that of a value drawn elsewhere."""
    return facts.is_given and isinstance(estimator, Cut) and facts.law.noise != "value"
