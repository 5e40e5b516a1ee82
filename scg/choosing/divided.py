"""Divided: nodes left to automatic choice at which two estimators, each for some costs, do better."""

from __future__ import annotations

import types
from collections.abc import Mapping

import networkx as nx

from scg.analysis.facts import Facts
from scg.analysis.influence import below
from scg.choosing.apart import apart
from scg.choosing.automatic import AUTO
from scg.choosing.choice import Choice
from scg.choosing.describe import node_facts
from scg.choosing.parts import Parts
from scg.choosing.policy import PolicyEntry
from scg.choosing.refusing import AFFORDABLE
from scg.errors import PolicyError
from scg.estimators.local import Local
from scg.estimators.protocol.border import asked, refusal
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.kinds import Estimator
from scg.estimators.reparam import Reparam
from scg.estimators.score import Score
from scg.evaluation.calls import user_function
from scg.nodes.ir import IR
from scg.nodes.records import STRUCTURAL, Det, LogProb, Record

BUILT_IN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)


def divided(
    facts: Facts, wanted: Mapping[str, PolicyEntry], choices: Mapping[str, Choice], samples: int | None
) -> dict[str, Parts]:
    """Return the parts of nodes that were left to the score, but of which some costs allow for better.

    Costs that are smooth in a value are reparameterised, and only the rest are scored. Terms that are made of
    log-probabilities and arithmetic, as a divergence is, are summed over outcomes, one element at a time.
    """
    found = dict[str, Parts]()
    for name, choice in choices.items():
        if wanted[name] == AUTO and isinstance(choice.estimator, Score):
            parts = _parts(facts, name, samples, choice.coupled)
            if parts is not None:
                found[name] = parts
    return found


def _parts(facts: Facts, name: str, samples: int | None, coupled: str | None) -> Parts | None:
    costs = list(facts.influence.costs_of(facts.influence.reached[name]))
    known = node_facts(facts, name, samples, coupled)

    def narrow(several: list[str]) -> NodeFacts:
        return node_facts(facts.only(tuple(several)), name, samples, coupled)

    if len(costs) < 2 or known.is_given or known.is_followed:
        return None
    better: Estimator
    if known.law.finite:
        better, own = Local(), [cost for cost in costs if _is_arithmetic(facts.ir, name, cost)]
        why = "made of log-probabilities and arithmetic alone"
    else:
        better, own = Reparam(), [cost for cost in costs if facts.only((cost,)).obstacle(name) is None]
        why = "smooth in its value"
    rest = [cost for cost in costs if cost not in own]
    if not own or not rest or not _serves(better, narrow(own)):
        return None
    other = Score.automatic(narrow(rest))
    entry = Parts({tuple(own): better, tuple(rest): other}, reason=f"automatic: {_listed(own)} {why}")
    try:
        apart(facts.ir, {name: entry})
    except PolicyError:
        return None
    return entry


def _serves(estimator: Estimator, facts: NodeFacts) -> bool:
    return refusal(estimator, facts) is None and asked(estimator, facts).evaluations <= AFFORDABLE


def _is_arithmetic(ir: IR, name: str, cost: str) -> bool:
    """Say whether what leads from a node to a cost costs next to nothing: no function of the user's."""
    between = {cost, *nx.ancestors(ir.dag, cost)}.intersection(below(ir, name))
    return all(_is_built_in(ir[other]) for other in between)


def _is_built_in(record: Record) -> bool:
    if isinstance(record, LogProb):
        return record.of is not None or user_function(record) is None
    if not isinstance(record, Det) or record.fn.call is None or record.differentiable is False:
        return False
    return record.fn.call in STRUCTURAL or isinstance(record.fn.call, BUILT_IN)


def _listed(costs: list[str]) -> str:
    return f"{', '.join(costs)} {'is' if len(costs) == 1 else 'are'}"
