"""Branches: the ways that a function may take where Python reads numbers, each recorded by giving others."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from scg.probes.bounded import MANY, Bounded, RanOnError
from scg.probes.extent import is_large

T = TypeVar("T")

CALLS: Final = 32
FAR: Final = (-1e6, 1e6)
"""What a number may come to be in the end: beyond whatever it is compared with."""
NEAR: Final = 100.0
"""What to give instead of a number that is too large, because it is a count or a size."""
TIMES: Final = 3
"""How often a number is replaced at a place in the code that one call meets several times, as in a loop."""
LENGTH: Final = 1_000
"""How many operations a way may have besides twice those of the way taken."""
TOGETHER: Final = 4
"""How many times as many all other ways may have together."""
NOT_OF_USERS: Final = ("torch.", "scg.probes.")


@dataclass
class Reads:
    """The numbers that Python reads in one call: ``instead`` gives others, by their place among the reads.

    ``places`` tells where in the code each was read; ``spent`` counts operations, ``length`` bounds them.
    """

    instead: Mapping[int, Any] = field(default_factory=dict)
    length: int = LENGTH
    values: list[Any] = field(default_factory=list)
    places: list[Hashable] = field(default_factory=list)
    spent: int = 0

    def read(self, value: Any) -> Any:
        """Note a number and return it, or what is given in its place."""
        self.values.append(value)
        self.places.append(_place())
        return self.instead.get(len(self.values) - 1, value)

    def spend(self, function: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Count an operation, before it runs, where a number was replaced."""
        self.spent += 1
        if self.instead and (self.spent > self.length or is_large(function, args, kwargs)):
            raise RanOnError("a way that is far longer than the one taken")

    def other(self, instead: Mapping[int, Any]) -> Reads:
        """Return what to read on another way than the one that was read here."""
        return Reads(instead, LENGTH + 2 * self.spent)


def _place() -> Hashable:
    """Return where in the code of a function, outside torch, Python reads a number."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(NOT_OF_USERS):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


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

    Where a way leads to more reads, these are replaced in turn; a way that raises is none. A place in the
    code that was tried waits for those that were not, and one in a loop is not tried each time.

    >>> def sign(reads: Reads) -> str:
    ...     return "up" if reads.read(True) else "down"
    >>> list(ways(sign))
    ['up', 'down']
    """
    first = Reads()
    taken = call(first)
    untaken: dict[tuple[tuple[int, Any], ...], T] = {}
    waiting, left = _Waiting(), TOGETHER * first.other({}).length
    waiting.add(first)
    for _ in range(CALLS):
        if left <= 0 or (instead := waiting.next()) is None:
            break
        reads = first.other(instead)
        try:
            with Bounded(MANY + 100 * first.spent):
                untaken[tuple(sorted(instead.items()))] = call(reads)
        except RanOnError:
            waiting.add_nearer(reads)
        except Exception:  # noqa: BLE001 - of an arbitrary function: a check that fails
            continue
        else:
            waiting.add(reads)
        finally:
            left -= reads.spent
    return Ways(taken, untaken, waiting.next() is None and waiting.is_complete)


class _Waiting:
    """What is still to be given instead of numbers: the place in the code that was tried least is next.

    ``is_complete`` unless something was left out.
    """

    def __init__(self) -> None:
        self._all: list[tuple[Hashable, Mapping[int, Any]]] = []
        self._tried: Counter[Hashable] = Counter()
        self._repeated: set[Hashable] = set()
        self._usual: Counter[Hashable] | None = None
        self.is_complete = True

    def next(self) -> Mapping[int, Any] | None:
        """Take out what to give next."""
        kept = [(place, instead) for place, instead in self._all if self._is_open(place)]
        self.is_complete &= len(kept) == len(self._all)
        if not kept:
            return None
        place, instead = min(kept, key=lambda one: self._tried[one[0]])
        self._tried[place] += 1
        self._all = [one for one in kept if one[1] is not instead]
        return instead

    def add(self, reads: Reads) -> None:
        """Add what to give instead after a call; where a loop went on or stopped, ways do not tell all."""
        met = Counter(reads.places)
        self._usual = self._usual or met
        places = [reads.places[index] for index in reads.instead]
        self.is_complete &= all(self._usual[place] in (0, met[place]) for place in places)
        self._repeated |= {place for place, times in met.items() if times > 1}
        self._all += _next(reads)

    def add_nearer(self, reads: Reads) -> None:
        """Add a number that is nearer than the last that was given, which was too large."""
        self.is_complete = False
        index = max(reads.instead)
        given = reads.instead[index]
        if abs(given) in FAR:
            near = type(given)(NEAR if given > 0 else -NEAR)
            self._all.append(((reads.places[index], near), {**reads.instead, index: near}))

    def _is_open(self, place: Any) -> bool:
        return place[0] not in self._repeated or self._tried[place] < TIMES


def _next(reads: Reads) -> list[tuple[Hashable, Mapping[int, Any]]]:
    """Return what to give instead after a call, and for which place: one number more, and later."""
    start = max(reads.instead, default=-1) + 1
    return [
        ((reads.places[index], sort), {**reads.instead, index: other})
        for index, value in enumerate(reads.values[start:], start)
        for sort, other in enumerate(others(value))
    ]
