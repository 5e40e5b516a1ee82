"""Orders: whether the loss of a program can be differentiated several times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scg.analysis.facts import Facts
from scg.choosing.describe import node_facts
from scg.choosing.parts import Parts
from scg.choosing.policy import Choice
from scg.errors import EstimatorError
from scg.estimators.protocol.kinds import Scored, Through


def check_orders(facts: Facts, choices: Mapping[str, Choice], samples: int | None, order: int) -> None:
    """Refuse estimators, functions and laws that are not right to the order; all of them together."""
    if order == 1:
        return
    faults = [
        f"order={order} at '{name}': {fault}"
        for name, choice in choices.items()
        if facts.influence.reached[name]
        for fault in _faults(facts, name, choice, samples, order)
    ]
    if faults:
        raise EstimatorError("\n".join(faults))


def _faults(facts: Facts, name: str, choice: Choice, samples: int | None, order: int) -> Iterator[str]:
    estimator = choice.estimator
    if isinstance(estimator, Parts):
        yield "scg.Parts are right to first order only: give the node one estimator"
        return
    refusal = estimator.refuses_order(node_facts(facts, name, samples))
    if refusal is not None:
        yield f"{estimator.name} is refused: {refusal}"
        return
    if isinstance(estimator, Through):
        bend = facts.bend(name, order)
        if bend is not None:
            yield f'{estimator.name} is refused: {bend}. Use "score"'
    if isinstance(estimator, Scored):
        bend = facts.law_bends(name, order)
        if bend is not None:
            yield f'{estimator.name} is refused: {bend}. Use "reparam", or order=1'
