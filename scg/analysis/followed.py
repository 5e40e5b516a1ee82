"""Followed: elements of plates, followed through a node's function at sizes other than the example's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scg.evaluation.calls import held_by, runner
from scg.evaluation.invoke import seen
from scg.evaluation.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Record
from scg.noise import reseed
from scg.probes.branches import Reads, Ways, ways
from scg.probes.dependence import Label
from scg.probes.provenance import Provenance

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


@dataclass(frozen=True, eq=False)
class Recording:
    """One call of a node's function: what was recorded, what it gave, and where its labels lie in that."""

    provenance: Provenance
    outputs: tuple[Tensor, ...]
    places: Mapping[Label, int]

    def joint(self, label: Label) -> str | None:
        """Name what makes an element of a result read another along a label; None where nothing does."""
        for output in self.outputs:
            owners = self.provenance.owners(label, output)
            place = self.places[label]
            if owners is None or place >= output.dim() or output.shape[place] != label.count:
                continue  # it has not kept the plate, or depends on no element of it
            own = torch.arange(1, label.count + 1).view(-1, *(1,) * (output.dim() - place - 1))
            wrong = (owners < 0) | ((owners > own) if label.is_ordered else (owners != 0) & (owners != own))
            if bool(wrong.any()):
                lowest = int(owners.min())
                return self.provenance.words(lowest) if lowest < 0 else "the places of its elements"
        return None

    def is_unclear(self, label: Label) -> bool:
        """Say whether an operation was met that was not understood."""
        found = [self.provenance.owners(label, output) for output in self.outputs]
        codes = [int(code) for owners in found if owners is not None for code in owners[owners < 0].unique()]
        return any(map(self.provenance.is_unclear, codes))

    @property
    def is_told_apart(self) -> bool:
        """Say whether the function tells elements apart by their place."""
        return self.provenance.is_positional


def sizes_to_try(ir: IR, trace: Trace, record: Record, plates: Sequence[str]) -> list[dict[str, int]]:
    """Return sizes of plates at which to record a function: two that nothing else has, then the example's."""
    values = [leaf for name in record.arguments.names for leaf in tensors(trace.values[name])]
    taken = {size for leaf in (*values, *held_by(ir, record)) for size in leaf.shape}
    free = [prime for prime in PRIMES if prime not in taken]
    some = [dict(zip(plates, free[start:], strict=False)) for start in (0, 3)]
    example = {plate: trace.sizes[plate] for plate in plates}
    return [sizes for sizes in some if len(sizes) == len(plates)] + [example]


def record_call(
    ir: IR,
    trace: Trace,
    record: Record,
    parents: Iterable[str],
    sizes: Mapping[str, int],
    reads: Reads | None = None,
) -> Recording:
    """Call a node's function and follow the elements of some parents along plates of given sizes."""
    values = {name: resized(ir, name, trace.values[name], trace, sizes) for name in record.arguments.names}
    labels = {plate: Label(plate, size, ir.plates[plate].ordered) for plate, size in sizes.items()}
    sources: dict[Label, list[tuple[Tensor, int]]] = {label: [] for label in labels.values()}
    for name in parents:
        for plate, label in labels.items():
            if plate in ir.layout[name]:
                place = ir.layout[name].index(plate)
                sources[label] += [(leaf, place) for leaf in tensors(values[name])]
    args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, values[name]))
    provenance = Provenance(sources, given=tensors(list(values.values())), reads=reads)
    with torch.random.fork_rng(), torch.no_grad():
        reseed(0)
        with provenance:
            value = runner(ir, record)(*args, **kwargs)
    places = {
        label: ir.layout[record.name].index(plate)
        for plate, label in labels.items()
        if plate in ir.layout[record.name]
    }
    return Recording(provenance, tuple(tensors(value)), places)


def resized(ir: IR, name: str, value: Any, trace: Trace, sizes: Mapping[str, int]) -> Any:
    """Return a parent's value with other sizes of plates: elements drawn with replacement, in no order."""

    def leaf(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().clone()
        for place, plate in enumerate(ir.layout[name]):
            if sizes.get(plate, trace.sizes[plate]) != trace.sizes[plate]:
                generator = torch.Generator().manual_seed(place)
                rows = torch.randperm(max(trace.sizes[plate], sizes[plate]), generator=generator)
                chosen = rows[: sizes[plate]] % trace.sizes[plate]
                tensor = tensor.index_select(place, chosen.to(tensor.device))
        return tensor

    return pytree.tree_map_only(Tensor, leaf, value)


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors in a value."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def all_ways(calls: Iterable[Callable[[Reads], Recording]]) -> list[Ways[Recording]]:
    """Return the recordings, on all ways, of the calls that do not raise, as those at other sizes may."""
    found = []
    for call in calls:
        try:
            found.append(ways(call))
        except Exception:  # noqa: BLE001 - of an arbitrary function
            continue
    return found
