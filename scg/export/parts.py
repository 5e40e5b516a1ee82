"""Parts: one part of a recorded program as a function of its arguments, in untyped Python text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scg.errors import ExportError
from scg.export.blocks import blocks
from scg.export.functions import Writer
from scg.export.scope import IMPORTED, STEP, WIDTH
from scg.export.simplify import simplified
from scg.export.sizes import Size
from scg.export.tape import Call, Given, Kept, Outside, Path, Ref, Source, Suffix, Tape, mapped, refs

Steps = tuple[str, ...]
"""An argument, and what reads a value from it step by step."""


@dataclass(frozen=True, eq=False)
class Reading:
    """How the text of a part reads what it is given.

    ``place`` tells the steps to a value among the arguments, ``beside`` to one without a gradient that is not
    among them, and ``source`` those to one that no call gave, or
    None; ``kept`` what a value is stored under. ``outside`` has the expressions of functions by their name,
    and ``names`` what values are called; those of the first argument have a line each.
    """

    arguments: Sequence[str]
    place: Callable[[Given], Steps]
    beside: Callable[[Ref], Steps]
    source: Callable[[Source], Steps | None]
    kept: Callable[[str], str]
    outside: Mapping[str, str]
    names: Mapping[Steps, str]


class Parts:
    """A tape with the calls and names of each of its parts."""

    def __init__(self, tape: Tape) -> None:
        """Sort them once."""
        self.tape = tape
        self.index = {label: index for index, label in reversed(tape.parts.items())}
        self.calls: dict[int, list[Call]] = {index: [] for index in tape.parts}
        self.names: dict[int, dict[Ref, str]] = {index: {} for index in tape.parts}
        self.kept = [call for call in tape.calls if isinstance(call.target, Kept)]
        for call in tape.calls:
            for index in call.part:
                self.calls[index].append(call)
        for (path, ref), name in (*tape.names.items(), *tape.given.items()):
            for index in path:
                self.names[index].setdefault(ref, name)


def part_lines(
    parts: Parts, index: int, reading: Reading, wanted: Any = None
) -> tuple[list[str], Any, set[Steps]]:
    """Return the statements of a part, what it gives as text, and what it reads of its arguments.

    What is ``wanted`` of it is what it gives, or other values and text. Raises ``ExportError`` for what
    cannot be written.
    """
    tape = parts.tape
    faults = [text for text, paths in tape.faults.items() if any(index in path for path in paths)]
    if faults:
        raise ExportError("; ".join(faults))
    taken = _taken(parts, index, reading, tape.uses[index].result if wanted is None else wanted)
    found = simplified(taken.tape)
    reserved = frozenset({*reading.arguments, *reading.outside.values(), *IMPORTED, "F"})
    lines = frozenset(name for steps, name in reading.names.items() if steps[0] == reading.arguments[0])
    writer = Writer(found, {}, reserved, lines, is_typed=False)
    results = list(refs(found.result))
    scope, shown = writer.lines(blocks(found), results)
    if writer.texts:
        raise ExportError("it calls what has no name")
    sizes = [_size_line(taken, plate) for plate, kind in scope.free.items() if kind == "int"]
    text = iter(shown)
    given = mapped(lambda item: next(text) if isinstance(item, Ref) else item, found.result)
    met = [ref for call in found.calls for ref in refs((call.args, dict(call.kwargs), call.result))]
    read = {taken.steps[ref] for ref in (*met, *results) if ref in taken.steps}
    return _joined([*map(_plain, [*sizes, *scope.body()])]), mapped(_plain_leaf, given), read


@dataclass(frozen=True, eq=False)
class _Taken:
    tape: Tape
    steps: Mapping[Ref, Steps]


def _joined(lines: Sequence[str]) -> list[str]:
    """Return lines in which no condition is written twice in turn."""
    found, condition = list[str](), ""
    for line in lines:
        if line == condition and found[-1].startswith(STEP):
            continue
        condition = line if line.startswith("if ") else condition
        found.append(line)
    return found


def _taken(parts: Parts, index: int, reading: Reading, result: Any) -> _Taken:
    """Return a part as a tape of its own, which begins with what reads its arguments."""
    tape, calls = parts.tape, _calls(parts, index, reading)
    made = {ref for call in calls for ref in refs(call.result)}
    several = [*(ref for call in calls for ref in refs((call.args, dict(call.kwargs)))), *refs(result)]
    wanted = [ref for ref in dict.fromkeys(several) if ref not in made and ref not in tape.literals]
    reader = _Reader(tape, index, reading)
    for ref in wanted:
        reader.read(ref)
    names: dict[tuple[Path, Ref], str] = {((), ref): name for ref, name in reader.names.items()}
    names.update({((), ref): name for ref, name in parts.names[index].items() if ((), ref) not in names})
    found = replace(
        tape,
        calls=[*reader.calls, *calls],
        sources=reader.sources,
        names=names,
        given={},
        result=result,
    )
    return _Taken(found, reader.steps)


def _calls(parts: Parts, index: int, reading: Reading) -> list[Call]:
    """Return the calls of a part, and what keeps values that it makes."""
    found = list[Call]()
    for call in parts.calls[index]:
        target = call.target
        if isinstance(target, Outside) and target.name in reading.outside:
            target = Outside(reading.outside[target.name], target.call, target.how)
        found.append(call.replaced(part=(), target=target))
    made = {ref for call in found for ref in refs(call.result)}
    for call in parts.kept:
        if isinstance(call.target, Kept) and call.args[0] in made:
            found.append(call.replaced(target=Kept(call.target.key, reading.kept(call.target.key)), part=()))
    return found


class _Reader:
    """Writes what reads the arguments of a part, each step once."""

    def __init__(self, tape: Tape, index: int, reading: Reading) -> None:
        self.tape = tape
        self.given = tape.uses[index].given
        self.reading = reading
        self.calls: list[Call] = []
        self.sources: dict[Ref, Source] = {}
        self.steps: dict[Ref, Steps] = {}
        self.names: dict[Ref, str] = {}
        self._made: dict[tuple[Steps, bool], Ref] = {}
        self._next = -1

    def read(self, ref: Ref) -> None:
        """Write what reads one value."""
        source = self.tape.sources.get(ref)
        steps = None if source is None else self.reading.source(source)
        detached = source is not None and source.detached
        if steps is None:
            known = self.given.get(ref)
            steps = self.reading.beside(ref) if known is None else self.reading.place(known)
            detached = known is None or known.detached
        self.steps[ref] = steps
        self._name(ref, steps)
        self._made[steps, detached] = ref
        if len(steps) == 1:
            self.sources[ref] = Source(steps[0], steps[0], detached)
            return
        before = self._whole(steps[:-1], detached)
        self.calls.append(Call(Suffix(steps[-1]), (before,), {}, ref, (), not detached))

    def _name(self, ref: Ref, steps: Steps) -> None:
        """Name a value as the program does, or by the attributes that read it."""
        plain = re.sub(r"\W+", "_", steps[-1]).strip("_") if steps[-1].startswith(".") else ""
        name = self.reading.names.get(steps, plain)
        if name:
            self.names[ref] = name

    def _whole(self, steps: Steps, detached: bool) -> Ref:
        """Return what a value is read from."""
        if (steps, detached) not in self._made:
            ref = self._made[steps, detached] = Ref(self._next)
            self._next -= 1
            self._name(ref, steps)
            if len(steps) == 1:
                self.sources[ref] = Source(steps[0], steps[0], detached)
            else:
                before = self._whole(steps[:-1], detached)
                self.calls.append(Call(Suffix(steps[-1]), (before,), {}, ref, (), not detached))
        return self._made[steps, detached]


def _size_line(taken: _Taken, plate: str) -> str:
    """Return the line that reads the size of a plate off a value that has it."""
    for ref, steps in taken.steps.items():
        for dim, size in enumerate(taken.tape.shapes.get(ref, ())):
            if isinstance(size, Size) and size.text == plate:
                return f"{plate} = {''.join(steps)}.shape[{dim}]"
    raise ExportError(f"nothing that it is given has the size of '{plate}'")


def _plain(line: str) -> str:
    """Return a line in which nothing is imported."""
    return re.sub(r"(?<![\w.])F\.", "torch.nn.functional.", line)


def _plain_leaf(item: Any) -> Any:
    return _plain(item) if isinstance(item, str) else item


def function_text(name: str, arguments: Sequence[str], doc: str, lines: Sequence[str]) -> str:
    """Return a function."""
    said = textwrap.wrap(f'"""{doc}"""', WIDTH - len(STEP))
    body = [*said, *(part for line in lines for part in line.split("\n"))]
    return "\n".join([f"def {name}({', '.join(arguments)}):", *(f"{STEP}{line}".rstrip() for line in body)])
