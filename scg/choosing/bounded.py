"""Bounded nodes: the bounds over its plates that a node reaches, and the terms that its elements reach."""

from __future__ import annotations

import networkx as nx

from scg.analysis.facts import Facts
from scg.estimators.protocol.facts import Bound
from scg.nodes import records
from scg.nodes.ir import IR


def bounds_of(facts: Facts, name: str) -> tuple[Bound, ...]:
    """Return the bounds over plates of a node that it reaches."""
    ir, influence = facts.ir, facts.influence
    plates = ir.layout[name]
    found = []
    for cost in influence.costs_of(influence.reached[name]):
        record = ir[cost]
        if isinstance(record, records.Bound) and record.over in plates:
            own = ir.layout[cost]
            found.append(
                Bound(
                    cost,
                    record.terms,
                    record.over,
                    _is_apart(ir, name, record),
                    tuple(plate for plate in own if plate not in plates),
                    tuple(plate for plate in plates if plate not in own),
                )
            )
    return tuple(found)


def _is_apart(ir: IR, name: str, bound: records.Bound) -> bool:
    """Say whether every path from a node to the terms keeps the plate."""
    between = nx.descendants(ir.dag, name) & (nx.ancestors(ir.dag, bound.terms) | {bound.terms})
    return all(
        bound.over in ir.layout[other] and bound.over not in getattr(ir[other], "mixes", ())
        for other in between
    )
