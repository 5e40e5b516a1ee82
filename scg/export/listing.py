"""Listing: a tape as one line for each call, with the shapes of what it gives."""

from __future__ import annotations

from typing import Any

from scg.errors import ExportError
from scg.export.expressions import Text, kept, literal, written
from scg.export.sizes import Size
from scg.export.spelling import spelled
from scg.export.tape import Call, Kept, Ref, Tape, refs


def listed(tape: Tape) -> str:
    """Return every call of torch and of the user's functions that a run makes, in order."""
    names = _names(tape)

    def operand(ref: Ref) -> Text:
        source = tape.sources.get(ref)
        if source is not None:
            return Text(source.text)
        return literal(tape.literals[ref]) if ref in tape.literals else Text(names[ref])

    lines = [_line(tape, call, names, operand) for call in tape.calls]
    counted = f"{len(lines)} calls, and {operand(tape.result).text} is the loss"
    return "\n".join([*lines, counted, *(f"not to be exported: {fault}" for fault in tape.faults)])


def _line(tape: Tape, call: Call, names: dict[Ref, str], operand: Any) -> str:
    if isinstance(call.target, Kept):
        return kept(call, operand)
    try:
        text = written(call, operand, {}).text
    except ExportError:
        text = f"{spelled(call.target)}({', '.join(operand(ref).text for ref in refs(call.args))})"
    given = ", ".join(f"{names[ref]}{_shape(tape, ref)}" for ref in refs(call.result))
    return f"{given} = {text}" if given else text.replace("\n   ", "")


def _shape(tape: Tape, ref: Ref) -> str:
    if ref not in tape.shapes:
        return ""
    sizes = (size.text if isinstance(size, Size) else str(size) for size in tape.shapes[ref])
    return f"[{', '.join(sizes)}]"


def _names(tape: Tape) -> dict[Ref, str]:
    """Return a name for every value: what the code that ran calls it, or its number."""
    found: dict[Ref, str] = {}
    taken: set[str] = set()
    known: dict[Ref, str] = {}
    for (_, ref), name in tape.names.items():
        known.setdefault(ref, name)
    for call in tape.calls:
        for ref in refs(call.result):
            name = known.get(ref, f"v{ref.index}")
            found[ref] = name if name not in taken else f"{name}_{ref.index}"
            taken.add(found[ref])
    return found
