"""Lines: the calls of one block of a program as statements and expressions, with names for their values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from scg.export.blocks import Block, counts_in
from scg.export.expressions import POSTFIX, Text, kept, literal, written
from scg.export.numbers import numbers, sizes_in
from scg.export.scope import STEP, WIDTH, Scope, plain_name
from scg.export.simplify import bases, detached_values, marked_values
from scg.export.spelling import is_typed, spelled
from scg.export.tape import Call, Kept, Outside, Ref, Source, Suffix, Tape, refs
from scg.export.titles import Title

CONTROLS = "controls"
LONG = 84
"""The most characters of an expression that is written where it is read, if that is once."""
SHORT = 14
"""The most characters of an expression that stays in a line that is too long."""
MANY = 2
"""The most results of one call that have a name each."""


@dataclass(eq=False)
class Lines(ABC):
    """Writes the lines of a block; how those of the parts in it are written is another's to say.

    ``titles`` has the name of each part, ``reserved`` what no value may be called, and ``nodes`` the names of
    values that have a line of their own, however often they are read. Values of unknown type are annotated
    if ``is_typed``.
    """

    tape: Tape
    titles: Mapping[str, Title]
    reserved: frozenset[str]
    nodes: frozenset[str] = frozenset()
    is_typed: bool = True
    helpers: set[str] = field(default_factory=set)

    @abstractmethod
    def _block(self, scope: Scope, outer: Block, block: Block, counts: Mapping[Ref, int]) -> None:
        """Write a part of a block."""

    def __post_init__(self) -> None:
        """Find what is known of all values."""
        self.detached = detached_values(self.tape)
        self.marked = marked_values(self.tape)
        self.numbers = dict(numbers(self.tape))
        several = bases(self.tape, self.marked)
        self.bases = {ref: base for ref, base in several.items() if not self._is_node(ref, base)}
        self.made_by = {ref: call for call in self.tape.calls for ref in refs(call.result)}

    def _is_node(self, ref: Ref, base: Ref) -> bool:
        """Say whether a value is a node of the graph, and the one that it is detached from is not."""
        name, source = self.tape.names.get(((), ref)), self.tape.sources.get(base)
        before = self.tape.names.get(((), base)) if source is None else source.root
        return name in self.nodes and name != before

    def _fill(self, scope: Scope, block: Block, results: list[Ref]) -> list[str]:
        counts = counts_in(block, results, self.bases)
        for item in block.items:
            if isinstance(item, Block):
                self._block(scope, block, item, counts)
            else:
                self._call(scope, block, item, counts, results)
        return [self._settled(scope, block, ref) for ref in results]

    def _matters(self, call: Call) -> bool:
        """Say whether it makes a difference to a call that autograd is on."""
        several = refs((call.args, dict(call.kwargs)))
        return isinstance(call.target, Outside) or any(ref not in self.detached for ref in several)

    def _call(
        self, scope: Scope, block: Block, call: Call, counts: Mapping[Ref, int], results: list[Ref]
    ) -> None:
        if isinstance(call.result, Ref) and call.result in self.bases:
            return
        off = not call.grad and self._matters(call) and not scope.off
        if isinstance(call.result, Ref) and call.result in self.numbers:
            return
        text = self._text(scope, block, call)
        if call.result is None:
            scope.say(text.text, off)
            return
        if isinstance(call.result, tuple):
            if len(call.result) > MANY:
                several = scope.unused(f"{plain_name(call)}s")
                scope.names.update({ref: f"{several}[{i}]" for i, ref in enumerate(call.result)})
                scope.say(f"{several} = {text.text}", off)
                return
            shown = [self._target(scope, block, call, ref, counts) for ref in call.result]
            comma = "," if len(shown) == 1 else ""
            left = f"({shown[0]},)" if comma else ", ".join(shown)
            scope.say(f"{left} = {text.text}", off)
            return
        is_node = not block.path and self._wanted(block, call.result) in self.nodes
        is_node = is_node and spelled(call.target) != "detach"
        is_named = results != [call.result] and (len(text.text) > LONG or is_node)
        if (
            counts.get(call.result, 0) == 1
            and not is_named
            and not off
            and (isinstance(call.target, Suffix) or self._is_inline(call) or self._is_handed_on(block, call))
            and not self._reads_marked(call)
        ):
            scope.pending[call.result] = text
            return
        self._assign(scope, block, call.result, text, off)

    def _is_handed_on(self, block: Block, call: Call) -> bool:
        """Say whether what is called is read by a function of the program, before anything else is called."""
        if isinstance(call.target, Outside) and call in block.items:
            for item in block.items[block.items.index(call) + 1 :]:
                if isinstance(item, Block) and call.result in item.read():
                    return True
                several = item.calls() if isinstance(item, Block) else [item]
                if any(isinstance(other.target, (Outside, Kept)) or not other.grad for other in several):
                    return False
        return False

    def _is_inline(self, call: Call) -> bool:
        return not isinstance(call.target, Outside) and is_typed(call.target)

    def _target(self, scope: Scope, block: Block, call: Call, ref: Ref, counts: Mapping[Ref, int]) -> str:
        if ref not in counts:
            return "_"
        return scope.named(ref, self._wanted(block, ref) or plain_name(call))

    def _assign(self, scope: Scope, block: Block, ref: Ref, text: Text, off: bool) -> None:
        call = self.made_by[ref]
        name = scope.named(ref, self._wanted(block, ref) or plain_name(call))
        is_any = isinstance(call.target, (Outside, Suffix)) or not is_typed(call.target)
        start = f"{name}: Tensor" if self.is_typed and is_any and ref in self.tape.shapes else name
        scope.say(f"{start} = {text.text}", off)

    def _reads_marked(self, call: Call) -> bool:
        """Say whether a call reads a value before that is made to require a gradient."""
        if spelled(call.target) == "requires_grad_":
            return False
        return any(ref in self.marked for ref in refs((call.args, dict(call.kwargs))))

    def _text(self, scope: Scope, block: Block, call: Call) -> Text:
        """Return a call as text, after what makes it fit in a line."""
        names = (self._wanted(block, ref) or plain_name(call) for ref in refs(call.result))
        room = WIDTH - len(STEP) - sum(len(name) + 3 for name in names)
        while True:
            used: list[Ref] = []
            text = self._once(scope, block, call, used)
            waiting = [ref for ref in used if ref in scope.pending]
            long = self._too_long(scope, text.text, room, waiting)
            if long is None:
                for ref in waiting:
                    del scope.pending[ref]
                return text
            self._assign(scope, block, long, scope.pending.pop(long), off=False)

    def _too_long(self, scope: Scope, text: str, room: int, waiting: list[Ref]) -> Ref | None:
        """Return what is better written before a line than in it, if something is."""
        if len(text) <= room or not waiting:
            return None
        spared = {ref: len(scope.pending[ref].text) - SHORT for ref in waiting}
        longest = max(waiting, key=lambda ref: spared[ref])
        fits = len(text) - sum(spare for spare in spared.values() if spare > 0) <= room
        return longest if spared[longest] > 0 and (fits or spared[longest] > LONG - 2 * SHORT) else None

    def _once(self, scope: Scope, block: Block, call: Call, used: list[Ref]) -> Text:
        def operand(ref: Ref) -> Text:
            used.append(ref)
            return self._operand(scope, block, ref)

        for size in sizes_in(call, self.numbers):
            scope.free.update(dict.fromkeys(size.plates, "int"))
        if isinstance(call.target, Kept):
            scope.free.setdefault(CONTROLS, "dict[str, Tensor]")
            return Text(kept(call, operand))
        if isinstance(call.target, Outside):
            if not call.target.how.endswith("library"):
                is_module = isinstance(call.target.call, nn.Module)
                scope.free.setdefault(call.target.name, "nn.Module" if is_module else "Callable[..., Any]")
            self.helpers.add(call.target.how)
        elif spelled(call.target) == "register_hook":
            self.helpers.add("hook")
        return written(call, operand, self.numbers)

    def _settled(self, scope: Scope, block: Block, ref: Ref) -> str:
        text = self._operand(scope, block, ref).text
        scope.pending.pop(ref, None)
        return text

    def _operand(self, scope: Scope, block: Block, ref: Ref) -> Text:
        if ref in self.bases and (ref in block.made() or not self._is_general(block)):
            return Text(f"{self._operand(scope, block, self.bases[ref]).within(POSTFIX)}.detach()", POSTFIX)
        if ref in scope.pending:
            return scope.pending[ref]
        if ref in scope.names:
            return Text(scope.names[ref])
        if ref in self.tape.literals:
            return literal(self.tape.literals[ref])
        if ref in self.numbers and ref in self.made_by:
            return self._once(scope, block, self.made_by[ref], [])
        source = self.tape.sources.get(ref)
        if source is None or (block.path and self._is_argument(block, source)):
            outer = None if self._is_general(block) else scope.around.get(ref)
            wanted = outer or self._wanted(block, ref) or "value"
            return Text(scope.argument(ref, wanted, self._kind(ref)))
        kind = {CONTROLS: "dict[str, Tensor]", "noise": "dict[str, Tensor]"}.get(source.root)
        other = "nn.Module" if ".get_parameter(" in source.text else "Any"
        kind = kind or ("Tensor" if source.root == source.text else other)
        scope.free.setdefault(source.root, kind)
        return Text(source.text, 20 if source.text.isidentifier() else 18)

    def _is_argument(self, block: Block, source: Source) -> bool:
        """Say whether a part is given a value that the program is given, and does not read it itself."""
        return source.root != CONTROLS and (self._is_general(block) or source.text != source.root)

    def _kind(self, ref: Ref) -> str:
        return "Tensor" if ref in self.tape.shapes else "Any"

    def _wanted(self, block: Block, ref: Ref) -> str | None:
        """Return the name of a value: here, around here, or in the part that made it."""
        names, path = self.tape.names, block.path
        is_given = ref not in block.made()
        if is_given and self._is_general(block):
            own = self.tape.given.get((path, ref)) or names.get((path, ref))
            if own is not None:
                return own
        for depth in range(len(path), -1, -1):
            if (path[:depth], ref) in names:
                return names[path[:depth], ref]
        call = self.made_by.get(ref)
        if call is not None and spelled(call.target) == "detach" and isinstance(call.args[0], Ref):
            source = self.tape.sources.get(call.args[0])
            return self._wanted(block, call.args[0]) if source is None else source.root
        several = (
            name
            for table, start in ((names, path), (names, ()), (self.tape.given, path))
            for (other, known), name in table.items()
            if known == ref and other[: len(start)] == start and name not in self.nodes
        )
        return next(several, None)

    def _is_general(self, block: Block) -> bool:
        """Say whether a part calls what it takes by names of its own."""
        title = self.titles.get(block.label)
        return bool(block.path) and (title is None or title.is_general)
