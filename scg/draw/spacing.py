"""Horizontal places: items as close to their neighbours as the order of rows and the frames allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import networkx as nx

from scg.draw.layers import Layers
from scg.draw.nesting import Home, common

PAD = 11.0
_NODE_GAP = 20.0
_BEND_GAP = 12.0
_EFFORT = 400_000

Border = tuple[str, Home]
Part = int | Border
_Pulls = Mapping[Part, Sequence[tuple[Part, float]]]
_Aim = Callable[[Part, Mapping[Part, float], _Pulls], float]


def spread(
    layers: Layers, rows: Sequence[Sequence[int]], widths: Sequence[float], titles: Mapping[Home, float]
) -> dict[Part, float]:
    """Return the centre of every item and, at ``("left", frame)`` and ``("right", frame)``, the borders."""
    needs = _distances(layers, rows, widths, titles)
    pulls = _pulls(layers, len(widths))
    rounds = max(6, min(120, _EFFORT // (len(needs.order) + 1)))
    x = _centre(needs, pulls, rounds)
    for aim in (_mean, _median):
        for turn in range(rounds):
            _polish(needs, pulls, x, aim, rightwards=turn % 2 == 0, loose=turn % 4 < 2)
    _tighten(needs, x)
    return x


def _centre(needs: _Needs, pulls: _Pulls, rounds: int) -> dict[Part, float]:
    """Minimise roughly the squared horizontal length of links.

    Each round moves everything halfway to the mean of its neighbours, repairs the distances once by
    pushing right and once by pushing left, and takes the mean of the two: both are feasible and the
    feasible set is convex.
    """
    x = _push_right(needs, dict.fromkeys(needs.order, 0.0))
    for _ in range(rounds):
        wish = {part: (x[part] + _mean(part, x, pulls)) / 2 for part in x}
        _tighten(needs, wish)
        right, left = _push_right(needs, wish), _push_left(needs, wish)
        x = {part: (right[part] + left[part]) / 2 for part in needs.order}
    return x


def _polish(
    needs: _Needs, pulls: _Pulls, x: dict[Part, float], aim: _Aim, *, rightwards: bool, loose: bool
) -> None:
    """Move each item where it wants to be, as far as its present neighbours leave room."""
    (_loosen if loose else _tighten)(needs, x)
    for part in needs.order if rightwards else reversed(needs.order):
        if not isinstance(part, tuple):
            least = max((x[other] + gap for other, gap in needs.before[part]), default=-math.inf)
            most = min((x[other] - gap for other, gap in needs.after[part]), default=math.inf)
            x[part] = min(max(aim(part, x, pulls), least), most)
    _tighten(needs, x)


@dataclass(frozen=True)
class _Needs:
    """Least distances x[b] - x[a] >= gap, from either end, and an order in which a precedes b."""

    order: Sequence[Part]
    before: Mapping[Part, Sequence[tuple[Part, float]]]
    after: Mapping[Part, Sequence[tuple[Part, float]]]


def _distances(
    layers: Layers, rows: Sequence[Sequence[int]], widths: Sequence[float], titles: Mapping[Home, float]
) -> _Needs:
    graph = nx.DiGraph()
    for row in rows:
        parts = _with_borders(layers, row)
        graph.add_nodes_from(parts)
        for left, right in pairwise(parts):
            gap = _gap(left, right, widths)
            if graph.has_edge(left, right):
                gap = max(gap, graph.edges[left, right]["gap"])
            graph.add_edge(left, right, gap=gap)
    for frame in layers.spans:
        graph.add_edge(("left", frame), ("right", frame), gap=titles[frame])
    order = list(nx.topological_sort(graph))
    before = {part: [(other, need["gap"]) for other, need in graph.pred[part].items()] for part in order}
    after = {part: [(other, need["gap"]) for other, need in graph.adj[part].items()] for part in order}
    return _Needs(order, before, after)


def _with_borders(layers: Layers, row: Sequence[int]) -> list[Part]:
    """Return a row with the borders of frames between its items."""
    parts: list[Part] = []
    inside: Home = ()
    for item in row:
        _cross(parts, inside, layers.home[item])
        inside = layers.home[item]
        parts.append(item)
    _cross(parts, inside, ())
    return parts


def _cross(parts: list[Part], inside: Home, home: Home) -> None:
    shared = len(common(inside, home))
    parts.extend(("right", inside[:depth]) for depth in range(len(inside), shared, -1))
    parts.extend(("left", home[:depth]) for depth in range(shared + 1, len(home) + 1))


def _gap(left: Part, right: Part, widths: Sequence[float]) -> float:
    half = sum(_width(part, widths) for part in (left, right)) / 2
    if isinstance(left, tuple) and (left[0] == "left" or isinstance(right, tuple)):
        return half + PAD
    if isinstance(right, tuple) and right[0] == "right":
        return half + PAD
    bends = sum(isinstance(part, int) and part >= len(widths) for part in (left, right))
    return half + (_BEND_GAP if bends else _NODE_GAP)


def _width(part: Part, widths: Sequence[float]) -> float:
    return widths[part] if isinstance(part, int) and part < len(widths) else 0.0


def _pulls(layers: Layers, nodes: int) -> _Pulls:
    """Return the neighbours of each item with weights that straighten long edges."""
    pulls: dict[Part, list[tuple[Part, float]]] = {item: [] for item in range(len(layers.row))}
    for upper, lower in layers.links:
        weight = (1.0, 0.5, 8.0)[(upper >= nodes) + (lower >= nodes)]
        pulls[upper].append((lower, weight))
        pulls[lower].append((upper, weight))
    return pulls


def _mean(part: Part, x: Mapping[Part, float], pulls: _Pulls) -> float:
    if not pulls.get(part):
        return x[part]
    total = sum(weight for _, weight in pulls[part])
    return sum(x[other] * weight for other, weight in pulls[part]) / total


def _median(part: Part, x: Mapping[Part, float], pulls: _Pulls) -> float:
    """Return the weighted median, and where an interval of them is left, the one nearest to the mean."""
    if not pulls.get(part):
        return x[part]
    places = sorted((x[other], weight) for other, weight in pulls[part])
    half = sum(weight for _, weight in places) / 2
    sums = list(accumulate(weight for _, weight in places))
    least = next(place for (place, _), total in zip(places, sums, strict=True) if total >= half)
    most = next((place for (place, _), total in zip(places, sums, strict=True) if total > half), least)
    return min(max(_mean(part, x, pulls), least), most)


def _loosen(needs: _Needs, x: dict[Part, float]) -> None:
    """Move the borders of every frame outwards as far as nothing is in the way."""
    for part in needs.order:
        if isinstance(part, tuple) and part[0] == "left":
            x[part] = max((x[other] + gap for other, gap in needs.before[part]), default=-math.inf)
    for part in reversed(needs.order):
        if isinstance(part, tuple) and part[0] == "right":
            x[part] = min((x[other] - gap for other, gap in needs.after[part]), default=math.inf)


def _tighten(needs: _Needs, x: dict[Part, float]) -> None:
    """Move the borders of every frame as close to what it holds as the distances allow."""
    for part in reversed(needs.order):
        if isinstance(part, tuple) and part[0] == "left":
            x[part] = min(x[other] - gap for other, gap in needs.after[part])
    for part in needs.order:
        if isinstance(part, tuple) and part[0] == "right":
            x[part] = max(x[other] + gap for other, gap in needs.before[part])


def _push_right(needs: _Needs, wish: Mapping[Part, float]) -> dict[Part, float]:
    x: dict[Part, float] = {}
    for part in needs.order:
        x[part] = max([wish[part], *(x[other] + gap for other, gap in needs.before[part])])
    return x


def _push_left(needs: _Needs, wish: Mapping[Part, float]) -> dict[Part, float]:
    x: dict[Part, float] = {}
    for part in reversed(needs.order):
        x[part] = min([wish[part], *(x[other] - gap for other, gap in needs.after[part])])
    return x
