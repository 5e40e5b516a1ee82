"""Many: whether a function written for one world, or some elements, keeps many apart, by its operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from scg.analysis.followed import (
    PRIMES,
    Recording,
    all_ways,
    record_call,
    resized,
    sizes_to_try,
    tensors,
)
from scg.evaluation.calls import runner
from scg.evaluation.invoke import seen
from scg.evaluation.repeated import vectorised
from scg.evaluation.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Record
from scg.noise import reseed
from scg.probes.branches import Reads, Ways, ways
from scg.probes.dependence import Label
from scg.probes.provenance import Provenance

WORLDS = "#worlds"
ANYTHING = Label("#anything", 1)


def keeps_worlds_apart(ir: IR, trace: Trace, record: Record, varying: frozenset[str]) -> bool:
    """Say whether a function, given worlds in one more leading dimension, treats each as it would alone.

    No operation joins worlds, or elements of plates that it would not join for one world, and each works
    along the dimensions, counted from the right, along which it would.
    """
    plates = ir.layout[record.name]
    for sizes in sizes_to_try(ir, trace, record, plates):
        try:
            alone = ways(partial(_recorded, ir, trace, record, varying, sizes, None))
            count = next(p for p in PRIMES if p not in _sizes(ir, trace, record) | set(sizes.values()))
            many = ways(partial(_recorded, ir, trace, record, varying, sizes, count))
        except Exception:  # noqa: BLE001 - of an arbitrary function
            continue
        is_paired = alone.is_complete and many.is_complete and alone.untaken.keys() == many.untaken.keys()
        return is_paired and all(_is_as_alone(*pair, count) for pair in zip(alone, many, strict=True))
    return False


def _is_as_alone(alone: Recording, many: Recording, count: int) -> bool:
    if many.provenance.left is not None or many.provenance.of_elements or many.joint(Label(WORLDS, count)):
        return False
    if alone.provenance.turns != many.provenance.turns or len(alone.outputs) != len(many.outputs):
        return False
    shapes = ((a.shape, m.shape) for a, m in zip(alone.outputs, many.outputs, strict=True))
    if any(one != wide and (count, *one) != tuple(wide) for one, wide in shapes):
        return False
    return all(alone.joint(label) == many.joint(label) for label in alone.places if label is not ANYTHING)


def _recorded(
    ir: IR,
    trace: Trace,
    record: Record,
    varying: frozenset[str],
    sizes: Mapping[str, int],
    count: int | None,
    reads: Reads,
) -> Recording:
    """Record a call for one world, or for ``count`` of them by broadcasting."""
    added, names = int(count is not None), record.arguments.names
    labels = {plate: Label(plate, size, ir.plates[plate].ordered) for plate, size in sizes.items()}
    sources: dict[Label, list[tuple[Tensor, int]]] = {label: [] for label in (ANYTHING, *labels.values())}
    worlds = Label(WORLDS, count or 0)
    if added:
        sources[worlds] = []
    values = {}
    for name in names:
        value = resized(ir, name, trace.values[name], trace, sizes)
        if added and name in varying:
            value = pytree.tree_map_only(Tensor, lambda leaf: _several(leaf, count or 1), value)
            sources[worlds] += [(leaf, 0) for leaf in tensors(value)]
        values[name] = value
        if name in varying:
            sources[ANYTHING] += [(leaf, 0) for leaf in tensors(value) if leaf.dim()]
        for plate in set(sizes) & set(ir.layout[name]):
            place = ir.layout[name].index(plate) + added * (name in varying)
            sources[labels[plate]] += [(leaf, place) for leaf in tensors(value)]
    provenance = Provenance(sources, given=tensors(list(values.values())), reads=reads)
    call = _call(ir, record, varying, values, is_many=count is not None)
    with torch.random.fork_rng(), torch.no_grad(), provenance:
        reseed(0)
        result = call()
    places = {label: ir.layout[record.name].index(plate) + added for plate, label in labels.items()}
    if added:
        places[worlds] = 0
    return Recording(provenance, tuple(tensors(result)), places)


def _several(leaf: Tensor, count: int) -> Tensor:
    return leaf.expand(count, *leaf.shape).clone()


def _call(
    ir: IR, record: Record, varying: frozenset[str], values: Mapping[str, Any], *, is_many: bool
) -> Any:
    fn = runner(ir, record)
    if not is_many:
        args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, values[name]))
        return partial(fn, *args, **kwargs)
    carried = {name: (WORLDS,) if name in varying else () for name in record.arguments.names}
    return partial(vectorised(ir, record, (WORLDS,), carried, varying, "broadcast"), fn, *values.values())


def _sizes(ir: IR, trace: Trace, record: Record) -> set[int]:
    return {n for name in record.arguments.names for leaf in tensors(trace.values[name]) for n in leaf.shape}


def takes_any_number(ir: IR, trace: Trace, record: Record, plates: Sequence[str], *, even_one: bool) -> bool:
    """Say whether a function treats the elements of plates alike, however many there are, and draws nothing.

    It does the same operations at two sizes that nothing else has, at the example's and, if asked, at one; at
    the two, none tells an element from another.
    """
    names = [name for name in record.arguments.names if not set(plates).isdisjoint(ir.layout[name])]
    *others, example = sizes_to_try(ir, trace, record, plates)
    several = [*others, example, *([dict.fromkeys(plates, 1)] if even_one else [])]
    found = all_ways(partial(record_call, ir, trace, record, names, sizes) for sizes in several)
    if len(found) < len(several) or len(others) < 2 or not all(each.is_complete for each in found):
        return False
    if any(_steps(each) != _steps(found[0]) for each in found[1:]):
        return False
    return all(map(_is_even, chain.from_iterable(found[: len(others)])))


def _steps(recordings: Ways[Recording]) -> list[Any]:
    """Return all that a function does, on each of its ways."""
    return [each.provenance.steps for each in recordings]


def _is_even(recording: Recording) -> bool:
    """Say whether a recording, at sizes that nothing else has, treats elements alike and draws nothing."""
    known = recording.provenance
    escaped = known.left is not None or known.of_elements
    told_apart = recording.is_told_apart or any(recording.joint(label) for label in recording.places)
    return not (escaped or known.is_random or told_apart)
