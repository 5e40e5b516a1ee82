"""Resizing: what a program was prepared for, held against plates of sizes that it has not met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from scg.analysis.facts import Facts
from scg.analysis.modes import agrees
from scg.errors import PlateError
from scg.evaluation.probing import spread, undisturbed
from scg.evaluation.trace import Trace, evaluate
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Sample
from scg.nodes.trees import placed_leaves

FIXED = ("loop", "elementwise")
"""Run modes that are right at any size."""


def check_sizes(ir: IR, facts: Facts, inputs: Mapping[str, Tensor]) -> None:
    """Evaluate the graph as it is declared at the sizes of these inputs, and raise for what does not fit."""
    faults = misfits(ir, facts.trace, _world(ir, inputs, 0))
    if faults:
        raise PlateError("\n".join(faults))


def misfits(ir: IR, example: Trace, found: Trace) -> list[str]:
    """Return which nodes have values of other dimensions than the example's, plates apart.

    An aggregate may be as long as a plate is; a sample has one shape for all of its noise.
    """
    faults = []
    for record in ir.records():
        name, plates = record.name, ir.layout[record.name]
        before, after = (_shapes(trace.values[name], len(plates)) for trace in (example, found))
        is_fixed = isinstance(record, Sample)
        if before == after or (not is_fixed and _ranks(before) == _ranks(after)):
            continue
        sizes = ", ".join(f"{plate}={found.sizes[plate]}" for plate in plates)
        shape = tuple(getattr(found.values[name], "shape", ()))
        wanted = (
            "one value for each element"
            if isinstance(record, Cost)
            else f"{', '.join(map(str, before.values()))} beyond the plates"
        )
        faults.append(
            f"node '{name}' ({record.where}) has shape {shape} where its plates have sizes ({sizes}): wanted "
            f"{wanted}, as in the example. Write it for any size of the plates: no squeeze() without a "
            "dimension, and no number or list as long as they were in the example"
        )
    return faults


def disagreeing(
    ir: IR, inputs: Mapping[str, Tensor], modes: Iterable[tuple[str, str]], varying: frozenset[str]
) -> frozenset[str]:
    """Return the nodes whose functions, at the sizes of these inputs, do not take added axes as they did."""
    asked = [(name, mode) for name, mode in modes if mode not in FIXED]
    if not asked:
        return frozenset()
    worlds = [_world(ir, inputs, seed) for seed in range(3)]
    with undisturbed(ir.store.modules):
        return frozenset(name for name, mode in asked if not agrees(ir, worlds, ir[name], varying, mode))


def _world(ir: IR, inputs: Mapping[str, Tensor], seed: int) -> Trace:
    with undisturbed(ir.store.modules, seed):
        return evaluate(ir, inputs, spread)


def _shapes(value: Any, plates: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a value without its plates, by their places in it."""
    leaves = placed_leaves("", value)
    return {place: tuple(leaf.shape[plates:]) for place, leaf in leaves if isinstance(leaf, Tensor)}


def _ranks(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {place: len(shape) for place, shape in shapes.items()}
