"""Eliminated: the objective of one cost from tables of what few nodes give, summed out in turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import Size, Tensor

from scg.evaluation.densities import Density
from scg.evaluation.trace import evaluate
from scg.nodes.ir import IR
from scg.nodes.records import Det, LogProb, Record, Sample
from scg.oracle.cases import TOGETHER, Cases
from scg.oracle.outcomes import outcome

Table = tuple[tuple[str, ...], Tensor]
"""Names of nodes, and a number for each joint outcome of them and each element of the plates of the cost."""


@dataclass(frozen=True, eq=False)
class Part:
    """What one node is computed from: the records, and the samples whose ``outcomes`` tell its value.

    Of samples among ``drawn`` the law is needed as well, as their parents say; the others are given.
    """

    ir: IR
    outcomes: tuple[str, ...]
    drawn: frozenset[str]


@dataclass(frozen=True, eq=False)
class Elimination:
    """The ``cases`` of one cost, which are never listed; ``held`` are tables made for other costs before."""

    cases: Cases
    held: dict[Any, Tensor] = field(default_factory=dict)

    @cached_property
    def parts(self) -> dict[str, Part]:
        """What every sample, and the cost, are computed from."""
        return {name: self._part(name) for name in (*self.cases.choices, self.cases.cost)}

    @cached_property
    def largest(self) -> int:
        """The entries of the largest table on the way."""
        return max(self.size(scope) for scope in self._scopes())

    def size(self, names: tuple[str, ...] | frozenset[str]) -> int:
        """Return the number of joint outcomes of several nodes."""
        choices = self.cases.choices
        return math.prod(choices[name].outcomes ** choices[name].elements for name in names)

    def total(self) -> Tensor:
        """Return ``sum_e lambda[e] E c[e]``."""
        last = self.parts[self.cases.cost].outcomes
        tables = [self._table(name) for name in self.cases.choices]
        for name, met in self._order():
            joint = [table for table in tables if name in table[0]]
            product = _aligned(joint, met).sum(met.index(name))
            tables = [table for table in tables if name not in table[0]]
            tables.append((tuple(other for other in met if other != name), product))
        _, cost = self._table(self.cases.cost)
        weight = _aligned(tables, last) * self.cases.weight.to(cost)
        return (weight * torch.where((weight == 0) & ~cost.isfinite(), 0.0, cost)).sum()

    def _order(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the nodes to be summed out, one with the fewest joint outcomes first, and what they meet."""
        scopes = [frozenset(self.parts[name].outcomes) for name in self.cases.choices]
        left = set(self.cases.choices) - set(self.parts[self.cases.cost].outcomes)
        while left:
            met = {name: frozenset().union(*(s for s in scopes if name in s)) for name in left}
            name = min(sorted(left), key=lambda one: self.size(met[one]))
            yield name, tuple(sorted(met[name]))
            scopes = [*(s for s in scopes if name not in s), met[name] - {name}]
            left.discard(name)

    def _scopes(self) -> Iterator[tuple[str, ...]]:
        yield from (part.outcomes for part in self.parts.values())
        yield from (met for _, met in self._order())

    def _part(self, last: str) -> Part:
        """Follow parents up to samples whose value needs no more than the outcome."""
        ir, found, drawn, outcomes = self.cases.ir, set[str](), set[str](), set[str]()
        waiting = [(last, True)]
        while waiting:
            name, is_drawn = waiting.pop()
            record = ir[name]
            if isinstance(record, Sample):
                outcomes.add(name)
                if not (is_drawn or not self.cases.first.densities[name].law.finite):
                    found.add(name)
                    continue
                if name in drawn:
                    continue
                drawn.add(name)
            elif name in found:
                continue
            found.add(name)
            of = record.of if isinstance(record, LogProb) else None
            waiting += [(parent, parent == of) for parent in record.parents if parent not in self.cases.fixed]
        dag = nx.DiGraph()
        names = found | {name for name in self.cases.fixed if name in ir}
        for record in ir.records():
            if record.name in names:
                dag.add_node(record.name, record=record)
                dag.add_edges_from((parent, record.name) for parent in record.parents if parent in names)
        part = IR(dag, ir.plates, ir.layout, ir.store)
        return Part(part, tuple(sorted(outcomes)), frozenset(drawn))

    def _table(self, name: str) -> Table:
        """Return the chances of a sample, or the values of the cost, [*outcomes, *plates of the cost]."""
        part, cases = self.parts[name], self.cases
        kind = tuple((other, cases.choices[other]) for other in part.outcomes)
        key = (name, kind, cases.ir.layout[cases.cost])
        if key not in self.held:
            few = replace(cases, choices={other: cases.choices[other] for other in part.outcomes})
            self.held[key] = self._evaluated(name, part, few)
        return part.outcomes, self.held[key]

    def _evaluated(self, name: str, part: Part, few: Cases) -> Tensor:
        def entry(indices: Mapping[str, Tensor]) -> Tensor:
            return self._entry(name, part, indices)

        sizes = [self.size((other,)) for other in part.outcomes]
        indices = few.indices(torch.arange(few.count))
        is_batched = not any(isinstance(r, Det) and r.differentiable is False for r in part.ir.records())
        if is_batched and few.count > 1:
            try:
                found = torch.vmap(entry, chunk_size=TOGETHER)(indices)
                return found.view(*reversed(sizes), *found.shape[1:]).permute(*_turned(sizes, found))
            except Exception:  # noqa: BLE001 - a function may refuse vmap in any way; one by one, its own errors come up
                pass
        each = ({other: index[k] for other, index in indices.items()} for k in range(few.count))
        found = torch.stack([entry(one) for one in each])
        return found.view(*reversed(sizes), *found.shape[1:]).permute(*_turned(sizes, found))

    def _entry(self, name: str, part: Part, indices: Mapping[str, Tensor]) -> Tensor:
        """Return one number for each element of the plates of the cost, as some outcomes give it."""
        chances: dict[str, Tensor] = {}
        cases = self.cases

        def draw(record: Record, density: Density, batch: Size) -> Tensor:
            cases.same(record, density)
            value, chances[record.name] = outcome(density, indices[record.name], batch, cases.points)
            return value

        given = {
            other: self._value(other, indices[other]) for other in part.outcomes if other not in part.drawn
        }
        fixed = {other: value for other, value in cases.fixed.items() if other in part.ir}
        trace = evaluate(part.ir, cases.inputs, draw, {**fixed, **given})
        if name == cases.cost:
            value: Tensor = trace.values[name]
            return value
        joint = cases.joint(name, chances[name])
        return joint.expand(torch.broadcast_shapes(joint.shape, (1,) * cases.first.values[cases.cost].dim()))

    def _value(self, name: str, index: Tensor) -> Tensor:
        """Return the value of a sample of finitely many values, whatever its parents are."""
        density, value = self.cases.first.densities[name], self.cases.first.values[name]
        batch = value.shape[: value.dim() - density.law.value_rank]
        return outcome(density, index, batch, self.cases.points)[0]


def _turned(sizes: list[int], found: Tensor) -> list[int]:
    """Return the order of dimensions: numbers of cases count the first outcome fastest."""
    count = len(sizes)
    return [*reversed(range(count)), *range(count, count + found.dim() - 1)]


def _aligned(tables: list[Table], names: tuple[str, ...]) -> Tensor:
    """Return the product of tables, [*names, *plates]."""
    product = torch.ones(())
    for scope, table in tables:
        order = [scope.index(name) for name in names if name in scope]
        plates = range(len(scope), table.dim())
        table = table.permute(*order, *plates)
        index = tuple(slice(None) if name in scope else None for name in names)
        product = product * table[index]
    return product
