"""Moved worlds: evaluations of a graph with inputs, parameters and modules off what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scg.evaluation.probing import spread, undisturbed
from scg.evaluation.trace import Trace, valued
from scg.nodes import trees
from scg.nodes.ir import IR
from scg.nodes.records import Input, Param, Record, Sample
from scg.probes.bounded import MANY, Bounded
from scg.probes.held import SCALES, Moves, holding, moved, moved_parameters, parameters_of

SEED = 1000
"""Far from the seeds of evaluations that nothing is moved in."""


@dataclass(frozen=True, eq=False)
class Around:
    """An evaluation of a graph, and further ones, made when they are first asked for."""

    first: Trace
    make: Callable[[], Sequence[Trace]]

    @cached_property
    def rest(self) -> Sequence[Trace]:
        """Evaluations at other values."""
        return self.make()

    @property
    def every(self) -> Sequence[Trace]:
        """All of them."""
        return [self.first, *self.rest]


def moved_traces(ir: IR, inputs: Mapping[str, Tensor], first: Trace) -> list[Trace]:
    """Evaluate a graph at values that its inputs and parameters do not have, but could have.

    What cannot be evaluated there, as it lies outside of a function's domain, is as in ``first``.
    """
    return [_moved(ir, inputs, first, index, scale) for index, scale in enumerate(SCALES)]


def _moved(ir: IR, inputs: Mapping[str, Tensor], first: Trace, seed: int, scale: float) -> Trace:
    generator = torch.Generator().manual_seed(SEED)
    elsewhere = {name: _off(value, generator, scale) for name, value in inputs.items()}
    moves: Moves = [
        *moved_parameters(parameters_of(ir.store.modules.values()), SEED, scale),
        *((p, moved(p.detach(), generator, scale)) for p in (ir.store.tensors[name] for name in ir.params)),
    ]
    trace = Trace(dict(first.values), dict(first.densities), first.sizes)
    with undisturbed(ir.store.modules, SEED + seed), holding(moves):
        for record in ir.records():
            trace.values[record.name] = _value(ir, trace, record, elsewhere)
    return trace


def _off(value: Any, generator: torch.Generator, scale: float) -> Any:
    return trees.tree_map_only(Tensor, lambda leaf: moved(leaf.detach(), generator, scale), value)


def _value(ir: IR, trace: Trace, record: Record, inputs: Mapping[str, Tensor]) -> Any:
    """Return the value of a node, or the one that it has already, where there is none of that kind."""
    before, density = trace.values[record.name], trace.densities.get(record.name)
    try:
        with Bounded(MANY):
            value = valued(ir, trace, record, inputs, spread, draws_all=True)
        found = trace.densities.get(record.name)
        outside = isinstance(record, Sample) and found is not None and found.law.violations(found.parameters)
    except Exception:  # noqa: BLE001 - of arbitrary functions, at arguments that they may not be made for
        value, outside = None, "raised"
    if outside or kind(value) != kind(before):
        if density is not None:
            trace.densities[record.name] = density
        return before
    if isinstance(record, (Param, Input)):
        # What a parameter holds comes back.
        return trees.tree_map_only(Tensor, lambda leaf: leaf.detach().clone(), value)
    return value


def kind(value: Any) -> Any:
    """Return what two values of one node have in common: containers, shapes and types."""
    return [
        (place, leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else (place, type(leaf))
        for place, leaf in trees.placed_leaves("", value)
    ]
