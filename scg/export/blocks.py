"""Blocks: the calls of a tape by the part of the program that they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from scg.export.tape import Call, Path, Ref, Tape, refs


@dataclass(eq=False)
class Block:
    """A part of the program: its calls and the parts inside it, in order."""

    label: str
    path: Path
    items: list[Call | Block] = field(default_factory=list)

    def calls(self) -> Iterator[Call]:
        """Yield all calls, those of parts included."""
        for item in self.items:
            if isinstance(item, Block):
                yield from item.calls()
            else:
                yield item

    def made(self) -> set[Ref]:
        """Return the values that are made here."""
        return {ref for call in self.calls() for ref in refs(call.result)}

    def read(self) -> list[Ref]:
        """Return the values that are read here and made elsewhere, each once."""
        made = self.made()
        several = (ref for call in self.calls() for ref in refs((call.args, dict(call.kwargs))))
        return [ref for ref in dict.fromkeys(several) if ref not in made]


def blocks(tape: Tape) -> Block:
    """Return the program as a tree of parts; a part of one call belongs to what it is in."""
    root = Block("", ())
    for call in tape.calls:
        _place(root, call, tape)
    return _flattened(root)


def _place(block: Block, call: Call, tape: Tape) -> None:
    for depth in range(1, len(call.part) + 1):
        path = call.part[:depth]
        last = block.items[-1] if block.items else None
        if not isinstance(last, Block) or last.path != path:
            last = Block(tape.parts[path[-1]], path)
            block.items.append(last)
        block = last
    block.items.append(call)


def _flattened(block: Block) -> Block:
    items: list[Call | Block] = []
    for item in block.items:
        if isinstance(item, Block):
            inner = _flattened(item)
            items += inner.items if len(inner.items) < 2 else [inner]
        else:
            items.append(item)
    return Block(block.label, block.path, items)


def outputs(block: Block, outside: set[Ref]) -> list[Ref]:
    """Return the values of a block that are read outside it."""
    several = (ref for call in block.calls() for ref in refs(call.result))
    return [ref for ref in several if ref in outside]


def counts_in(block: Block, results: list[Ref], same: Mapping[Ref, Ref]) -> dict[Ref, int]:
    """Return how often each value is read among the lines of a block; some are written as others."""
    several = list(results)
    for item in block.items:
        if isinstance(item, Block):
            several += item.read()
        elif item.result not in same:
            several += refs((item.args, dict(item.kwargs)))
    return dict(Counter(same.get(ref, ref) for ref in several))
