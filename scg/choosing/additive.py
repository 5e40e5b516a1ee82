"""Additive: how often costs count the log-probability of a node, where they add it to the rest."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import networkx as nx

from scg.analysis.facts import Facts
from scg.nodes.arguments import Ref
from scg.nodes.ir import IR
from scg.nodes.records import Bound, Cost, Det, LogProb, Record, identity

CONSTANT = math.nan
"""How often, where that is a number that the node does not influence, but is not known."""


def added(facts: Facts, name: str) -> Mapping[str, float] | str:
    """Return how often each cost, or the terms of a bound over a plate of the node, adds its log-probability.

    Text says which node does something else with it. What repeats no further than sums, differences and
    multiples by what the node does not influence is followed.
    """
    ir = facts.ir
    below = nx.descendants(ir.dag, name) | {name}
    counts: dict[str, float] = {}
    found: dict[str, float] = {}
    for record in ir.records():
        if isinstance(record, LogProb) and record.of == name:
            counts[record.name] = 1.0
            continue
        if record.name not in facts.useful or counts.keys().isdisjoint(record.parents):
            continue
        if isinstance(record, Bound) and record.over in ir.layout[name]:
            found[record.name] = counts[record.terms]
            continue
        count = _count(ir, record, counts, below)
        if count is None:
            return f"'{record.name}' does not add its log-probability to the rest"
        counts[record.name] = count
        if isinstance(record, Cost):
            found[record.name] = count
    return found


def _count(ir: IR, record: Record, counts: Mapping[str, float], below: set[str]) -> float | None:
    """Return how often a node counts the log-probability, if it adds it."""
    if not isinstance(record, Det) or record.arguments.kwargs or record.mixes:
        return None
    if any(ir.layout[parent] != ir.layout[record.name] for parent in record.parents if parent in counts):
        return None
    call, several = record.fn.call, [_of(item, counts) for item in record.arguments.args]
    if call in (identity, operator.neg) and len(several) == 1:
        return several[0] if call is identity else -several[0]
    if call in (operator.add, operator.sub) and len(several) == 2:
        return several[0] + several[1] if call is operator.add else several[0] - several[1]
    if call in (operator.mul, operator.truediv) and len(several) == 2:
        return _scaled(record, call, several, below)
    return None


def _scaled(record: Det, call: Any, several: list[float], below: set[str]) -> float | None:
    """Return how often a multiple counts it, where the other factor is none that the node influences."""
    place = 0 if several[0] != 0 else 1
    other = record.arguments.args[1 - place]
    if several[1 - place] != 0 or (call is operator.truediv and place == 1):
        return None
    if isinstance(other, Ref):
        return None if other.name in below else CONSTANT
    return float(call(several[place], other)) if isinstance(other, (int, float)) else None


def _of(item: Any, counts: Mapping[str, float]) -> float:
    return counts.get(item.name, 0.0) if isinstance(item, Ref) else 0.0
