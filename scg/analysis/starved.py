"""Starved: parameters that lead to a cost, but to which no gradient comes back on any way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from scg.analysis.influence import useful
from scg.analysis.learned import Learned, is_black_box
from scg.analysis.recorded import Recording, loses_gradient
from scg.evaluation.calls import user_function
from scg.nodes.ir import IR
from scg.nodes.records import Constant, Param, Record, Sample

SHOWN = 4


@dataclass(frozen=True)
class Starved:
    """Names of parameters, and the node at which the gradient of all of them ends."""

    names: tuple[str, ...]
    end: str


def starved(found: Learned) -> list[Starved]:
    """Return the parameters without a gradient, by the node that ends it."""
    ir, leading = found.ir, useful(found.ir)
    passes = _passing(found, leading)
    names = parameter_names(ir)
    fed: set[int] = set()
    ends: dict[int, str] = {}
    for record in ir.records():
        if record.name in leading:
            for tensor, is_fed, end in _uses(found, record, passes, leading):
                ends.setdefault(id(tensor), end)
                fed |= {id(tensor)} if is_fed else set()
    groups: dict[str, list[str]] = {}
    for identity, end in ends.items():
        if identity not in fed and identity in names:
            groups.setdefault(end, []).append(names[identity])
    return [Starved(tuple(group), end) for end, group in groups.items()]


def parameter_names(ir: IR) -> Mapping[int, str]:
    """Return the names of all parameters that a graph holds, by the id of the tensor."""
    names = {id(tensor): name for name, tensor in ir.store.tensors.items() if tensor.requires_grad}
    for owner, module in ir.store.modules.items():
        for name, tensor in module.named_parameters(owner):
            if tensor.requires_grad:
                names.setdefault(id(tensor), name)
    return names


def _passing(found: Learned, leading: frozenset[str]) -> frozenset[str]:
    """Return the names of the nodes whose values have a gradient on some way to a cost."""
    ir = found.ir
    passes = set(ir.costs)
    for name in reversed(list(ir)):
        if any(child in leading and _edge(found, name, child, passes) for child in ir.children(name)):
            passes.add(name)
    return frozenset(passes)


def _edge(found: Learned, parent: str, child: str, passes: set[str] | frozenset[str]) -> bool:
    """Say whether a gradient comes back from a node, through its function, to a parent."""
    record = found.ir[child]
    if is_black_box(record) or loses_gradient(record):
        return False
    if not isinstance(record, Sample) and child not in passes:
        return False
    call = found.recordings.get(child)
    if not isinstance(call, Recording) or parent not in record.arguments.names:
        return True
    before = 0
    for name in record.arguments.names:
        count = len(found.bits[name])
        if name == parent:
            return any(call.of_leaf(before + i) in call.flow.alive for i in range(count))
        before += count
    return False


def _uses(
    found: Learned, record: Record, passes: frozenset[str], leading: frozenset[str]
) -> Iterator[tuple[Tensor, bool, str]]:
    """Yield the parameters that a node itself uses, whether it gives them a gradient, and where that ends."""
    ir, name = found.ir, record.name
    if isinstance(record, (Param, Constant)):
        if ir.store.tensors[name].requires_grad:
            yield ir.store.tensors[name], name in passes, _end(found, name, passes, leading)
        return
    function = user_function(record)
    if function is None:
        return
    call = found.recordings.get(name)
    passed_on = name in passes or isinstance(record, Sample)
    end = name if is_black_box(record) or passed_on else _end(found, name, passes, leading)
    if isinstance(call, Recording):
        for index, tensor in enumerate(call.flow.sources[len(call.given) :], len(call.given)):
            reaches = any(index in call.flow.leaves[leaf].sources for leaf in found.used(name))
            if reaches or not tensor.is_leaf:
                yield tensor, passed_on and index in call.flow.alive, end
    elif function.owner is not None:
        for tensor in ir.store.modules[function.owner].parameters():
            if tensor.requires_grad:
                yield tensor, passed_on and not is_black_box(record), end


def _end(found: Learned, name: str, passes: frozenset[str], leading: frozenset[str]) -> str:
    """Return the first node below through which no gradient comes back."""
    while True:
        children = [child for child in found.ir.children(name) if child in leading]
        if not children:
            return name
        onward = next((child for child in children if _edge(found, name, child, leading)), None)
        if onward is None:
            return children[0]
        name = onward
