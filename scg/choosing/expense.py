"""Expense: nodes below which an estimator evaluates costs very often, and what would be cheaper there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from scg.analysis.facts import Facts
from scg.choosing.choice import Choice, views
from scg.choosing.describe import node_facts
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.border import asked, refusal
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.kinds import Cut, Estimator, Scored
from scg.estimators.registry import has_defaults, registry

MANY: Final = 1024
"""The most evaluations that a node takes in a run without a warning."""

LESS: Final = 4
"""How many times fewer evaluations are worth being named."""


def expenses(facts: Facts, choices: Mapping[str, Choice], samples: int | None) -> dict[str, str]:
    """Return what each estimator with many evaluations costs, as a warning, by the key of its view."""
    found = {}
    for name, choice in choices.items():
        for view in views(facts, name, choice):
            own = view.choice
            is_many = isinstance(own.estimator, (Cut, Scored)) and own.asks.evaluations > MANY
            if is_many and isinstance(own.estimator, Estimator):
                told = node_facts(view.facts, name, samples)
                found[view.key] = _warning(view.key, own.estimator.name, own.asks, told)
    return found


def evaluations(choices: Mapping[str, Choice]) -> int:
    """Return how often what is below a node is evaluated in a run: once, and what each estimator adds."""
    several = [own for choice in choices.values() for own in (choice.parts.values() or [choice])]
    return 1 + sum(own.asks.evaluations - 1 for own in several)


def _warning(key: str, name: str, asks: Asks, facts: NodeFacts) -> str:
    cheaper = [f'"{other}" ({paid:,})' for other, paid in _cheaper(facts, asks.evaluations)]
    instead = f". Cheaper: {', '.join(cheaper)}" if cheaper else ""
    return (
        f"'{name}' at '{key}' evaluates what is below it {asks.evaluations:,} times in every run, "
        f"{counted(asks, facts)}{instead}"
    )


def counted(asks: Asks, facts: NodeFacts) -> str:
    """Say of how many elements evaluations are made, and how many each has, or that it is redraws."""
    if asks.redraws > asks.downstream:
        return f"{asks.redraws:,} redraws"
    each = asks.downstream // max(facts.elements, 1)
    what = "outcomes" if each == facts.outcomes else "values"
    return f"{facts.elements:,} elements x {each:,} {what}"


def _cheaper(facts: NodeFacts, paid: int) -> list[tuple[str, int]]:
    """Return the two most thorough estimators that take far fewer evaluations, and the score."""
    found = sorted(_able(facts), key=lambda able: -able[1])
    several = [able for able in found if able[1] * LESS <= paid]
    thorough = [able for able in several if able[0] != "score"][:2]
    return thorough + [able for able in several if able[0] == "score"]


def _able(facts: NodeFacts) -> Iterator[tuple[str, int]]:
    """Yield every unbiased estimator that has all its options by default and is not refused."""
    for name, kind in registry().items():
        if not has_defaults(kind):
            continue
        estimator = kind()
        if isinstance(estimator, (Cut, Scored)) and estimator.unbiased and refusal(estimator, facts) is None:
            yield name, asked(estimator, facts).evaluations
