"""Meeting: which branches of enumerated nodes meet where, and in how many joint outcomes."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from networkx.utils import UnionFind

from scg.analysis.elimination import Scope, Tree, conditional, eliminated
from scg.analysis.facts import Facts
from scg.nodes.ir import IR
from scg.nodes.records import LogProb, Record, Sample

NAMED = 6
"""How many nodes that meet are named."""


@dataclass(frozen=True, eq=False)
class Meeting:
    """Enumerated nodes with their numbers of joint ``outcomes``, and what has their branches.

    ``carried[n]`` are those along whose branches the value of a node is evaluated, ``masses[n]`` an
    enumerated node with those on which its probabilities depend directly, and ``costs`` what each cost has.
    """

    facts: Facts
    outcomes: Mapping[str, int]
    carried: Mapping[str, Scope]
    masses: Mapping[str, Scope]

    @cached_property
    def costs(self) -> frozenset[Scope]:
        """What the value of some cost carries."""
        return frozenset(self.carried[cost] for cost in self.facts.ir.costs if self.carried.get(cost))

    @cached_property
    def tree(self) -> Tree:
        """The cliques in which the branches are summed out."""
        return eliminated([*self.masses.values(), *sorted(self.costs, key=sorted)])

    @cached_property
    def groups(self) -> list[Scope]:
        """Enumerated nodes that have to do with each other."""
        found = UnionFind(self.masses)
        for clique in self.tree.cliques.values():
            found.union(*clique)
        return [frozenset(group) for group in found.to_sets()]

    def evaluations(self, group: Scope) -> int:
        """Return in how many branches some function is evaluated, at most."""
        several = {scope & group for scope in self.carried.values()}
        return max(map(self.size, several), default=1)

    def widest(self, group: Scope) -> int:
        """Return how many joint outcomes are summed over at once in a group, at most."""
        cliques = self.tree.cliques
        return max((self.size(cliques[name]) for name in group), default=1)

    def size(self, scope: Scope) -> int:
        """Return the number of joint outcomes of several nodes."""
        return math.prod(self.outcomes[name] for name in scope)

    def sums(self, scored: Container[str]) -> Iterator[Scope]:
        """Yield the nodes that meet in every sum, for costs and for what ``scored`` nodes are charged."""
        yield from self.tree.cliques.values()
        influence, seen = self.facts.influence, set[tuple[Scope, Scope]]()
        for name in self.facts.ir.samples:
            lead = self.carried.get(name)
            if not lead or name in self.masses or name not in scored:
                continue
            for cost in influence.costs_of(influence.reached[name]):
                axes = self.carried[cost] - lead
                if axes and (axes, lead) not in seen:
                    seen.add((axes, lead))
                    known = conditional(self.masses, axes, lead)
                    scopes = [*(self.masses[one] for one in sorted(known.counted)), axes | known.seen]
                    yield from eliminated(scopes).cliques.values()


def meeting(facts: Facts, outcomes: Mapping[str, int]) -> Meeting:
    """Return what has the branches of enumerated nodes, of all nodes that lead to a cost."""
    ir, none = facts.ir, frozenset[str]()
    carried, masses = dict[str, Scope](), dict[str, Scope]()
    for record in ir.records():
        name = record.name
        if name in facts.useful:
            given = none.union(*(carried.get(parent, none) for parent in _read(ir, record)))
            if name in outcomes:
                masses[name], carried[name] = given | {name}, frozenset({name})
            else:
                carried[name] = given
    return Meeting(facts, {name: outcomes[name] for name in masses}, carried, masses)


def _read(ir: IR, record: Record) -> tuple[str, ...]:
    """Return the nodes whose branches the value of a node has."""
    if isinstance(record, Sample):
        return record.arguments.names
    if isinstance(record, LogProb) and record.of is not None:
        return (record.of, *ir[record.of].arguments.names)
    return record.parents


def described(found: Meeting, scope: Scope) -> str:
    """Name nodes that meet, in the order in which they are declared."""
    names = [name for name in found.masses if name in scope]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def remedy(found: Meeting, limit: int) -> str:
    """Return what to write so that the sums over all others are within a limit.

    A node that is drawn is cut out only if all above it are drawn as well: the first ones are.
    """
    names = list(found.masses)
    low, high = 0, len(names)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _most(found, names[middle:]) <= limit else (middle, high)
    if high == 1:
        return f"Give '{names[0]}' \"score\" or scg.Enumerate(local=True)"
    if high == len(names):
        return 'Give them "score" or scg.Enumerate(local=True)'
    return (
        f"Give the first {high} of the {len(names)} nodes, '{names[0]}' to '{names[high - 1]}', "
        f'"score" or scg.Enumerate(local=True), which leaves {_most(found, names[high:])} at most'
    )


def _most(found: Meeting, names: Sequence[str]) -> int:
    """Return how many joint outcomes meet at most where only some nodes are enumerated."""
    left = meeting(found.facts, {name: found.outcomes[name] for name in names})
    return max(map(left.size, left.tree.cliques.values()), default=1)
