"""Scopes: the names of values in one function that is written, and its lines."""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from scg.export.expressions import Text
from scg.export.spelling import spelled
from scg.export.tape import Call, Ref

WIDTH, LONG, STEP, GLUE = 110, 60, "    ", "\0"
PLAIN = {
    "add": "total", "sub": "difference", "mul": "product", "div": "quotient", "__getitem__": "part",
    "grad": "gradient", "neg": "negative", "stack": "stacked", "detach": "detached", "pow": "power",
    "gt": "is_above", "lt": "is_below", "eq": "is_equal", "sum": "total", "__rsub__": "difference",
    "requires_grad_": "leaf", "requires_grad": "leaf", "__radd__": "total", "addcmul": "total",
    "__rpow__": "power", "__pow__": "power", "__rdiv__": "quotient", "__rtruediv__": "quotient",
}  # fmt: skip
IMPORTED = frozenset({*keyword.kwlist, "torch", "F", "nn", "Tensor", "Any", "Callable", "Mapping"})
RESERVED = IMPORTED | {*dir(builtins)}


@dataclass(eq=False)
class Scope:
    """One function under way.

    ``free`` maps the arguments that it turned out to need to their types, and ``reads`` the values among
    them to their names; ``around`` has those of the function that calls it. ``pending`` has expressions that
    are read once and written where that is. ``off`` tells whether autograd is off for all of it.
    """

    taken: set[str]
    nodes: frozenset[str]
    around: Mapping[Ref, str]
    off: bool = False
    free: dict[str, str] = field(default_factory=dict)
    reads: dict[Ref, str] = field(default_factory=dict)
    names: dict[Ref, str] = field(default_factory=dict)
    pending: dict[Ref, Text] = field(default_factory=dict)
    lines: list[tuple[str, bool]] = field(default_factory=list)

    def named(self, ref: Ref, wanted: str) -> str:
        """Give a value a name that no other has here."""
        self.names[ref] = name = self.unused(wanted)
        return name

    def unused(self, wanted: str) -> str:
        """Return a name that nothing has here."""
        base = re.sub(r"\W", "_", wanted).strip("_") or "value"
        base = f"n{base}" if base[0].isdigit() else base
        base = re.sub(r"_\d+$", "", base) if base in self.taken or base not in self.nodes else base
        name, count = base, 2
        while name in self.taken or name in RESERVED:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name

    def argument(self, ref: Ref, wanted: str, kind: str) -> str:
        """Return the argument that a value is given as."""
        if ref not in self.reads:
            self.reads[ref] = self.unused(wanted)
            self.free[self.reads[ref]] = kind
        return self.reads[ref]

    def say(self, line: str, off: bool = False) -> None:
        """Append a statement."""
        self.lines.append((broken(line), off and not self.off))

    def put(self, name: str, text: str) -> None:
        """Put an expression in the place of a name that is read once, or give it that in the first line."""
        found = re.compile(rf"\b{name}\b")
        if sum(len(found.findall(line)) for line, _ in self.lines) > 1:
            self.lines.insert(0, (f"{name} = {text}", False))
        else:
            self.lines = [(found.sub(text, line), off) for line, off in self.lines]

    def body(self) -> list[str]:
        """Return the statements, those for which autograd is off under ``torch.no_grad()``."""
        found, was_off = list[str](), False
        for line, off in self.lines:
            if off and not was_off:
                found.append("with torch.no_grad():")
            found += [STEP + part if off else part for part in line.split("\n")]
            was_off = off
        return found


def plain_name(call: Call) -> str:
    """Return what a value is called that has no name in the code that was run."""
    name = spelled(call.target)
    return PLAIN.get(name, name.strip("_")) or "value"


def fitted(start: str, items: Iterable[str], end: str, indent: int) -> str:
    """Return a call or signature in one line if it fits, else its arguments in the next ones."""
    several = list(items)
    one = f"{start}{', '.join(several)}{end}"
    if len(one) + indent <= WIDTH or not several:
        return one
    glued = [item.replace(" ", GLUE) if len(item) < LONG else item for item in several]
    width = WIDTH - indent - len(STEP)
    rows = textwrap.wrap(", ".join(glued), width, break_long_words=False, break_on_hyphens=False)
    inside = "\n".join(STEP + row for row in rows).replace(GLUE, " ")
    return f"{start}\n{inside}\n{end}"


def broken(line: str) -> str:
    """Return a statement that ends with a call in several lines where it is too long for one.

    >>> print(broken("found = f(" + ", ".join(["a" * 32, "b" * 32, "c" * 32]) + ")"))
    found = f(
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, cccccccccccccccccccccccccccccccc
    )
    """
    if len(line) + len(STEP) <= WIDTH or not line.endswith(")") or "\n" in line:
        return line
    end = ")"
    if line.endswith("])") and _opens(line[:-1]) == _opens(line) + 1:
        line, end = line[:-1], "])"  # what is in a list is broken, where that is all there is
    depth, cuts = 0, [len(line) - 1]
    for place in range(len(line) - 1, -1, -1):
        depth += (line[place] in ")]}") - (line[place] in "([{")
        if depth == 1 and line[place : place + 2] == ", ":
            cuts.append(place)
        if depth == 0:
            cuts.append(place)
            break
    cuts = cuts[::-1]
    items = [line[a + 1 : b].strip() for a, b in pairwise(cuts)]
    return fitted(line[: cuts[0] + 1], items, end, len(STEP))


def _opens(line: str) -> int:
    """Return where the bracket opens that the last character of a line closes."""
    depth = 0
    for place in range(len(line) - 1, -1, -1):
        depth += (line[place] in ")]}") - (line[place] in "([{")
        if depth == 0:
            return place
    return -1


def joined(kinds: Iterable[Any]) -> str:
    """Return the type of what a function returns."""
    several = list(kinds)
    return several[0] if len(several) == 1 else f"tuple[{', '.join(several)}]"
