"""Bypassed: what reads a record itself, and so is charged to no node whose value was drawn elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import networkx as nx

from scg.nodes import trees
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Sample


def bypassed(ir: IR) -> list[str]:
    """Return a warning for each node that reads what was drawn elsewhere, or follows from it, as recorded."""
    found = []
    for name in ir.given:
        record = ir[name]
        assert isinstance(record, Sample)
        charged = {name, *nx.descendants(ir.dag, name)}
        for drawn in record.drawn:
            found += [_warning(ir, name, drawn, child) for child in _first(ir, drawn, charged)]
        found += _of_states(ir, name, charged)
    return found


def _first(ir: IR, drawn: str, charged: set[str]) -> Iterator[str]:
    """Yield the children by way of which costs, or laws that lead to one, are reached uncharged."""
    for child in _reading(ir, drawn):
        below = [child, *_below(ir, child, charged)]
        if child not in charged and any(_counts(ir, other) for other in below):
            yield child


def _below(ir: IR, name: str, charged: set[str]) -> set[str]:
    """Return what reads a node on ways that meet no node which is charged, nor values of other nodes."""
    found, waiting = set[str](), [name]
    while waiting:
        several = [child for child in _reading(ir, waiting.pop()) if child not in charged | found]
        found.update(several)
        waiting += several
    return found


def _reading(ir: IR, name: str) -> list[str]:
    """Return the children that read a node, but for those whose value drawn elsewhere it is."""
    return [
        child
        for child in ir.children(name)
        if not isinstance(ir[child], Sample) or name in ir[child].arguments.names
    ]


def _counts(ir: IR, name: str) -> bool:
    """Say whether a node is a cost, or a sample that leads to one."""
    record = ir[name]
    if not isinstance(record, Sample):
        return isinstance(record, Cost)
    return any(isinstance(ir[other], Cost) for other in nx.descendants(ir.dag, name))


def _of_states(ir: IR, name: str, charged: Iterable[str]) -> list[str]:
    """Return a warning for each cost that reads what a policy read, where actions come one after another."""
    simulation = ir.simulations.get(name)
    if simulation is None or not any(ir.plates[plate].ordered for plate in ir.layout[name]):
        return []
    samples = {*charged, *ir.samples}
    states = [leaf for leaf in trees.tree_leaves(simulation.inputs["state"]) if leaf in ir]
    found = {other for state in states for other in _below(ir, state, samples)}
    return [
        f"cost '{cost}' ({ir[cost].where}) reads what the policy of '{name}' read, and is charged to no "
        f"action, though earlier ones led there; steps that do not exist count too. Read the outcome "
        f"\"state\" of '{name}' in its place"
        for cost in ir.costs
        if cost in found
    ]


def _warning(ir: IR, name: str, drawn: str, child: str) -> str:
    record = ir[name]
    assert isinstance(record, Sample)
    instead = f"Read '{name}' in its place"
    if drawn != record.value:
        is_played = record.simulation is not None
        instead = (
            f"Read the outcome of '{name}' in its place" if is_played else f"Give it '{name}' as a parent too"
        )
    return (
        f"node '{child}' ({ir[child].where}) reads '{drawn}', which was recorded with '{name}': what comes "
        f"of it is not charged to '{name}'. {instead}"
    )
