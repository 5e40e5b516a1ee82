"""Crossing: does a function let elements of a plate influence each other, where credit relies on it?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from scg.analysis.calls import is_elementwise, runner, signature, user_function
from scg.analysis.influence import stochastic_plates
from scg.analysis.trace import Trace, call, seen
from scg.nodes.ir import IR
from scg.nodes.records import Det, Record


def crossings(ir: IR, one: Trace, other: Trace) -> list[str]:
    """Return a fault for each node that mixes elements of a plate that a stochastic ancestor keeps.

    Half of the plate (a suffix, where it is ordered) is replaced by its values in another world under
    the same randomness; the outputs of the other half must not change in a single bit.
    """
    shared = stochastic_plates(ir)
    known: dict[Any, bool] = {}
    faults = []
    for record in ir.records():
        if user_function(record) is None or (is_elementwise(record) and _is_aligned(ir, one, record)):
            continue
        mixes = record.mixes if isinstance(record, Det) else frozenset()
        kept = frozenset().union(*(shared[parent] for parent in record.parents)) & set(ir.layout[record.name])
        for plate in sorted(kept - mixes):
            if one.sizes[plate] == 1:
                continue
            key = (
                plate,
                signature(ir, one, record),
                tuple(plate in shared[parent] for parent in record.parents),
            )
            if key not in known:
                known[key] = _crosses(ir, one, other, record, plate, shared)
            if known[key]:
                faults.append(_fault(ir, record, plate))
    return faults


def _is_aligned(ir: IR, trace: Trace, record: Record) -> bool:
    plated = [name for name in (*record.parents, record.name) if ir.layout[name]]
    values = [seen(ir, record, name, trace.values[name]) for name in plated]
    return len({leaf.dim() for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)}) < 2


def _crosses(ir: IR, one: Trace, other: Trace, record: Record, plate: str, shared: Any) -> bool:
    size = one.sizes[plate]
    if ir.plates[plate].ordered:
        masks = [torch.arange(size) >= (size + 1) // 2]
    else:
        order = torch.randperm(size)
        masks = [order < (size + 1) // 2, order >= (size + 1) // 2]
    before = _outputs(ir, one, record, {})
    position = ir.layout[record.name].index(plate)
    for mask in masks:
        replaced = {
            parent: _blend(one.values[parent], other.values[parent], mask, ir.layout[parent].index(plate))
            for parent in record.parents
            if plate in shared[parent]
        }
        after = _outputs(ir, one, record, replaced)
        keep = (~mask).nonzero()[:, 0]
        for old, new in zip(before, after, strict=True):
            if position < old.dim() and old.shape[position] == size:
                unchanged = torch.equal(_bits(old, position, keep), _bits(new, position, keep))
                if not unchanged:
                    return True
    return False


def _bits(tensor: Tensor, position: int, keep: Tensor) -> Tensor:
    return tensor.index_select(position, keep.to(tensor.device)).nan_to_num(nan=12345.0)


def _blend(one: Any, other: Any, mask: Tensor, position: int) -> Any:
    def leaf(a: Tensor, b: Tensor) -> Tensor:
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
