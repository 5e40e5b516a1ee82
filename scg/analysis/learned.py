"""Learned: what every value of a graph is computed from, of what may be trained and of noise."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from scg.analysis.recorded import Recording, is_recorded, key, loses_gradient, recording
from scg.evaluation.calls import listed
from scg.evaluation.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Constant, Det, Input, LogProb, Param, Record, Sample, part

HELD: Final = 1
"""The bit of whatever a program holds and trains; the inputs have the bits after it, in their order."""

COMPARING: Final = frozenset(
    {
        *(operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne),
        *(torch.gt, torch.ge, torch.lt, torch.le, torch.eq, torch.ne, torch.Tensor.gt, torch.Tensor.ge),
        *(torch.Tensor.lt, torch.Tensor.le, torch.Tensor.eq, torch.Tensor.ne),
    }
)
NO_STEPS: Final = frozenset({torch.Tensor.detach, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.item})


@dataclass(frozen=True, eq=False)
class Learned:
    """What was found of every node on the way to a cost.

    ``bits`` and ``noisy`` hold, for every leaf of a node's value, what has a gradient into it and whether
    noise of a function is in it; ``drawing`` names operations of a library between the two that draw.
    """

    ir: IR
    trace: Trace
    wanted: frozenset[str]
    bits: dict[str, list[int]] = field(default_factory=dict)
    noisy: dict[str, list[bool]] = field(default_factory=dict)
    recordings: dict[str, Recording | str] = field(default_factory=dict)
    drawing: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)

    def parents(self, record: Record) -> tuple[list[int], list[bool]]:
        """Return what the leaves of a node's parents are computed from, in the order of its arguments."""
        names = record.arguments.names
        return [b for name in names for b in self.bits[name]], [n for name in names for n in self.noisy[name]]

    def of_source(self, record: Record, found: Recording, source: int) -> int:
        """Return the bits of a source of a node's recorded call: what no parent gave is held."""
        return self.parents(record)[0][found.given[source]] if source < len(found.given) else HELD

    def used(self, name: str) -> frozenset[int]:
        """Return the outputs of a recorded call that lead on towards a cost."""
        found = self.recordings[name]
        assert isinstance(found, Recording)
        every = frozenset(range(len(found.flow.leaves)))
        children = [self.ir[child] for child in self.ir.children(name) if child in self.wanted]
        whole = self.trace.values[name]
        if name in self.ir.costs or not isinstance(whole, (tuple, list)) or not all(map(_is_part, children)):
            return every
        sizes = [len(pytree.tree_leaves(item)) for item in whole]
        wanted = [child.arguments.args[1] for child in children]
        return frozenset(
            place for index in wanted for place in range(sum(sizes[:index]), sum(sizes[: index + 1]))
        )


def learned(ir: IR, trace: Trace) -> Learned:
    """Follow what is learned, and noise, from node to node; the caller keeps generators and buffers."""
    found = Learned(ir, trace, wanted(ir))
    shared: dict[Any, Recording | str] = {}
    for record in ir.records():
        bits, noisy = _own(found, record) if record.name in found.wanted else (0, False)
        leaves = pytree.tree_leaves(trace.values[record.name])
        if record.name in found.wanted and is_recorded(record):
            _record(found, record, shared)
        if not isinstance(found.recordings.get(record.name), Recording) or not isinstance(record, Det):
            found.bits[record.name] = [bits if _is_floating(leaf) else 0 for leaf in leaves]
            found.noisy[record.name] = [noisy] * len(leaves)
    return found


def wanted(ir: IR) -> frozenset[str]:
    """Return the names of costs, and of what leads to one other than through a black box."""
    found = set(ir.costs)
    for name in reversed(list(ir)):
        if any(child in found and not is_black_box(ir[child]) for child in ir.children(name)):
            found.add(name)
    return frozenset(found)


def is_black_box(record: Record) -> bool:
    """Say whether a node is declared to pass on no gradient."""
    return isinstance(record, Det) and record.differentiable is False


def _own(found: Learned, record: Record) -> tuple[int, bool]:
    """Return what a node that is not recorded is computed from."""
    ir = found.ir
    if isinstance(record, (Param, Constant)):
        return HELD * ir.store.tensors[record.name].requires_grad, False
    if isinstance(record, Input):
        return 2 << ir.inputs.index(record.name), False
    if isinstance(record, Sample) or is_black_box(record):
        return 0, False
    bits, noisy = found.parents(record)
    if isinstance(record, LogProb):
        law = ir[record.of].arguments.names if record.of is not None else ()
        return _union([*bits, *(b for name in (record.value, *law) for b in found.bits[name])]), False
    if loses_gradient(record):
        if _draws(record, bits, noisy):
            found.drawing.append(record.name)
        return 0, any(noisy)
    if _is_part(record):
        return _part(found, record)
    return _union(bits), any(noisy)


def _part(found: Learned, record: Record) -> tuple[int, bool]:
    """Return what one of several results is computed from."""
    (whole,) = record.arguments.names
    index, values = record.arguments.args[1], found.trace.values[whole]
    start = sum(len(pytree.tree_leaves(item)) for item in values[:index])
    stop = start + len(pytree.tree_leaves(values[index]))
    return _union(found.bits[whole][start:stop]), any(found.noisy[whole][start:stop])


def _draws(record: Record, bits: Sequence[int], noisy: Sequence[bool]) -> bool:
    """Say whether an operation that steps has noise and what is learned meet, or has both already."""
    assert isinstance(record, Det)
    if listed(record.fn.call, NO_STEPS):
        return False
    pairs = list(zip(bits, noisy, strict=True))
    apart = any(b and not n for b, n in pairs) and any(n and not b for b, n in pairs)
    mixed = any(b and n for b, n in pairs)
    return apart or (mixed and not listed(record.fn.call, COMPARING))


def _record(found: Learned, record: Record, shared: dict[Any, Recording | str]) -> None:
    """Record the call of a node, or take the recording of one that calls the same alike."""
    bits, noisy = found.parents(record)
    flags = [bool(b) for b in bits]
    name = key(found.ir, found.trace, record, flags, noisy)
    if name not in shared:
        shared[name] = recording(found.ir, found.trace, record, flags, noisy)
    call = found.recordings[record.name] = shared[name]
    found.keys[record.name] = name
    if isinstance(call, Recording):
        found.bits[record.name] = [
            _union([found.of_source(record, call, source) for source in leaf.sources & call.flow.alive])
            for leaf in call.flow.leaves
        ]
        found.noisy[record.name] = [bool(leaf.noises) for leaf in call.flow.leaves]


def _is_part(record: Record) -> bool:
    return isinstance(record, Det) and record.fn.call is part


def _union(bits: Sequence[int]) -> int:
    union = 0
    for bit in bits:
        union |= bit
    return union


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
