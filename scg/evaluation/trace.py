"""Evaluate a graph node by node on example values: the reference semantics of a declaration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from scg.errors import GraphError
from scg.evaluation.densities import Density, make_density, pad
from scg.evaluation.elsewhere import (
    check_stated,
    given_value,
    of_existing,
    of_existing_elements,
    present,
    selected,
)
from scg.evaluation.invoke import black_box, call, callable_of, seen
from scg.evaluation.sizes import placed, plate_sizes
from scg.laws import sum_event
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Constant, Det, Input, LogProb, Param, Record, Sample


@dataclass(frozen=True, eq=False)
class Trace:
    """One evaluation of a graph: the value of every node, the laws met, and the sizes of the plates."""

    values: dict[str, Any] = field(default_factory=dict)
    densities: dict[str, Density] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def event_shape(self, ir: IR, name: str) -> torch.Size:
        """Return the shape of a value without the plates of its node."""
        shape: torch.Size = self.values[name].shape
        return shape[len(ir.layout[name]) :]

    def event_batch(self, name: str) -> torch.Size:
        """Return the shape of a stochastic node's value without the dimensions of an atomic event."""
        shape: torch.Size = self.values[name].shape
        return shape[: len(shape) - self.densities[name].law.value_rank]


class Evaluations(Sequence[Trace]):
    """Evaluations of a graph, each made when it is first asked for."""

    def __init__(self, count: int, make: Callable[[int], Trace]) -> None:
        """Make the evaluation of an index by ``make``."""
        self._make = make
        self._made: list[Trace | None] = [None] * count

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: Any) -> Any:
        """Return one evaluation, or several."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if self._made[index] is None:
            self._made[index] = self._make(index)
        return self._made[index]


Draw = Callable[[Record, Density, torch.Size], Tensor]


def evaluate(
    ir: IR,
    inputs: Mapping[str, Tensor],
    draw: Draw,
    fixed: Mapping[str, Any] = MappingProxyType({}),
    *,
    draws_all: bool = False,
) -> Trace:
    """Evaluate every node in order; nodes in ``fixed``, which are not stochastic, have the given value.

    With ``draws_all`` those are drawn as well whose value was drawn elsewhere.
    """
    trace = Trace(sizes=plate_sizes(ir, inputs))
    for record in ir.records():
        given = record.name in fixed
        value = fixed[record.name] if given else valued(ir, trace, record, inputs, draw, draws_all=draws_all)
        trace.values[record.name] = value
    return trace


def valued(
    ir: IR,
    trace: Trace,
    record: Record,
    inputs: Mapping[str, Tensor],
    draw: Draw,
    *,
    draws_all: bool = False,
) -> Any:
    """Return the value of one node, given those of its parents."""
    if isinstance(record, Input):
        return inputs[record.name]
    if isinstance(record, (Param, Constant)):
        return ir.store.tensors[record.name]
    if isinstance(record, Det):
        return deterministic(ir, trace, record)
    if isinstance(record, Sample):
        check_stated(ir, trace.values, record)
        density = make_density(ir, trace.values, record, record.dist)
        density = trace.densities[record.name] = of_existing(ir, trace.values, record, density)
        lead = torch.Size(trace.sizes[plate] for plate in ir.layout[record.name])
        batch = density.law.batch_shape(density.parameters)
        value = draw(record, density, lead + batch[len(batch) - density.inner :])
        if record.value is None or draws_all:
            return value
        return given_value(ir, trace.values, record, density, value)
    assert isinstance(record, LogProb)
    return _log_prob(ir, trace, record)


def deterministic(ir: IR, trace: Trace, record: Det) -> Any:
    """Return the value of a deterministic node, with the plates of the node."""
    args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, trace.values[name]))
    fn, nested = callable_of(ir, record.fn), _containers(trace, record)
    if record.differentiable is False:
        value = call(record, black_box, (fn, args, kwargs), {})
    else:
        value = call(record, fn, args, kwargs)
    _check_untouched(trace, record, nested)
    inherited = frozenset().union(*(ir.layout[parent] for parent in record.parents))

    def place(path: str, tensor: Tensor) -> Tensor:
        return placed(ir, trace.sizes, record, inherited, tensor, path)

    return of_existing_elements(ir, trace.values, record, pytree.tree_map_placed(place, record.name, value))


def _containers(trace: Trace, record: Record) -> dict[str, list[tuple[str, int]]]:
    """Return what the containers among the values of a node's parents hold, and where."""
    nested = [name for name in record.parents if not isinstance(trace.values[name], Tensor)]
    return {n: [(path, id(x)) for path, x in pytree.placed_leaves(n, trace.values[n])] for n in nested}


def _check_untouched(trace: Trace, record: Record, nested: dict[str, list[tuple[str, int]]]) -> None:
    changed = [name for name, held in _containers(trace, record).items() if nested[name] != held]
    if changed:
        raise GraphError(
            f"node '{record.name}' ({record.where}) writes into the value of '{changed[0]}', which others "
            "read too: change a copy, as in {**value, key: ...} for a dict or dataclasses.replace(value, ...)"
        )


def density_of(ir: IR, trace: Trace, record: LogProb) -> Density:
    """Return the density that a log-probability node evaluates, laid out for its value."""
    if record.of is not None:
        return trace.densities[record.of]
    assert record.dist is not None
    if record.name in trace.densities:  # a relaxed value has dimensions that the hard one lacks
        inner = trace.densities[record.name].inner
        return make_density(ir, trace.values, record, record.dist, lambda law: inner)
    value = seen(ir, record, record.value, trace.values[record.value])
    lead = len(ir.layout[record.name]) if ir.layout[record.value] else 0
    rank = value.dim() - lead
    return make_density(ir, trace.values, record, record.dist, lambda law: rank - law.value_rank)


def _log_prob(ir: IR, trace: Trace, record: LogProb) -> Tensor:
    density = trace.densities[record.name] = density_of(ir, trace, record)
    plates = len(ir.layout[record.name])
    value = seen(ir, record, record.value, trace.values[record.value])
    lead = plates if ir.layout[record.value] else 0
    value = pad(value, lead, density.inner - (value.dim() - density.law.value_rank - lead))
    result: Tensor = call(record, density.law.log_prob, (dict(density.parameters), value), {})
    summed = sum_event(result, plates)
    owner = ir[record.value]
    if not isinstance(owner, Sample) or owner.exists is None:
        return summed
    return selected(summed, present(ir, trace.values, record, owner.exists).mask)
