"""How each function takes added dimensions: found once, against a loop over a few worlds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from scg.analysis.calls import is_elementwise, runner, signature, user_function
from scg.analysis.trace import Trace
from scg.nodes.ir import IR
from scg.nodes.plates import insertion
from scg.nodes.records import Det, Record
from scg.vectorise import MODES, Parent, Vectorised

PROBE_AXIS = "#worlds"


def vectorised(
    ir: IR,
    record: Record,
    axes: tuple[str, ...],
    carried: Mapping[str, tuple[str, ...]],
    varying: frozenset[str],
    mode: str,
) -> Vectorised:
    """Return the repeated call of a node whose parents carry the given added axes."""
    parents = {}
    for name in record.arguments.names:
        have = ir.layout[name]
        every = tuple(p for p in ir.plates if p in have or p in ir.layout[record.name])
        index = insertion(have, every) if have else None
        parents[name] = Parent(carried[name], index, bool(have), name in varying)
    return Vectorised(record.arguments, parents, axes, mode)


def run_modes(ir: IR, worlds: list[Trace], names: Iterable[str], varying: frozenset[str]) -> dict[str, str]:
    """Return the first mode in which each named node agrees, in shape and value, with a loop.

    Operations known to act element by element need no probe and are "elementwise"; black boxes are
    looped. ``worlds`` are evaluations of the graph that differ in what is random.
    """
    found: dict[str, str] = {}
    known: dict[Any, str] = {}
    for name in names:
        record = ir[name]
        if user_function(record) is None or is_elementwise(record):
            found[name] = "elementwise"
        elif isinstance(record, Det) and record.differentiable is False:
            found[name] = "loop"
        else:
            key = (
                signature(ir, worlds[0], record),
                tuple(parent in varying for parent in record.arguments.names),
            )
            if key not in known:
                known[key] = _probe(ir, worlds, record, varying)
            found[name] = known[key]
    return found


def _probe(ir: IR, worlds: list[Trace], record: Record, varying: frozenset[str]) -> str:
    carried = {name: (PROBE_AXIS,) if name in varying else () for name in record.arguments.names}
    values = [
        pytree.tree_map(lambda *leaves: torch.stack(leaves), *(world.values[name] for world in worlds))
        if name in varying
        else worlds[0].values[name]
        for name in record.arguments.names
    ]
    fn = runner(ir, record)

    def attempt(mode: str) -> list[Any]:
        call = vectorised(ir, record, (PROBE_AXIS,), carried, varying, mode)
        with torch.random.fork_rng():
            return pytree.tree_leaves(call(fn, *values))

    expected = attempt("loop")
    for mode in MODES[:-1]:
        try:
            found = attempt(mode)
        except Exception:  # noqa: BLE001 - any failure of an arbitrary function means that the mode does not fit
            continue
        if len(found) == len(expected) and all(map(_agrees, found, expected)):
            return mode
    return "loop"


def _agrees(found: Any, expected: Any) -> bool:
    if not isinstance(found, Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not found.is_floating_point():
        return torch.equal(found, expected)
    tolerance = 1e-4 if found.dtype == torch.float32 else 1e-8
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
