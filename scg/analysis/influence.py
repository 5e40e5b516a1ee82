"""Influence: which costs each node reaches, and which plates every path to them keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from scg.nodes.ir import IR
from scg.nodes.records import Det, Sample


@dataclass(frozen=True, eq=False)
class Influence:
    """Costs reached by every stochastic node, as sets of bits over the costs in order of declaration.

    ``reached[w]`` has bit c when a directed path leads from w to cost c. ``dropped[w][p]`` has bit c
    when some path w -> c leaves or mixes plate p, so that elements of w along p share the cost.
    ``stochastic`` names the nodes that are, or lie below, a stochastic node.
    """

    costs: tuple[str, ...]
    reached: Mapping[str, int]
    dropped: Mapping[str, Mapping[str, int]]
    stochastic: frozenset[str]

    @cached_property
    def position(self) -> Mapping[str, int]:
        """The bit of each cost."""
        return {name: index for index, name in enumerate(self.costs)}

    def costs_of(self, bits: int) -> Iterator[str]:
        """Yield the names of the costs in a set of bits, in order."""
        while bits:
            low = bits & -bits
            yield self.costs[low.bit_length() - 1]
            bits ^= low

    def bits_of(self, costs: Iterable[str]) -> int:
        """Return the set of bits of some costs."""
        return sum(1 << self.position[cost] for cost in costs)

    def kept(self, ir: IR, name: str, cost: str) -> tuple[str, ...]:
        """Return the plates that every path from ``name`` to ``cost`` keeps, in the graph's order."""
        bit = 1 << self.position[cost]
        return tuple(p for p in ir.layout[name] if not self.dropped[name].get(p, 0) & bit)

    def kept_by_all(self, ir: IR, name: str) -> tuple[str, ...]:
        """Return the plates of ``name`` that every path to every cost keeps."""
        return tuple(p for p in ir.layout[name] if not self.dropped[name].get(p, 0))


def influence(ir: IR) -> Influence:
    """Sweep the graph once from the costs upwards, with one set of bits per node and plate.

    A set is dropped once every parent has read it, so that long graphs with many costs stay small.
    """
    costs = ir.costs
    bit = {name: 1 << index for index, name in enumerate(costs)}
    reached: dict[str, int] = {}
    dropped: dict[str, dict[str, int]] = {}
    live: dict[str, tuple[int, dict[str, int]]] = {}
    pending = {name: ir.dag.in_degree(name) for name in ir}
    for name in reversed(list(ir)):
        record = ir[name]
        mine, lost = bit.get(name, 0), dict[str, int]()
        for child in ir.children(name):
            below, below_lost = live[child]
            mine |= below
            for plate, bits in below_lost.items():
                lost[plate] = lost.get(plate, 0) | bits
            pending[child] -= 1
            if not pending[child]:
                del live[child]
        mixed = record.mixes if isinstance(record, Det) else frozenset()
        inside = frozenset(ir.layout[name]) - mixed
        lost = {p: bits for p in ir.plates if (bits := lost.get(p, 0) if p in inside else mine)}
        live[name] = (mine, lost)
        if isinstance(record, Sample):
            reached[name], dropped[name] = mine, lost
    return Influence(costs, reached, dropped, stochastic_part(ir))


def stochastic_part(ir: IR) -> frozenset[str]:
    """Return the names of the nodes that are stochastic or lie below a stochastic node."""
    found: set[str] = set()
    for record in ir.records():
        if isinstance(record, Sample) or not found.isdisjoint(record.parents):
            found.add(record.name)
    return frozenset(found)


def useful(ir: IR) -> frozenset[str]:
    """Return the names of the nodes that are costs or lead to one."""
    found = set(ir.costs)
    for record in reversed(list(ir.records())):
        if record.name in found:
            found.update(record.parents)
    return frozenset(found)


def stochastic_plates(ir: IR) -> Mapping[str, frozenset[str]]:
    """Return, for every node, the plates that a stochastic ancestor shares with every node between."""
    result: dict[str, frozenset[str]] = {}
    empty: frozenset[str] = frozenset()
    for record in ir.records():
        layout = ir.layout[record.name]
        above = empty.union(*(result[parent] for parent in record.parents)) if record.parents else empty
        mixed = record.mixes if isinstance(record, Det) else empty
        through = above.intersection(layout) - mixed
        result[record.name] = frozenset(layout) if isinstance(record, Sample) else through
    return result


def below(ir: IR, name: str) -> tuple[str, ...]:
    """Return the descendants of a node in topological order."""
    descendants = nx.descendants(ir.dag, name)
    return tuple(other for other in ir if other in descendants)
