"""How each function takes added dimensions: found once, against a loop over a few worlds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scg.analysis.many import keeps_worlds_apart, takes_any_number
from scg.errors import GraphError
from scg.evaluation.calls import held_by, is_elementwise, runner, signature, user_function
from scg.evaluation.repeated import vectorised
from scg.evaluation.trace import Trace
from scg.evaluation.vectorise import together
from scg.nodes import trees as pytree
from scg.nodes.arguments import Ref
from scg.nodes.ir import IR
from scg.nodes.records import Det, Record
from scg.probes.generators import steady_generators
from scg.probes.held import holding, moved_parameters

PROBE_AXIS = "#worlds"
REPEATS = 3
FEW = 2
SEED, STILL, SCALES = 0, (0.0,), (0.0, 0.5)


def run_modes(
    ir: IR,
    worlds: Sequence[Trace],
    records: Iterable[Record],
    varying: frozenset[str],
    known: dict[Any, str],
) -> dict[str, str]:
    """Return the first mode in which each node agrees, in shape and value, with a loop.

    Operations known to act element by element need no probe and are "elementwise"; black boxes are
    looped. ``worlds`` are evaluations of the graph that differ in what is random; ``known`` remembers the
    modes of calls that are alike.
    """
    found: dict[str, str] = {}
    for record in records:
        name = record.name
        if user_function(record) is None or is_elementwise(record):
            found[name] = "elementwise"
        elif isinstance(record, Det) and record.differentiable is False:
            found[name] = "loop"
        elif _is_lookup(ir, worlds[0], record, varying):
            found[name] = "broadcast"
        else:
            key = (
                signature(ir, worlds[0], record),
                tuple(parent in varying for parent in record.arguments.names),
            )
            if key not in known:
                known[key] = _probe(ir, worlds, record, varying)
            found[name] = known[key]
    return found


def _is_lookup(ir: IR, trace: Trace, record: Record, varying: frozenset[str]) -> bool:
    """Say whether a node is ``table[index]`` for integers, whose leading dimensions all pass on."""
    if not isinstance(record, Det) or record.fn.call is not operator.getitem:
        return False
    table, index = record.arguments.args
    if not isinstance(table, Ref) or not isinstance(index, Ref) or table.name in varying:
        return False
    place, held = trace.values[index.name], trace.values[table.name]
    is_integer = isinstance(place, Tensor) and not place.is_floating_point() and place.dtype is not torch.bool
    return is_integer and isinstance(held, Tensor) and not ir.layout[table.name]


def agrees(
    ir: IR,
    worlds: Sequence[Trace],
    record: Record,
    varying: frozenset[str],
    mode: str,
    scales: Sequence[float] = STILL,
) -> bool:
    """Say whether a mode gives what a loop gives in some worlds, whose sizes need not be the example's.

    What the function holds is moved off its values by ``scales``, lest a weight of 0 hide something.
    """
    given, held = _given(worlds, record, varying), held_by(ir, record)
    for scale in scales:
        with holding(moved_parameters(held if scale else (), SEED, scale)), steady_generators():
            for values in given:
                wanted = _attempt(ir, record, varying, "loop", values)
                if wanted is not None and not _agree(_attempt(ir, record, varying, mode, values), wanted):
                    return False
    return True


def does_repeat(
    ir: IR,
    worlds: Sequence[Trace],
    record: Record,
    plates: frozenset[str],
    varying: frozenset[str],
    mode: str,
) -> bool:
    """Say whether a node that sees its parents 1 long in plates gives what it gives where they repeat there.

    It does unless its function counts elements, tells one from another, or is random.
    """
    names = record.arguments.names

    def places(name: str) -> list[int]:
        return [ir.layout[name].index(p) for p in plates if p in ir.layout[name]]

    def dims(name: str) -> list[int]:
        return [place + (name in varying) for place in places(name)]

    is_black_box = isinstance(record, Det) and record.differentiable is False
    if is_black_box or not takes_any_number(ir, worlds[0], record, sorted(plates), even_one=True):
        return False
    for given in _given(worlds, record, varying):
        once = [_first(value, dims(name)) for name, value in zip(names, given, strict=True)]
        several = [_repeated(value, dims(name)) for name, value in zip(names, once, strict=True)]
        found = _attempt(ir, record, varying, mode, once)
        expected = _attempt(ir, record, varying, "loop", several)
        if found is None or expected is None:
            return False
        firsts = [_first(leaf, dims(record.name)) for leaf in expected]
        repeated = [_repeated(leaf, dims(record.name)) for leaf in firsts]
        if not _agree(found, firsts) or not _agree(expected, repeated):
            return False
    return True


def _first(value: Any, dims: Sequence[int]) -> Any:
    """Return the first element of some dimensions, which stay."""
    index = tuple(slice(1) if dim in dims else slice(None) for dim in range(max(dims, default=-1) + 1))
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[index], value)


def _repeated(value: Any, dims: Sequence[int], count: int = REPEATS) -> Any:
    """Repeat dimensions of size 1."""
    return pytree.tree_map_only(
        Tensor,
        lambda leaf: leaf.expand([count if d in dims else size for d, size in enumerate(leaf.shape)]),
        value,
    )


def _given(worlds: Sequence[Trace], record: Record, varying: frozenset[str]) -> list[list[Any]]:
    """Return the parents of a node in several worlds, the same moved about, and in few worlds.

    Discrete values often agree by accident, say in their mean; moved values do not. A number of worlds that
    is the size of something as well may be taken for it; another number is not.
    """

    def stacked(some: Sequence[Trace], change: Callable[[Any], Any]) -> list[Any]:
        return [
            pytree.tree_map(lambda *leaves: change(together(*leaves)), *(w.values[name] for w in some))
            if name in varying
            else worlds[0].values[name]
            for name in record.arguments.names
        ]

    return [stacked(worlds, _itself), stacked(worlds, _moved), stacked(worlds[:FEW], _itself)]


def _itself(leaf: Any) -> Any:
    return leaf


def _moved(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        return leaf
    return leaf + 0.3 * torch.randn_like(leaf)


def _probe(ir: IR, worlds: Sequence[Trace], record: Record, varying: frozenset[str]) -> str:
    """Return the first mode that agrees with a loop on everything for which a loop gives something.

    Where worlds are run in one call that was written for one, the operations have to keep them apart.
    """
    if _attempt(ir, record, varying, "loop", _given(worlds, record, varying)[0]) is None:
        raise GraphError(
            f"node '{record.name}' ({record.where}) cannot be called once for each replicate and its results "
            "stacked: return tensors, alone or in tuples, lists, dicts or dataclasses"
        )

    def fits(mode: str) -> bool:
        return agrees(ir, worlds, record, varying, mode, SCALES if held_by(ir, record) else STILL)

    if fits("broadcast") and keeps_worlds_apart(ir, worlds[0], record, varying):
        return "broadcast"
    is_even = partial(takes_any_number, ir, worlds[0], record, ir.layout[record.name][:1], even_one=False)
    if _may_fold(ir, record) and fits("fold") and is_even():
        return "fold"
    return "vmap" if fits("vmap") else "loop"


def _attempt(
    ir: IR, record: Record, varying: frozenset[str], mode: str, values: list[Any]
) -> list[Any] | None:
    """Return what the function gives in a mode, or None where it fails, as any arbitrary function may."""
    carried = {name: (PROBE_AXIS,) if name in varying else () for name in record.arguments.names}
    call = vectorised(ir, record, (PROBE_AXIS,), carried, varying, mode)
    try:
        with torch.random.fork_rng():
            return pytree.tree_leaves(call(runner(ir, record), *values))
    except Exception:  # noqa: BLE001 - of an arbitrary function
        return None


def _may_fold(ir: IR, record: Record) -> bool:
    """Say whether worlds may share the leftmost plate of a node: not where the function mixes it."""
    plates = ir.layout[record.name]
    mixes = record.mixes if isinstance(record, Det) else frozenset()
    inside = all(set(ir.layout[parent]) <= set(plates) for parent in record.arguments.names)
    return bool(plates) and inside and plates[0] not in mixes and not ir.plates[plates[0]].ordered


def _agree(found: list[Any] | None, expected: list[Any]) -> bool:
    return found is not None and len(found) == len(expected) and all(map(_agrees, found, expected))


def _agrees(found: Any, expected: Any) -> bool:
    if not isinstance(expected, Tensor):
        return type(found) is type(expected) and bool(found == expected)
    if not isinstance(found, Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not found.is_floating_point():
        return torch.equal(found, expected)
    tolerance = 1e-4 if found.dtype == torch.float32 else 1e-8
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
