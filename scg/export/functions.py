"""Functions: every part of a program as a function of its own, with what it reads as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from scg.export.blocks import Block, outputs
from scg.export.expressions import Text
from scg.export.lines import LONG, SHORT, Lines
from scg.export.scope import STEP, WIDTH, Scope, fitted, joined
from scg.export.sizes import Size
from scg.export.tape import Ref
from scg.export.titles import law_title


class Made(NamedTuple):
    """A function that was written: its name, and its arguments with the values that they are given."""

    name: str
    arguments: tuple[tuple[str, str, Ref | None], ...]
    result: tuple[Ref, ...]


@dataclass(eq=False)
class Writer(Lines):
    """Writes the functions of a program, those that others call first."""

    texts: dict[str, str] = field(default_factory=dict)

    def main(self, block: Block) -> Scope:
        """Return the scope of the program itself, whose last line returns the loss."""
        scope, shown = self.lines(block, [self.tape.result])
        scope.say(f"return {', '.join(shown)}")
        return scope

    def lines(self, block: Block, results: list[Ref]) -> tuple[Scope, list[str]]:
        """Return the scope of the lines of a program, and what its results are in it."""
        scope = Scope(set(self.reserved), self.nodes, {})
        return scope, self._fill(scope, block, results)

    def _block(self, scope: Scope, outer: Block, block: Block, counts: Mapping[Ref, int]) -> None:
        """Write a part as a function, and call it."""
        made = self._function(block, outputs(block, set(counts)), scope.off, {**scope.reads, **scope.names})
        self._spread(scope, outer, made, label=block.label)
        given = [self._argument(scope, outer, *item) for item in made.arguments]
        text = f"{made.name}({', '.join(given)})"
        is_law = block.label not in self.titles and len(made.result) == 1
        if is_law and counts.get(made.result[0]) == 1 and len(text) <= LONG:
            scope.pending[made.result[0]] = Text(text)
            return
        names = [scope.named(ref, self._wanted(outer, ref) or block.label) for ref in made.result]
        scope.say(fitted(f"{', '.join(names)} = {made.name}(", given, ")", len(STEP)))

    def _spread(self, scope: Scope, outer: Block, made: Made, *, label: str) -> None:
        """Write an argument before a call, where that makes the call fit in a line."""
        several = [ref for _, _, ref in made.arguments if ref in scope.pending]
        if not several:
            return
        given = [
            name if ref is None else self._operand(scope, outer, ref).text for name, _, ref in made.arguments
        ]
        names = ", ".join(self._wanted(outer, ref) or label for ref in made.result)
        width = len(STEP) + len(f"{names} = {made.name}({', '.join(given)})")
        longest = max(several, key=lambda ref: len(scope.pending[ref].text))
        if width > WIDTH and width - len(scope.pending[longest].text) + SHORT <= WIDTH:
            self._assign(scope, outer, longest, scope.pending.pop(longest), off=False)

    def _argument(self, scope: Scope, outer: Block, name: str, kind: str, ref: Ref | None) -> str:
        if ref is not None:
            return self._settled(scope, outer, ref)
        scope.free.setdefault(name, kind)
        return name

    def _function(self, block: Block, results: list[Ref], off: bool, around: Mapping[Ref, str]) -> Made:
        title = self.titles.get(block.label) or law_title(block.label)
        flags = {call.grad for call in block.calls() if self._matters(call)}
        leaves = {s.root for s in self.tape.sources.values() if s.text == s.root} | {"noise"}
        reserved = self.reserved - leaves if self._is_general(block) else self.reserved
        scope = Scope(set(reserved), self.nodes, around, off or flags == {False})
        shown = self._fill(scope, block, results)
        if shown:
            scope.say(f"return {', '.join(shown)}")
        self._measure(scope)
        types = dict(scope.free)
        parameters = [f"{name}: {kind}" for name, kind in types.items()]
        kinds = joined("Tensor" if ref in self.tape.shapes else "Any" for ref in results)
        wide = "n" * (len(title.name) + 2)  # the name may get a number
        head = fitted(f"def {wide}(", parameters, f") -> {kinds}:", 0).replace(wide, "{name}")
        head = f"@torch.no_grad()\n{head}" if scope.off and not off else head
        text = "\n".join([head, f'    """{title.doc}"""', *(STEP + line for line in scope.body())])
        name = self._filed(title.name, text, is_law=block.label not in self.titles)
        values = {shown: ref for ref, shown in scope.reads.items()}
        return Made(name, tuple((n, kind, values.get(n)) for n, kind in types.items()), tuple(results))

    def _measure(self, scope: Scope) -> None:
        """Read sizes of plates off what a function is given, where that has them."""
        for plate in [name for name, kind in scope.free.items() if kind == "int"]:
            places = (
                f"{shown}.shape[{dim}]"
                for ref, shown in scope.reads.items()
                for dim, size in enumerate(self.tape.shapes.get(ref, ()))
                if isinstance(size, Size) and size.text == plate
            )
            place = next(places, None)
            if place is not None:
                scope.put(plate, place)
                del scope.free[plate]

    def _filed(self, wanted: str, text: str, *, is_law: bool) -> str:
        """Return the name of a function, that of an equal one if there is one."""
        name, count = wanted, 2
        while name in self.texts or (is_law and name in self.reserved):
            if self.texts.get(name) == text.replace("{name}", name):
                return name
            name, count = f"{wanted}_{count}", count + 1
        self.texts[name] = text.replace("{name}", name)
        return name
