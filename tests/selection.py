"""How much of a long table of tests is run: all of it under HYPOTHESIS_PROFILE=fuzz, else an even part."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
Option = TypeVar("Option")

EVERYTHING: Final = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"


def covering(several: Sequence[T], *columns: Callable[[T], Hashable]) -> list[T]:
    """Return so many rows of a table that whatever stands in one of its columns stands there still."""
    seen: set[tuple[int, Hashable]] = set()
    kept = []
    for row in several:
        cells = {(index, column(row)) for index, column in enumerate(columns)}
        if EVERYTHING or not cells <= seen:
            kept.append(row)
            seen |= cells
    return kept


def some(several: Sequence[T], step: int) -> list[T]:
    """Return every ``step``-th of a table."""
    return list(several if EVERYTHING else several[::step])


def by_turns(several: Sequence[T], options: Sequence[Option]) -> list[tuple[T, Option]]:
    """Return every row of a table with one of some options, each in its turn."""
    return [
        (row, option)
        for place, row in enumerate(several)
        for turn, option in enumerate(options)
        if EVERYTHING or place % len(options) == turn
    ]
