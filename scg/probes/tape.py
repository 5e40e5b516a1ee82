"""The tape of one call: what each storage holds of what is learned and of noise, and what was found."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Final

import torch
from torch import Tensor

from scg.probes.operations import is_discrete
from scg.probes.origins import origin


class Kind(enum.Enum):
    """What can be found between what is learned and an output."""

    NOISE = "noise"
    DRAW = "draw"
    STEP = "step"
    LOST = "lost"
    LEAVES = "leaves"
    CUSTOM = "custom"
    UNDEFINED = "undefined"
    UNDERIVED = "underived"


@dataclass(frozen=True)
class Finding:
    """An operation of interest: what the user called, and at which line, if that is known.

    ``mild`` is what continuous functions are made of too, such as comparisons: it counts only where a jump
    is seen. ``proven`` is what no value can excuse: a draw from a law of what is learned. UNDEFINED is where
    numbers replace NaN or infinity, and UNDERIVED a derivative that torch does not have, in its words.
    """

    kind: Kind
    operation: str
    where: str = ""
    mild: bool = False
    proven: bool = False

    def __str__(self) -> str:
        """Its name and its line."""
        return f"{self.operation} ({self.where})" if self.where else self.operation


@dataclass(frozen=True)
class Mark:
    """What one storage holds, as sets of bits: the sources, noises and findings that it is computed from.

    ``loss`` is what is found if it is read without a gradient.
    """

    sources: int = 0
    noises: int = 0
    findings: int = 0
    loss: Finding | None = None
    is_attached: bool = False

    def __or__(self, other: Mark) -> Mark:
        """What holds both."""
        return Mark(
            self.sources | other.sources,
            self.noises | other.noises,
            self.findings | other.findings,
            self.loss or other.loss,
            self.is_attached or other.is_attached,
        )

    @property
    def is_live(self) -> bool:
        """Whether a gradient can still be lost here."""
        return self.is_attached or self.loss is not None


BLANK: Final = Mark()


@dataclass
class Tape:
    """The marks of one call, kept up to date by whoever sees its operations; ``within`` is its frame."""

    within: FrameType
    sources: list[Tensor] = field(default_factory=list)
    touched: dict[Finding, int] = field(default_factory=dict)
    escaped: int = 0
    has_implicit_draws: bool = False
    generators: list[tuple[torch.Generator, Tensor]] = field(default_factory=list)
    _marks: dict[int, Mark] = field(default_factory=dict)
    _held: list[Tensor] = field(default_factory=list)
    _detached: dict[int, Finding] = field(default_factory=dict)
    _bits: dict[Finding, int] = field(default_factory=dict)

    def source(self, tensor: Tensor) -> None:
        """Count a tensor among what is learned."""
        self.mark(tensor, Mark(sources=1 << len(self.sources), is_attached=True))
        self.sources.append(tensor)

    def mark(self, tensor: Tensor, mark: Mark) -> None:
        """Add to what a tensor holds, which is kept: no other comes to stand in its place."""
        place = _storage(tensor)
        self._marks[place] = self._marks.get(place, BLANK) | mark
        self._held.append(tensor)

    def born(self, tensor: Tensor) -> None:
        """Note that a tensor was made in this call, of nothing that is followed."""
        if _storage(tensor) not in self._marks:
            self.mark(tensor, BLANK)

    def drawn_from(self, generator: torch.Generator) -> None:
        """Remember the state of a generator of the function's own before it is first used."""
        if all(generator is not known for known, _ in self.generators):
            self.generators.append((generator, generator.get_state()))

    def detach(self, tensor: Tensor, name: str) -> None:
        """Remember the line at which a tensor was last taken off its gradient."""
        if _storage(tensor) in self._marks:
            self._detached[_storage(tensor)] = self.found(Kind.LOST, name)

    def of(self, tensor: Tensor) -> Mark:
        """Return what a tensor holds; one that requires a gradient and was never met is learned, too."""
        place = _storage(tensor)
        if place not in self._marks and tensor.requires_grad and tensor.numel():
            self.source(tensor)
        return self._marks.get(place, BLANK)

    def read(self, tensor: Tensor) -> Mark:
        """Return what a tensor holds, with what is lost where it has no gradient any more."""
        mark = self.of(tensor)
        if not mark.sources or not mark.is_live or tensor.requires_grad or is_discrete(tensor):
            return mark
        loss = mark.loss or self._detached.get(_storage(tensor)) or Finding(Kind.LOST, "detach")
        return replace(mark, findings=mark.findings | self.bit(loss, mark.sources))

    def found(self, kind: Kind, name: str, *, mild: bool = False, proven: bool = False) -> Finding:
        """Return a finding at the line that runs now."""
        return Finding(kind, *origin(name, self.within), mild, proven)

    def bit(self, finding: Finding, sources: int) -> int:
        """Return the bit of a finding, which touches some sources."""
        self.touched[finding] = self.touched.get(finding, 0) | sources
        return 1 << self._bits.setdefault(finding, len(self._bits))

    def escape(self, tensor: Tensor, name: str = "a number that Python reads") -> None:
        """Note that a value leaves torch, so that whatever follows may depend on it."""
        mark = self.of(tensor)
        self.escaped |= mark.findings | mark.noises
        if mark.sources and not is_discrete(tensor):
            found = self.found(Kind.LEAVES, name)
            self.escaped |= self.bit(found, mark.sources)

    def findings(self, bits: int) -> tuple[Finding, ...]:
        """Return the findings in a set of bits, in the order in which they were met."""
        return tuple(finding for finding, index in self._bits.items() if bits >> index & 1)


def _storage(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:
        return id(tensor)
    return tensor.untyped_storage().data_ptr() or id(tensor)
