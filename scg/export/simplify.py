"""Simplifying: a tape without calls that change nothing, that repeat others, or that nothing reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scg.export.spelling import spelled
from scg.export.tape import Call, Kept, Outside, Ref, Suffix, Tape, mapped, refs, substituted

SHAPED = ("expand", "reshape", "view", "view_as", "broadcast_to", "contiguous", "to")
SHORT = ("_draw", "_draw_standard", "_standard")
"""The ends of labels of parts that are a line or two of what they are in."""
COMPARED = ("gt", "lt", "ge", "le", "eq", "ne", "isfinite", "isnan", "argmax", "one_hot")


def simplified(tape: Tape) -> Tape:
    """Return the tape with what is left of its calls."""
    tape = _multiplied(_folded(_inlined(tape)))
    calls, same = _distinct(tape)
    result = mapped(lambda item: same.get(item, item) if isinstance(item, Ref) else item, tape.result)
    names = {(path, same.get(ref, ref)): name for (path, ref), name in reversed(tape.names.items())}
    given = {(path, same.get(ref, ref)): name for (path, ref), name in reversed(tape.given.items())}
    return Tape(
        **{**vars(tape), "calls": _live(calls, result), "names": names, "given": given, "result": result}
    )


def _inlined(tape: Tape) -> Tape:
    """Return the tape without the parts that are a line or two of what they are in."""
    kept = {index for index, label in tape.parts.items() if not label.endswith(SHORT)}
    calls = [call.replaced(part=tuple(index for index in call.part if index in kept)) for call in tape.calls]
    return Tape(**{**vars(tape), "calls": calls})


def _multiplied(tape: Tape) -> Tape:
    """Return the tape with the sum of a product for the dot product of two tensors laid flat."""
    flat = {
        call.result: call.args[0]
        for call in tape.calls
        if spelled(call.target) == "reshape" and call.args[1:] == (-1,) and not call.kwargs
    }
    shapes, dtypes, calls = dict(tape.shapes), dict(tape.dtypes), list[Call]()
    for call in tape.calls:
        pair = [flat[item] for item in call.args if item in flat] if call.target is torch.dot else []
        if len(pair) == 2 and tape.shapes[pair[0]] == tape.shapes[pair[1]]:
            ref = Ref(max(other.index for other in shapes) + 1)
            shapes[ref], dtypes[ref] = tape.shapes[pair[0]], tape.dtypes[call.result]
            calls.append(call.replaced(target=torch.mul, args=tuple(pair), result=ref))
            calls.append(call.replaced(target=Tensor.sum, args=(ref,)))
        else:
            calls.append(call)
    return Tape(**{**vars(tape), "calls": calls, "shapes": shapes, "dtypes": dtypes})


def _folded(tape: Tape) -> Tape:
    """Return the tape with single numbers that follow from others computed."""
    literals, marked, calls = dict(tape.literals), marked_values(tape), list[Call]()
    for call in tape.calls:
        given, result = _read(call), call.result
        is_number = isinstance(result, Ref) and tape.shapes.get(result) == () and result not in marked
        is_known = given and all(ref in literals and not literals[ref].dim() for ref in given)
        if not (is_number and is_known) or isinstance(call.target, (Outside, Suffix, Kept)):
            calls.append(call)
            continue
        args, kwargs = (
            mapped(lambda item: literals[item] if isinstance(item, Ref) else item, tree)
            for tree in (call.args, dict(call.kwargs))
        )
        literals[result] = call.target(*args, **kwargs)
    return Tape(**{**vars(tape), "calls": calls, "literals": literals})


def detached_values(tape: Tape) -> set[Ref]:
    """Return the values that have no gradient, whatever is given."""
    found = {ref for ref, source in tape.sources.items() if source.detached} | tape.literals.keys()
    for call in tape.calls:
        if is_detached(call, found):
            found.update(refs(call.result))
    return found


def is_detached(call: Call, known: set[Ref]) -> bool:
    """Say whether what a call gives has no gradient."""
    if not call.grad or spelled(call.target) in ("detach", *COMPARED):
        return True
    if isinstance(call.target, Outside):
        return call.target.how == "boxed"
    if call.target is torch.autograd.grad:
        return not call.kwargs.get("create_graph", False)
    return spelled(call.target) != "requires_grad_" and all(ref in known for ref in _read(call))


def marked_values(tape: Tape) -> set[Ref]:
    """Return the values that are made to require a gradient after they were there."""
    return {call.args[0] for call in tape.calls if spelled(call.target) == "requires_grad_"}


def bases(tape: Tape, marked: set[Ref]) -> dict[Ref, Ref]:
    """Return the values that are others without their gradient, which are written where they are read."""
    return {
        call.result: call.args[0]
        for call in tape.calls
        if spelled(call.target) == "detach"
        and isinstance(call.args[0], Ref)
        and marked.isdisjoint((call.result, call.args[0]))
        and call.args[0] not in tape.literals
    }


def _distinct(tape: Tape) -> tuple[list[Call], dict[Ref, Ref]]:
    """Drop calls that give what is there, and return what they gave by what it is the same as."""
    marked, detached = marked_values(tape), detached_values(tape)
    seen: dict[Any, list[Call]] = {}
    same: dict[Ref, Ref] = {}
    kept: list[Call] = []
    for original in tape.calls:
        (call,) = substituted([original], same)
        several = tuple(refs(call.result))
        if not several or not marked.isdisjoint(several) or spelled(call.target) == "requires_grad_":
            kept.append(call)
            continue
        before = _unchanged(tape, call, detached)
        if before is None and not isinstance(call.target, Outside):
            key = repr((call.target, call.args, sorted(call.kwargs.items(), key=str), call.grad))
            earlier = [
                other for other in seen.setdefault(key, []) if call.part[: len(other.part)] == other.part
            ]
            before = tuple(refs(earlier[0].result)) if earlier else None
            seen[key].append(call)
        if before is None:
            kept.append(call)
        else:
            same.update(zip(several, before, strict=True))
    return kept, same


def _unchanged(tape: Tape, call: Call, detached: set[Ref]) -> tuple[Ref, ...] | None:
    """Return the value that a call gives back, if it gives one back."""
    name = spelled(call.target)
    first = call.args[0] if call.args and isinstance(call.args[0], Ref) else None
    if first is None or not isinstance(call.result, Ref) or isinstance(call.target, (Suffix, Kept)):
        return None
    if name == "detach" and first in detached:
        return (first,)
    alike = tape.shapes.get(first, 0) == tape.shapes.get(call.result, 1) and (
        tape.dtypes[first] == tape.dtypes[call.result]
    )
    return (first,) if alike and name in SHAPED else None


def _live(calls: list[Call], result: Any) -> list[Call]:
    wanted, kept = set(refs(result)), list[Call]()
    for call in reversed(calls):
        several = set(refs(call.result))
        if not several or not wanted.isdisjoint(several):
            kept.append(call)
            wanted.update(_read(call))
    return kept[::-1]


def _read(call: Call) -> list[Ref]:
    kwargs: Mapping[str, Any] = call.kwargs
    return [*refs(call.args), *refs(kwargs)]
