"""Which plates are drawn inside which: a tree of frames in which every node has one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scg.nodes.ir import IR

Home = tuple[str, ...]


def homes(ir: IR, names: Iterable[str]) -> dict[str, Home]:
    """Return the plates around each node, outermost first.

    The plate with more nodes is the outer one, and the graph's order of plates decides ties, so plates
    whose nodes are nested or disjoint get one frame each. A plate that crosses another one is drawn in
    pieces: one frame inside the other plate and one outside it.
    """
    names = list(names)
    members = Counter(plate for name in names for plate in ir.layout.get(name, ()))
    order = {plate: index for index, plate in enumerate(ir.plates)}

    def outermost_first(plate: str) -> tuple[int, int]:
        return -members[plate], order.get(plate, len(order))

    return {name: tuple(sorted(ir.layout.get(name, ()), key=outermost_first)) for name in names}


def common(left: Home, right: Home) -> Home:
    """Return the innermost frame around both.

    >>> common(("time", "batch"), ("time", "chain"))
    ('time',)
    """
    shared = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        shared += 1
    return left[:shared]


def frames(places: Iterable[Home]) -> list[Home]:
    """Return every frame that the places lie in, outer frames before inner ones."""
    found = {home[:depth] for home in places for depth in range(1, len(home) + 1)}
    return sorted(found, key=lambda home: (len(home), home))
