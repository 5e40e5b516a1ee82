"""Sketches: small graphs as data, from which graphs are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from scg.graph import Graph
from scg.nodes.plates import Plate
from scg.testing import words
from scg.testing.words import ONE, ROUGH, TWO, Law

ACROSS: Mapping[str, Callable[[int], Callable[..., Any]]] = {
    "total": words.total,
    "past": words.past,
    "centred": words.centred,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {**ONE, **TWO, **ROUGH}
LEAVES = ("param", "input")


@dataclass(frozen=True)
class Line:
    """One node: what it is, in a word, the nodes that it reads, and its plates.

    ``numbers`` are the values of a leaf, and ``across`` the plate that a function takes together. One that
    ``counts`` is a cost.
    """

    name: str
    word: str
    parents: tuple[str, ...] = ()
    plates: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    across: str = ""
    counts: bool = False


@dataclass(frozen=True)
class Sketch:
    """A graph: its plates from left to right, its nodes, parents first, and the laws that they have."""

    plates: tuple[Plate, ...]
    lines: tuple[Line, ...]
    laws: Mapping[str, Law]

    def pruned(self) -> Sketch:
        """Return the sketch without what no random variable and no cost needs, and without idle plates."""
        needed: set[str] = set()
        for line in reversed(self.lines):
            if line.name in needed or line.counts or line.word in self.laws:
                needed.update(line.parents, {line.name})
        lines = tuple(line for line in self.lines if line.name in needed)
        used = {plate for line in lines for plate in line.plates}
        return replace(self, lines=lines, plates=tuple(one for one in self.plates if one.name in used))


def build(sketch: Sketch) -> Graph:
    """Return the graph of a sketch."""
    g = Graph()
    for plate in sketch.plates:
        g.plate(
            plate.name,
            size=plate.size,
            reduce=plate.reduce,
            ordered=plate.ordered,
            discount=plate.discount,
        )
    lines = {line.name: line for line in sketch.lines}
    for line in sketch.lines:
        if line.word in LEAVES:
            _leaf(g, sketch, line)
        elif line.word in sketch.laws:
            _sample(g, sketch, line, lines[line.parents[0]])
        elif line.word == "read":
            law = sketch.laws[lines[line.parents[0]].word]
            assert law.read is not None
            g.det(line.name, law.read, g[line.parents[0]], relaxed=law.relaxed)
        elif line.word == "log":
            g.cost(line.name, g.log_prob(g[line.parents[0]]))
        else:
            _function(g, line, lines[line.parents[0]])
    return g


def _leaf(g: Graph, sketch: Sketch, line: Line) -> None:
    sizes = [plate.size or 1 for plate in sketch.plates if plate.name in line.plates]
    value = torch.tensor(line.numbers, dtype=torch.float64).reshape(sizes)
    if line.word == "param":
        g.param(line.name, value, plates=line.plates)
    else:
        g.input(line.name, value, plates=line.plates)


def _sample(g: Graph, sketch: Sketch, line: Line, parent: Line) -> None:
    law = sketch.laws[line.word]
    plates = line.plates if line.plates != parent.plates else None
    node = g[parent.name]
    if law.keyword:
        g.sample(line.name, law.dist, **{law.keyword: node}, **law.given, plates=plates)
    else:
        g.sample(line.name, law.dist, node, plates=plates)


def _function(g: Graph, line: Line, first: Line) -> None:
    options: dict[str, Any] = {}
    if line.across:
        fn = ACROSS[line.word](first.plates.index(line.across))
        if line.word == "total":
            options["plates"] = line.plates
        if line.word == "centred":
            options["mixes"] = line.across
    else:
        fn = FUNCTIONS[line.word]
    (g.cost if line.counts else g.det)(line.name, fn, *(g[name] for name in line.parents), **options)
