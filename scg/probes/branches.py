"""Branches: the ways that a function may take where Python reads numbers, each recorded by giving others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

CALLS, OPERATIONS = 32, 20_000
FAR: Final = (-1e6, 1e6)
"""What a number may come to be in the end: beyond whatever it is compared with."""


class TooLongError(Exception):
    """A way on which a function does far more than any that was taken."""


@dataclass
class Reads:
    """The numbers that Python reads in one call: ``instead`` gives others, by their place among the reads."""

    instead: Mapping[int, Any] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    left: int = OPERATIONS

    def read(self, value: Any) -> Any:
        """Note a number and return it, or what is given in its place."""
        self.values.append(value)
        return self.instead.get(len(self.values) - 1, value)

    def spend(self) -> None:
        """Count an operation where a number was replaced: a count may have become a million."""
        self.left -= 1
        if self.instead and self.left < 0:
            raise TooLongError


def others(value: Any) -> tuple[Any, ...]:
    """Return numbers that may lead elsewhere than a number does.

    >>> others(True), others(3)
    ((False,), (4, -1000000, 1000000))
    """
    if isinstance(value, bool):
        return (not value,)
    return tuple(type(value)(other) for other in (value + 1, *FAR)) if isinstance(value, (int, float)) else ()


@dataclass(frozen=True)
class Ways(Generic[T]):
    """What a function gave on the way that it takes by itself, and on others that it could be made to take.

    They are told apart by the numbers given instead, and are all only if ``is_complete``.
    """

    taken: T
    untaken: Mapping[tuple[tuple[int, Any], ...], T]
    is_complete: bool

    def __iter__(self) -> Iterator[T]:
        """Go over all of them, the one taken first."""
        yield self.taken
        yield from self.untaken.values()


def ways(call: Callable[[Reads], T]) -> Ways[T]:
    """Call a function as it is, then once for every other number at each place where Python reads one.

    Where a way leads to more reads, these are replaced in turn; a way that raises is none.

    >>> def sign(reads: Reads) -> str:
    ...     return "up" if reads.read(True) else "down"
    >>> list(ways(sign))
    ['up', 'down']
    """
    first = Reads()
    taken = call(first)
    untaken: dict[tuple[tuple[int, Any], ...], T] = {}
    waiting, calls = _next(first), 0
    while waiting and calls < CALLS:
        reads = Reads(waiting.pop(0))
        calls += 1
        try:
            result = call(reads)
        except Exception:  # noqa: BLE001 - of an arbitrary function: a check that fails
            continue
        untaken[tuple(sorted(reads.instead.items()))] = result
        waiting += _next(reads)
    return Ways(taken, untaken, not waiting)


def _next(reads: Reads) -> list[Mapping[int, Any]]:
    """Return what to give instead after a call: one number more, later than those given already."""
    start = max(reads.instead, default=-1) + 1
    return [
        {**reads.instead, place: other}
        for place, value in enumerate(reads.values[start:], start)
        for other in others(value)
    ]
