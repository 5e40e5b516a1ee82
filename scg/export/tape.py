"""Tapes: what one run of a program called, in order, with values by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Path = tuple[int, ...]


@dataclass(frozen=True)
class Ref:
    """A value of a tape."""

    index: int


@dataclass(frozen=True)
class Suffix:
    """What reads a part of a value that a user's function gave, such as ``[0]`` or ``.loc``."""

    text: str


@dataclass(frozen=True)
class Kept:
    """What stores a value under a key of the controls, for the next run, or in another ``place``."""

    key: str
    place: str = ""


@dataclass(frozen=True, eq=False)
class Outside:
    """A function or module of the user, by the ``name`` under which a written program takes it.

    ``how`` is "plain", "boxed" for what is no function of torch, or "copied" for a module whose running
    statistics are left as they are.
    """

    name: str
    call: Callable[..., Any]
    how: str = "plain"


@dataclass(frozen=True)
class Source:
    """Where a value comes from that no call gave: the expression that reads it, from argument ``root``.

    A value without a root is a number or tensor that is written out. What is ``detached`` has no gradient.
    """

    text: str
    root: str = ""
    detached: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """One call: of a torch function, of an ``Outside``, or reading or keeping a part.

    ``result`` is a value, several, or None; ``part`` the parts of the program that it belongs to, outermost
    first; ``grad`` tells whether autograd was recording.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    part: Path
    grad: bool

    def replaced(self, **changes: Any) -> Call:
        """Return the call with other members."""
        return Call(**{**vars(self), **changes})


@dataclass(frozen=True, eq=False)
class Given:
    """Where a part of the program finds a value: its argument ``root``, by position or name, and from there.

    What is ``detached`` has no gradient.
    """

    root: int | str
    place: str
    detached: bool


@dataclass(frozen=True, eq=False)
class Use:
    """Where a part of the program found the values that it was called with, and what it gave."""

    given: Mapping[Ref, Given]
    result: Any


@dataclass(eq=False)
class Tape:
    """One recorded run.

    ``shapes`` and ``dtypes`` are those of values that are tensors, and ``literals`` has values that are
    written out. ``parts`` names the parts of the program; ``names`` has what the code that was run calls a
    value, by part, and ``given`` what it calls what it is given; ``uses`` has how each part was called.
    ``faults`` say what cannot be written, with the parts in which that was found.
    """

    calls: list[Call] = field(default_factory=list)
    sources: dict[Ref, Source] = field(default_factory=dict)
    literals: dict[Ref, Tensor] = field(default_factory=dict)
    shapes: dict[Ref, tuple[Any, ...]] = field(default_factory=dict)
    dtypes: dict[Ref, Any] = field(default_factory=dict)
    parts: dict[int, str] = field(default_factory=dict)
    names: dict[tuple[Path, Ref], str] = field(default_factory=dict)
    given: dict[tuple[Path, Ref], str] = field(default_factory=dict)
    uses: dict[int, Use] = field(default_factory=dict)
    faults: dict[str, set[Path]] = field(default_factory=dict)
    result: Any = None


def refs(tree: Any) -> Iterator[Ref]:
    """Yield the values in what a call takes or gives."""
    if isinstance(tree, Ref):
        yield tree
    elif isinstance(tree, slice):
        yield from refs((tree.start, tree.stop, tree.step))
    elif isinstance(tree, Mapping):
        yield from refs(tuple(tree.values()))
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from refs(item)


def mapped(fn: Callable[[Any], Any], tree: Any) -> Any:
    """Replace what is no container in what a call takes."""
    if isinstance(tree, slice):
        return slice(*(mapped(fn, item) for item in (tree.start, tree.stop, tree.step)))
    if isinstance(tree, Mapping):
        return {key: mapped(fn, item) for key, item in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)(mapped(fn, item) for item in tree) if type(tree) in (tuple, list) else tree
    return fn(tree)


def substituted(calls: Sequence[Call], other: Mapping[Ref, Ref]) -> list[Call]:
    """Return calls that read other values in the place of some."""

    def leaf(item: Any) -> Any:
        return other.get(item, item) if isinstance(item, Ref) else item

    return [
        call.replaced(args=mapped(leaf, call.args), kwargs=mapped(leaf, call.kwargs))
        if any(ref in other for ref in refs((call.args, call.kwargs)))
        else call
        for call in calls
    ]
