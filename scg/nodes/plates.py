"""Plates: named replicates, their one order in a graph, and the plates of every node."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from scg.errors import PlateError
from scg.nodes.records import Bound, Record, Sample

Reduce = Literal["mean", "sum"]


@dataclass(frozen=True)
class Plate:
    """Named independent replicates: one leading dimension of every node that lies in it."""

    name: str
    size: int | None = None
    reduce: Reduce = "mean"
    ordered: bool = False
    discount: float = 1.0

    def __post_init__(self) -> None:
        """Refuse options that mean nothing."""
        if self.size is not None and self.size < 1:
            raise PlateError(f"plate '{self.name}' has size {self.size}; a plate has at least one element")
        if self.reduce not in ("mean", "sum"):
            raise PlateError(f"plate '{self.name}': reduce is 'mean' or 'sum', not {self.reduce!r}")
        if not 0.0 < self.discount <= 1.0:
            raise PlateError(f"plate '{self.name}': discount lies in (0, 1], not {self.discount}")
        if self.discount != 1.0 and not self.ordered:
            raise PlateError(f"plate '{self.name}' has a discount but no order: write ordered=True")


def plate_order(plates: Iterable[str], declared: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the one left-to-right order that every declared tuple of plates agrees with.

    >>> plate_order(["b", "a"], [("a", "b")])
    ('a', 'b')
    """
    order = nx.DiGraph()
    order.add_nodes_from(plates)
    for names in declared:
        order.add_edges_from(itertools.pairwise(names))
    position = {name: index for index, name in enumerate(order)}
    try:
        return tuple(nx.lexicographical_topological_sort(order, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        cycle = " left of ".join(f"'{a}'" for a, _ in nx.find_cycle(order))
        raise PlateError(
            f"plates are declared in contradicting orders: {cycle} in a circle; "
            "write plates=(...) in the same order everywhere"
        ) from None


def resolve_layout(
    records: Iterable[Record], order: tuple[str, ...]
) -> tuple[Mapping[str, tuple[str, ...]], list[str]]:
    """Return the plates of every node (those declared, or the union of its parents') and the faults."""
    rank = {name: index for index, name in enumerate(order)}
    unions: dict[frozenset[str], tuple[str, ...]] = {}
    layout: dict[str, tuple[str, ...]] = {}
    faults: list[str] = []
    for record in records:
        union = frozenset().union(*(layout[parent] for parent in record.parents))
        union = union - {record.over} if isinstance(record, Bound) else union
        if record.plates is not None:
            lost = union.difference(record.plates)
            if lost and isinstance(record, Sample):
                faults.append(
                    f"sample '{record.name}' is declared without the plates {sorted(lost)} of its parents: "
                    f"aggregate them first in a g.det(..., plates={record.plates})"
                )
            union = frozenset(record.plates)
        if union not in unions:
            unions[union] = tuple(sorted(union, key=rank.__getitem__))
        layout[record.name] = unions[union]
        if isinstance(record, Sample):
            faults += _apart(record, layout)
    return layout, faults


def _apart(record: Sample, layout: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Say which plates a value that was drawn elsewhere, or its log-probability, lacks."""
    found = []
    for key, name in (("value", record.value), ("behaviour", record.behaviour)):
        lost = [plate for plate in layout[record.name] if name is not None and plate not in layout[name]]
        if lost:
            found.append(
                f"sample '{record.name}' ({record.where}) lies in plates {layout[record.name]}, and its "
                f"{key} '{name}' lacks {lost}: every element has a {key} of its own"
            )
    return found


def padded(
    records: Iterable[Record], layout: Mapping[str, tuple[str, ...]], plates: Mapping[str, Plate]
) -> list[str]:
    """Say which steps are averaged of which some do not exist: the mean would count the padding."""
    faults = []
    for record in records:
        exists = record.exists if isinstance(record, Sample) else None
        several = [plates[name] for name in layout[exists]] if exists is not None else []
        counted = [p.name for p in several if p.ordered and p.reduce == "mean" and p.size is None]
        faults += [
            f"plate '{plate}' is averaged, and '{exists}' says which of its steps exist at '{record.name}' "
            f"({record.where}): the mean would divide by the padding, too. Write "
            f'g.plate("{plate}", ordered=True, reduce="sum"), or its size='
            for plate in counted
        ]
    return faults


Index = tuple[slice | None, ...]


def positions(have: tuple[str, ...], want: tuple[str, ...]) -> Index:
    """Return one index entry for each of ``want``: the dimension it has, or None for a new one of size 1."""
    return tuple(slice(None) if name in have else None for name in want)


def trimmed(index: Index) -> Index | None:
    """Drop the entries at the end that change nothing; None means that none is left."""
    while index and index[-1] is not None:
        index = index[:-1]
    return index or None


def insertion(have: tuple[str, ...], want: tuple[str, ...]) -> Index | None:
    """Return the index that gives leading dimensions ``have`` size-1 dimensions for the rest of ``want``.

    ``want`` contains ``have`` in the same order; None means that nothing is missing.

    >>> insertion(("b",), ("a", "b"))
    (None,)
    """
    return None if have == want else trimmed(positions(have, want))
