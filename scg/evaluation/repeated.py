"""Repeated: the call of a node whose parents carry added axes."""

from __future__ import annotations

from collections.abc import Mapping

from scg.evaluation.vectorise import Parent, Vectorised
from scg.nodes.ir import IR
from scg.nodes.plates import insertion
from scg.nodes.records import Record


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
