"""The order of items within rows: few crossings, frames unbroken and side by side in one order everywhere."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from scg.draw.layers import Layers
from scg.draw.nesting import Home

_Rank = tuple[tuple[float, str, float], ...]

_SWEEPS = 24
_SWAP_LIMIT = 4000


def arrange(layers: Layers) -> list[list[int]]:
    """Return the rows reordered by barycentre sweeps (Sugiyama et al. 1981) and neighbour swaps."""
    above, below = _neighbours(layers)
    alone: list[list[int]] = [[] for _ in layers.row]
    best: list[list[int]] = []
    fewest = len(layers.links) ** 2 + 1
    for start in (layers.rows, [row[::-1] for row in layers.rows]):
        rows = _sweep(layers, _places(start), alone, downwards=True)
        place = _places(rows)
        if (count := crossings(rows, below)) < fewest:
            best, fewest = rows, count
        for sweep in range(_SWEEPS if len(layers.row) < _SWAP_LIMIT else 6):
            if not fewest:
                return best
            rows = _sweep(layers, place, above if sweep % 2 == 0 else below, downwards=sweep % 2 == 0)
            if len(layers.row) < _SWAP_LIMIT:
                _swap(layers, rows, above, below)
            place = _places(rows)
            if (count := crossings(rows, below)) < fewest:
                best, fewest = rows, count
    return best


def crossings(rows: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> int:
    """Count the pairs of links that cross."""
    total = 0
    for upper, lower in pairwise(rows):
        index = {item: place for place, item in enumerate(lower)}
        ends: list[int] = []
        for item in upper:
            targets = sorted(index[child] for child in below[item])
            total += sum(len(ends) - bisect_right(ends, target) for target in targets)
            for target in targets:
                insort(ends, target)
    return total


def _neighbours(layers: Layers) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in layers.row]
    below: list[list[int]] = [[] for _ in layers.row]
    for upper, lower in layers.links:
        below[upper].append(lower)
        above[lower].append(upper)
    return above, below


def _places(rows: Sequence[Sequence[int]]) -> dict[int, float]:
    """Return where each item stands, measured from the middle of its row."""
    return {item: index - (len(row) - 1) / 2 for row in rows for index, item in enumerate(row)}


def _sweep(
    layers: Layers, place: dict[int, float], neighbours: Sequence[Sequence[int]], *, downwards: bool
) -> list[list[int]]:
    """Sort every row by the mean place of the neighbours in the row before.

    A frame is sorted by one number for all rows, so the rows agree on the order of frames.
    """
    place = dict(place)
    middle = _middles(layers.home, place)
    rows = [list(row) for row in layers.rows]
    for index in range(len(rows)) if downwards else reversed(range(len(rows))):
        keys = {}
        for item in rows[index]:
            wish = fmean(place[other] for other in neighbours[item]) if neighbours[item] else place[item]
            keys[item] = _rank(layers.home[item], middle, wish, place[item])
        rows[index].sort(key=keys.__getitem__)
        place.update(_places([rows[index]]))
    return rows


def _middles(home: Sequence[Home], place: dict[int, float]) -> dict[Home, float]:
    inside: dict[Home, list[float]] = {}
    for item, where in place.items():
        for depth in range(1, len(home[item]) + 1):
            inside.setdefault(home[item][:depth], []).append(where)
    return {frame: fmean(places) for frame, places in inside.items()}


def _rank(home: Home, middle: dict[Home, float], wish: float, now: float) -> _Rank:
    """Return a sort key that keeps every frame's items together: one entry a frame, then the item's own."""
    outside = tuple((middle[home[: depth + 1]], home[depth], 0.0) for depth in range(len(home)))
    return (*outside, (wish, "", now))


def _swap(
    layers: Layers, rows: list[list[int]], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]
) -> None:
    """Exchange neighbours of one frame while that removes crossings; a few rounds are enough."""
    where = {item: index for row in rows for index, item in enumerate(row)}
    for _ in range(4):
        gained = False
        for row in rows:
            for index in range(len(row) - 1):
                left, right = row[index], row[index + 1]
                if layers.home[left] == layers.home[right] and _gain(left, right, above, below, where) > 0:
                    row[index], row[index + 1] = right, left
                    where[left], where[right] = index + 1, index
                    gained = True
        if not gained:
            return


def _gain(
    left: int,
    right: int,
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    where: dict[int, int],
) -> int:
    """Return how many crossings vanish when two neighbours change places."""
    gain = 0
    for side in (above, below):
        ends = [where[item] for item in side[right]]
        for item in side[left]:
            gain += sum((end < where[item]) - (end > where[item]) for end in ends)
    return gain
