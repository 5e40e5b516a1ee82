"""Rows of the picture: every node below its parents, long edges threaded through the rows between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

from scg.draw.nesting import Home, common, frames


@dataclass(frozen=True)
class Layers:
    """Items in rows: items 0 to n-1 are the nodes, later ones are bends of edges and fillers of frames.

    ``links`` join items of neighbouring rows, upper item first. ``chains`` lists the items that an edge
    runs through, its two nodes included. Long edges of one source share their bends.
    """

    row: Sequence[int]
    home: Sequence[Home]
    rows: Sequence[Sequence[int]]
    links: Sequence[tuple[int, int]]
    chains: Mapping[tuple[int, int], tuple[int, ...]]
    spans: Mapping[Home, tuple[int, int]]


def build(dag: nx.DiGraph, places: Sequence[Home]) -> Layers:
    """Return the rows of a DAG over the items 0 to n-1 that lie at ``places``."""
    row = _longest_paths(dag)
    home = list(places)
    chains = _thread(dag, row, home)
    spans = _fill(row, home)
    rows: list[list[int]] = [[] for _ in range(max(row, default=-1) + 1)]
    for item, index in enumerate(row):
        rows[index].append(item)
    links = dict.fromkeys(pair for chain in chains.values() for pair in pairwise(chain))
    return Layers(row, home, rows, list(links), chains, spans)


def _longest_paths(dag: nx.DiGraph) -> list[int]:
    """Return the row of each item: below all parents; roots directly above their highest child."""
    row = [0] * len(dag)
    order = list(nx.topological_sort(dag))
    for item in order:
        row[item] = max((row[parent] + 1 for parent in dag.predecessors(item)), default=0)
    for item in order:
        if not dag.in_degree(item) and dag.out_degree(item):
            row[item] = min(row[child] for child in dag.successors(item)) - 1
    return row


def _thread(dag: nx.DiGraph, row: list[int], home: list[Home]) -> dict[tuple[int, int], tuple[int, ...]]:
    """Append the bends of long edges to ``row`` and ``home``; return the items along every edge."""
    bends: dict[tuple[int, Home, int], int] = {}
    chains = {}
    for source, target in sorted(dag.edges):
        inside = common(home[source], home[target])
        chain = [source]
        for index in range(row[source] + 1, row[target]):
            key = (source, inside, index)
            if key not in bends:
                bends[key] = len(row)
                row.append(index)
                home.append(inside)
            chain.append(bends[key])
        chains[source, target] = (*chain, target)
    return chains


def _fill(row: list[int], home: list[Home]) -> dict[Home, tuple[int, int]]:
    """Append a filler wherever a frame passes a row without items; return the rows each frame spans."""
    used: dict[Home, set[int]] = {frame: set() for frame in frames(home)}
    for index, place in zip(row, home, strict=True):
        for depth in range(1, len(place) + 1):
            used[place[:depth]].add(index)
    spans = {frame: (min(rows), max(rows)) for frame, rows in used.items()}
    for frame, (first, last) in spans.items():
        for index in sorted(set(range(first, last + 1)) - used[frame]):
            row.append(index)
            home.append(frame)
    return spans
