"""Orders: whether the loss of a program can be differentiated several times past an estimator."""

from __future__ import annotations

from scg.analysis.facts import Facts
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.kinds import Estimator, Scored, Through


def order_fault(facts: Facts, known: NodeFacts, estimator: Estimator, order: int) -> str | None:
    """Return why an estimator, or what lies below its node, is not right to the order, or None."""
    if order == 1 or not known.reaches_cost:
        return None
    refusal = estimator.refuses_order(known)
    if refusal is not None:
        return str(refusal)
    if isinstance(estimator, Through):
        bend = facts.bend(known.name, order)
        return None if bend is None else f'{bend}: use "score"'
    bend = facts.law_bends(known.name, order) if isinstance(estimator, Scored) else None
    return None if bend is None else f'{bend}: use "reparam"'
