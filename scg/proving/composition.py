"""Composition: what a node is charged with, read off the graph anew, against what the program charges."""

from __future__ import annotations

import networkx as nx

from scg.nodes.ir import IR
from scg.program.prepare import Prepared
from scg.proving.proof import Step


def kept_plates(ir: IR, name: str, cost: str) -> frozenset[str]:
    """Return the plates that every path from a node to a cost keeps: on every node, and mixed by none."""
    between = {cost, *nx.ancestors(ir.dag, cost)} & {name, *nx.descendants(ir.dag, name)}
    kept = frozenset(ir.layout[name])
    for node in between - {name}:
        kept &= frozenset(ir.layout[node]) - getattr(ir[node], "mixes", frozenset())
    return kept


def composed(ir: IR, prepared: Prepared) -> list[Step]:
    """Say, for every random variable that reaches a cost, whether the right costs are charged to it."""
    influence, found = prepared.facts.influence, []
    for name in ir.samples:
        below = [cost for cost in ir.costs if cost in nx.descendants(ir.dag, name)]
        charged = list(influence.costs_of(influence.reached[name]))
        joined = [
            cost
            for cost in charged
            if cost in below and not frozenset(influence.kept(ir, name, cost)) <= kept_plates(ir, name, cost)
        ]
        left = [cost for cost in below if cost not in charged]
        besides = [cost for cost in charged if cost not in below]
        if not below:
            continue
        if joined:
            claim = f"elements of {joined[0]} are kept apart that a path joins"
            found.append(Step(claim, "failed", "structure", name))
        elif left:
            claim = f"{', '.join(left)} are left out, although paths lead there"
            found.append(Step(claim, "assumed", "structure", name))
        elif besides:
            claim = f"{', '.join(besides)} are charged, although no path leads there"
            found.append(Step(claim, "assumed", "structure", name))
        else:
            claim = f"{', '.join(below)} are charged, and nothing that it does not influence"
            found.append(Step(claim, "proved", "every path of the graph", name))
    return found
