"""Bounds: costs that are -log of the mean of exp(-term) over a plate, and what they cannot be of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx
from torch import Tensor

from scg.nodes.plates import Plate
from scg.nodes.records import Bound, Cost, Function, Record, Sample


@dataclass(frozen=True)
class LogMeanExp:
    """-log mean exp(-terms) along one dimension, counted from the last.

    >>> import torch
    >>> round(float(LogMeanExp(-1)(torch.tensor([1000.0, 1001.0]))), 4)
    1000.3799
    """

    dim: int

    def __call__(self, terms: Tensor) -> Tensor:
        """Return the bound, one dimension less."""
        return math.log(terms.shape[self.dim]) - (-terms).logsumexp(self.dim)


def settled(record: Record, layout: Mapping[str, tuple[str, ...]]) -> Record:
    """Return a record that knows where its plate lies, if it is a bound."""
    if not isinstance(record, Bound):
        return record
    plates = layout[record.terms]
    call = LogMeanExp(plates.index(record.over) - len(plates))
    return replace(record, fn=Function(call, label=record.fn.label))


def unbounded(
    records: Sequence[Record], layout: Mapping[str, tuple[str, ...]], plates: Mapping[str, Plate]
) -> list[str]:
    """Say of what there is no bound: terms that have not its plate, or not all of it, and other costs."""
    several = [record for record in records if isinstance(record, Bound)]
    faults, known = list[str](), {record.name: record for record in records}
    above = _edges(records) if several else nx.DiGraph()
    for bound in several:
        who, plate = f"bound '{bound.name}' ({bound.where})", bound.over
        if isinstance(known[bound.terms], Cost):
            faults.append(
                f"{who} is of '{bound.terms}', a cost, which would count by itself too: declare that as "
                "g.det, or as arithmetic of nodes"
            )
        if plate not in layout[bound.terms]:
            there = ", ".join(layout[bound.terms]) or "none"
            faults.append(f"{who} is over '{plate}', and the plates of '{bound.terms}' are {there}")
            continue
        if plates[plate].ordered:
            faults.append(f"{who} is over '{plate}', an ordered plate, whose steps are no samples of one law")
        masked = [name for name in nx.ancestors(above, bound.terms) if _is_masked(known[name], plate, layout)]
        if masked:
            faults.append(f"{who} is over '{plate}', of which some elements of '{masked[0]}' do not exist")
    return faults


def _edges(records: Iterable[Record]) -> nx.DiGraph:
    return nx.DiGraph((parent, record.name) for record in records for parent in record.parents)


def _is_masked(record: Record, plate: str, layout: Mapping[str, tuple[str, ...]]) -> bool:
    return isinstance(record, Sample) and record.exists is not None and plate in layout[record.exists]
