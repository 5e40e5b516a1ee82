"""Crossing: does a function let elements of a plate influence each other, where credit relies on it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from scg.analysis.calls import is_elementwise, runner, signature, user_function
from scg.analysis.influence import stochastic_plates
from scg.analysis.invoke import call, seen
from scg.analysis.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Det, Record

MANY = 32

Shared = Mapping[str, frozenset[str]]


def crossings(ir: IR, worlds: list[Trace]) -> list[str]:
    """Return a fault for each node that mixes elements of a plate that a stochastic ancestor keeps.

    A part of the plate (a suffix, where it is ordered) is replaced by its values in other worlds under
    the same randomness; the outputs of the rest must not change in a single bit.
    """
    shared = stochastic_plates(ir)
    known: dict[Any, bool] = {}
    return [
        _fault(ir, record, plate)
        for record in ir.records()
        for plate in crossed(ir, worlds, record, shared, known)
    ]


def crossed(
    ir: IR, worlds: list[Trace], record: Record, shared: Shared, known: dict[Any, bool]
) -> Iterator[str]:
    """Yield the plates whose elements a node mixes, of those that stochastic ancestors keep."""
    one = worlds[0]
    if user_function(record) is None or (is_elementwise(record) and _is_aligned(ir, one, record)):
        return
    mixes = record.mixes if isinstance(record, Det) else frozenset()
    kept = frozenset().union(*(shared[parent] for parent in record.parents)) & set(ir.layout[record.name])
    for plate in sorted(kept - mixes):
        if one.sizes[plate] == 1:
            continue
        among = tuple(plate in shared[parent] for parent in record.parents)
        key = (plate, signature(ir, one, record), among)
        if key not in known:
            known[key] = _crosses(ir, worlds, record, plate, shared)
        if known[key]:
            yield plate


def _is_aligned(ir: IR, trace: Trace, record: Record) -> bool:
    plated = [name for name in (*record.parents, record.name) if ir.layout[name]]
    values = [seen(ir, record, name, trace.values[name]) for name in plated]
    return len({leaf.dim() for leaf in pytree.tensors(values)}) < 2


def _crosses(ir: IR, worlds: list[Trace], record: Record, plate: str, shared: Shared) -> bool:
    """Replace some elements of the plate by those of another world, and watch all the others."""
    one = worlds[0]
    size, position = one.sizes[plate], ir.layout[record.name].index(plate)
    before = _outputs(ir, one, record, {})
    parents = [parent for parent in record.parents if plate in shared[parent]]
    for mask in _masks(size, ordered=ir.plates[plate].ordered):
        keep = (~mask).nonzero()[:, 0]
        for other in worlds[1:]:
            replaced = {
                parent: _blend(one.values[parent], other.values[parent], mask, ir.layout[parent].index(plate))
                for parent in parents
            }
            after = _outputs(ir, one, record, replaced)
            for old, new in zip(before, after, strict=True):
                is_plated = position < old.dim() and old.shape[position] == size
                if is_plated and not torch.equal(_bits(old, position, keep), _bits(new, position, keep)):
                    return True
    return False


def _masks(size: int, *, ordered: bool) -> Iterator[Tensor]:
    """Yield which elements to replace: suffixes of an ordered plate, else sets that part every pair.

    The binary digits of the places part any two elements; single elements and random halves are for
    functions of a total that does not change when many elements do.
    """
    place = torch.arange(size)
    if ordered:
        cuts = range(1, size) if size <= MANY else {1, size - 1, *torch.randint(1, size, (MANY,)).tolist()}
        yield from (place >= cut for cut in cuts)
        return
    for digit in range((size - 1).bit_length()):
        yield (place >> digit) & 1 == 1
        yield (place >> digit) & 1 == 0
    yield from (place == index for index in torch.randperm(size)[:4].tolist())
    half = torch.randperm(size) < (size + 1) // 2
    yield half
    yield ~half


def _bits(tensor: Tensor, position: int, keep: Tensor) -> Tensor:
    return tensor.index_select(position, keep.to(tensor.device)).nan_to_num(nan=12345.0)


def _blend(one: Any, other: Any, mask: Tensor, position: int) -> Any:
    def leaf(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor):
            return a
        shape = [1] * a.dim()
        shape[position] = len(mask)
        return torch.where(mask.to(a.device).view(shape), b, a)

    return pytree.tree_map(leaf, one, other)


def _outputs(ir: IR, trace: Trace, record: Record, replaced: dict[str, Any]) -> list[Tensor]:
    args, kwargs = record.arguments.substitute(
        lambda name: seen(ir, record, name, replaced.get(name, trace.values[name]))
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        leaves = pytree.tree_leaves(call(record, runner(ir, record), args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _fault(ir: IR, record: Record, plate: str) -> str:
    order = "an earlier element reads a later one" if ir.plates[plate].ordered else "elements read each other"
    return (
        f"node '{record.name}' ({record.where}) crosses plate '{plate}': {order}, and a stochastic node "
        f"above keeps that plate, so credit would be lost. "
        f'Declare it with mixes="{plate}", or keep the elements apart'
    )
