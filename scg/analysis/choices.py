"""Choices: numbers that Python reads of elements, and whether they decide what other elements become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from scg.analysis.followed import Recording, record_call
from scg.evaluation.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Record
from scg.probes.branches import others
from scg.probes.dependence import Label
from scg.standing import Standing

ROWS = 4
"""How many elements fill a plate in turn."""


class Finding(NamedTuple):
    """What joins elements of a plate in a node, None where nothing does, and how that is known."""

    joint: str | None
    standing: Standing


def decided(
    ir: IR,
    worlds: Sequence[Trace],
    record: Record,
    plate: str,
    among: Sequence[str],
    taken: Recording,
    *,
    of_one: bool,
) -> Finding:
    """Say whether a number that Python reads of elements decides what others become.

    Another number is given in its place: a check raises, a branch gives something else. What is read
    ``of_one`` element may change that element; what is read of several at once is left out then. A branch
    that only saves work gives on one of its ways what the function gives, whatever the elements are.
    """
    standing: Standing = "structural"
    sizes = {label.name: label.count for label in taken.places}
    for place, owners in taken.provenance.of_elements.items():
        is_of_several = min(owners.values(), default=-1) < 0
        if (of_one and is_of_several) or not _decides(ir, worlds[0], record, among, taken, place, owners):
            continue
        if not is_of_several or not _saves_work(ir, worlds, record, plate, among, sizes, place):
            return Finding("a number that Python reads", "structural")
        standing = "probed"
    return Finding(None, standing)


def _decides(
    ir: IR,
    trace: Trace,
    record: Record,
    among: Sequence[str],
    taken: Recording,
    place: int,
    owners: Mapping[Label, int],
) -> bool:
    sizes = {label.name: label.count for label in taken.places}
    for other in others(taken.provenance.reads.values[place]):
        try:
            reads = taken.provenance.reads.other({place: other})
            after = record_call(ir, trace, record, among, sizes, reads)
        except Exception:  # noqa: BLE001 - a check that raises
            continue
        if not _same(_besides(taken, owners), _besides(after, owners)):
            return True
    return False


def _saves_work(
    ir: IR,
    worlds: Sequence[Trace],
    record: Record,
    plate: str,
    among: Sequence[str],
    sizes: Mapping[str, int],
    place: int,
) -> bool:
    """Say whether one outcome of a choice gives everywhere what the function gives, both being met."""
    several: list[Trace] = []
    natural: list[Recording] = []
    for trace in (*worlds, *_filled(ir, worlds[0], plate, among)):
        try:
            natural.append(record_call(ir, trace, record, among, sizes))
        except Exception:  # noqa: BLE001 - of an arbitrary function
            continue
        several.append(trace)
    met = {value for found in natural for value in found.provenance.reads.values[place : place + 1]}

    def gives(outcome: bool) -> bool:
        pairs = zip(several, natural, strict=True)
        return all(_gives(ir, trace, record, among, sizes, found, {place: outcome}) for trace, found in pairs)

    return met == {True, False} and (gives(True) or gives(False))


def _gives(
    ir: IR,
    trace: Trace,
    record: Record,
    among: Sequence[str],
    sizes: Mapping[str, int],
    natural: Recording,
    instead: Mapping[int, bool],
) -> bool:
    """Say whether a call in which Python reads something else gives the same."""
    try:
        reads = natural.provenance.reads.other(instead)
        return _same(natural.outputs, record_call(ir, trace, record, among, sizes, reads).outputs)
    except Exception:  # noqa: BLE001 - of an arbitrary function
        return False


def _filled(ir: IR, trace: Trace, plate: str, among: Sequence[str]) -> Iterator[Trace]:
    """Yield worlds in which all elements of a plate are alike: one of them, the least number, the largest."""

    def world(fill: Callable[[Tensor, int], Tensor]) -> Trace:
        values = dict(trace.values)
        for name in among:
            place = ir.layout[name].index(plate)
            values[name] = pytree.tree_map_only(Tensor, partial(_at, fill, place), values[name])
        return replace(trace, values=values)

    yield world(lambda leaf, place: torch.full_like(leaf, leaf.min().item()))
    yield world(lambda leaf, place: torch.full_like(leaf, leaf.max().item()))
    for row in range(min(ROWS, trace.sizes[plate])):
        yield world(lambda leaf, place: leaf.narrow(place, row, 1).expand_as(leaf).clone())  # noqa: B023


def _at(fill: Callable[[Tensor, int], Tensor], place: int, leaf: Tensor) -> Tensor:
    return fill(leaf, place)


def _besides(recording: Recording, owners: Mapping[Label, int]) -> list[Tensor]:
    """Return what a call gave, without the elements that may depend on what is owned."""
    outputs = list(recording.outputs)
    for label, owner in owners.items():
        place = recording.places.get(label)
        if owner > 0 and place is not None:
            numbers = torch.arange(1, label.count + 1)
            keep = (numbers < owner if label.is_ordered else numbers != owner).nonzero()[:, 0]
            outputs = [
                out.index_select(place, keep.to(out.device))
                if place < out.dim() and out.shape[place] == label.count
                else out
                for out in outputs
            ]
    return outputs


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.allclose(a, b, equal_nan=True) for a, b in zip(one, other, strict=True)
    )
