"""The pencil: a sketch being drawn, one choice of Hypothesis after another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from scg.nodes.plates import Plate
from scg.testing.sketch import Line
from scg.testing.words import ONE, ROUGH, TWO, Law, is_finite

T = TypeVar("T")
VALUES = (0.3, -0.6, 1.1, 0.8, -0.2)
"""What leaves hold."""


@dataclass
class Pencil:
    """A sketch being drawn, of which every choice is one of Hypothesis, the simplest first.

    ``cases`` are the joint outcomes that there may still be. ``random`` are the nodes that a sample
    influences, ``normal`` those that a Normal does, ``learned`` those that a parameter does, and ``attached``
    those to which a gradient flows.
    """

    draw: DrawFn
    laws: Mapping[str, Law]
    plates: tuple[Plate, ...]
    cases: int
    lines: dict[str, Line] = field(default_factory=dict)
    readable: list[str] = field(default_factory=list)
    random: set[str] = field(default_factory=set)
    normal: set[str] = field(default_factory=set)
    learned: set[str] = field(default_factory=set)
    attached: set[str] = field(default_factory=set)

    def pick(self, options: Sequence[T]) -> T:
        """Choose; the first is the simplest."""
        return options[self.draw(st.integers(0, len(options) - 1))]

    def recent(self, among: Sequence[str]) -> Line:
        """Choose a node; the last is the simplest, and late ones are drawn more often."""
        several = [name for place, name in enumerate(reversed(among)) for _ in range(len(among) - place)]
        return self.lines[self.pick(several)]

    def fresh(self, word: str) -> str:
        """Return a name that is not taken."""
        return next(name for n in range(len(self.lines) + 1) if (name := f"{word}{n}") not in self.lines)

    def add(self, line: Line, *, may_be_read: bool = True) -> Line:
        """Write a line down."""
        self.lines[line.name] = line
        if may_be_read:
            self.readable.append(line.name)
        self._mark(self.random, line, line.word in self.laws)
        self._mark(self.normal, line, line.word in self.laws and not is_finite(line.word))
        self._mark(self.learned, line, line.word == "param")
        if line.word not in self.laws:
            self._mark(self.attached, line, line.word == "param")
        return line

    def _mark(self, several: set[str], line: Line, starts: bool) -> None:
        if starts or not several.isdisjoint(line.parents):
            several.add(line.name)

    def ordered(self, names: Collection[str]) -> tuple[str, ...]:
        """Return plates from left to right."""
        return tuple(plate.name for plate in self.plates if plate.name in names)

    def elements(self, plates: Collection[str]) -> int:
        """Return how many elements a node of some plates has."""
        sizes = [plate.size or 1 for plate in self.plates if plate.name in plates]
        return int(torch.Size(sizes).numel())

    def leaf(self, word: str, plates: tuple[str, ...]) -> None:
        """Declare a parameter or an input."""
        first = self.pick(range(len(VALUES)))
        numbers = tuple((VALUES[first:] + VALUES)[: self.elements(plates)])
        self.add(Line(self.fresh("x" if word == "input" else "w"), word, (), plates, numbers))

    def nothing(self, among: Sequence[str]) -> None:
        """Leave a place empty."""

    def function(self, among: Sequence[str]) -> None:
        """Declare a function of one node or of two."""
        parent = self.recent(among)
        rough = () if parent.name in self.normal | self.attached else tuple(ROUGH)
        word = self.pick([*ONE, *rough, *TWO])
        parents = (parent,) if word not in TWO else (parent, self.recent(among))
        self.add(self.of(word, "h", *parents))

    def of(self, word: str, kind: str, *parents: Line, counts: bool = False) -> Line:
        """Return the line of a function of some nodes."""
        plates = self.ordered({plate for parent in parents for plate in parent.plates})
        names = tuple(parent.name for parent in parents)
        return Line(self.fresh(kind), word, names, plates, counts=counts)

    def across(self, among: Sequence[str]) -> None:
        """Add a plate up, mix its elements, or sum along it up to each."""
        plated = [name for name in among if self.lines[name].plates]
        if not plated:
            return
        parent = self.recent([name for name in plated if name in self.random] or plated)
        plate = self.pick(parent.plates)
        is_ordered = next(one.ordered for one in self.plates if one.name == plate)
        word = self.pick(["total", "past" if is_ordered else "centred"])
        kept = tuple(other for other in parent.plates if other != plate)
        plates = kept if word == "total" else parent.plates
        self.add(Line(self.fresh(word), word, (parent.name,), plates, across=plate))

    def fitting(self, plates: Collection[str]) -> list[str]:
        """Return the laws of which a sample in some plates fits into the joint outcomes that there may be."""
        elements = self.elements(plates)
        return [word for word, law in self.laws.items() if law.outcomes**elements <= self.cases]

    def sample(self, among: Sequence[str]) -> None:
        """Declare a random variable, where one fits."""
        parent = self.recent(among)
        more = [plate.name for plate in self.plates if plate.name not in parent.plates]
        wider = [parent.plates, *(self.ordered({*parent.plates, plate}) for plate in more)]
        able = [plates for plates in wider if self.fitting(plates)]
        if not able:
            return
        plates = self.pick(able)
        word = self.pick(self.fitting(plates))
        law = self.laws[word]
        self.cases //= law.outcomes ** self.elements(plates)
        name = self.fresh("z")
        self.add(Line(name, word, (parent.name,), plates), may_be_read=law.read is None)
        if law.read is not None:
            self.add(Line(f"{name}_read", "read", (name,), plates))

    def cost(self, among: Sequence[str]) -> None:
        """Declare a cost of one node, of it and another, or the log-probability of a sample."""
        sampled = [name for name, line in self.lines.items() if line.word in self.laws]
        word = self.pick([*ONE, *TWO, "log"])
        if word == "log":
            parents: tuple[Line, ...] = (self.recent(sampled),)
        else:
            parents = (self.recent(among), *(self.recent(self.readable) for _ in range(word in TWO)))
        self.add(self.of(word, "cost", *parents, counts=True), may_be_read=False)


STEPS: tuple[Callable[[Pencil, Sequence[str]], None], ...] = (
    Pencil.nothing,
    Pencil.function,
    Pencil.sample,
    Pencil.across,
    Pencil.sample,
    Pencil.function,
)
