"""Ancestry: the part of a graph that one cost sees, and how its plates reach the cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import networkx as nx

from scg.nodes.ir import IR
from scg.nodes.records import Det, Sample


def upstream(ir: IR, sizes: Mapping[str, int], cost: str) -> IR:
    """Return the cost and its ancestors alone, parents still before children, with every plate sized."""
    names = nx.ancestors(ir.dag, cost) | {cost}
    dag = nx.DiGraph()
    for record in ir.records():
        if record.name in names:
            dag.add_node(record.name, record=record)
            dag.add_edges_from((parent, record.name) for parent in record.parents)
    plates = {name: replace(plate, size=sizes[name]) for name, plate in ir.plates.items()}
    return IR(dag, plates, ir.layout, ir.store)


def kept_plates(ir: IR) -> dict[str, frozenset[str]]:
    """Return the plates that each node keeps on all its paths to the last node, which all nodes lead to.

    ``kept(v)`` is the intersection, over the nodes of all paths from v, of their plates without those
    they mix. Ordered plates are never kept: an element depends on all those before it.
    """
    free = frozenset(name for name, plate in ir.plates.items() if not plate.ordered)
    kept: dict[str, frozenset[str]] = {}
    for name in reversed(list(ir)):
        record = ir[name]
        own = free.intersection(ir.layout[name])
        own = own - record.mixes if isinstance(record, Det) else own
        kept[name] = own.intersection(*(kept[child] for child in ir.children(name)))
    return kept


def certain(ir: IR) -> list[str]:
    """Return the names of the nodes that are not stochastic and have no stochastic ancestor."""
    varying: set[str] = set()
    for record in ir.records():
        if isinstance(record, Sample) or not varying.isdisjoint(record.parents):
            varying.add(record.name)
    return [name for name in ir if name not in varying]
