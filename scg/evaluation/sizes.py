"""Sizes of plates: read from declarations, parameters and inputs, and held against values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scg.errors import PlateError
from scg.nodes.ir import IR
from scg.nodes.records import Record
from scg.nodes.trees import placed_leaves


def plate_sizes(ir: IR, inputs: Mapping[str, Any]) -> dict[str, int]:
    """Read the size of every plate from declarations, parameters and inputs, which must agree."""
    sizes = {name: plate.size for name, plate in ir.plates.items() if plate.size is not None}
    source = dict.fromkeys(sizes, "its declaration")
    held = {name: ir.store.tensors[name] for name in ir.params}
    for name, value in (*held.items(), *inputs.items()):
        plates = ir.layout[name]
        for path, leaf in [(name, value)] if isinstance(value, Tensor) else placed_leaves(name, value):
            if leaf.dim() < len(plates):
                raise PlateError(f"'{path}' lies in plates {plates} but has shape {tuple(leaf.shape)}")
            for plate, size in zip(plates, leaf.shape, strict=False):
                if sizes.setdefault(plate, size) != size:
                    raise PlateError(
                        f"plate '{plate}' has size {sizes[plate]} by {source[plate]}, but '{path}' has shape "
                        f"{tuple(leaf.shape)} with {size} elements there"
                    )
                source.setdefault(plate, f"'{path}'")
    for plate in ir.plates:
        if sizes.get(plate) == 0:
            raise PlateError(f"plate '{plate}' has no elements in {source[plate]}: give at least one")
        if plate not in sizes:
            raise PlateError(
                f"the size of plate '{plate}' is not known: write g.plate(\"{plate}\", size=...)"
            )
    return sizes


def placed(
    ir: IR, sizes: Mapping[str, int], record: Record, inherited: frozenset[str], value: Tensor, path: str
) -> Tensor:
    """Check that a value has the plates of its node, and expand it along those no parent has.

    ``path`` says where in the value of the node it stands.
    """
    plates = ir.layout[record.name]
    for index, plate in enumerate(plates):
        size = value.shape[index] if index < value.dim() else None
        if size != sizes[plate] and not (size == 1 and plate not in inherited):
            where = "" if path == record.name else f" in {path}"
            raise PlateError(
                f"node '{record.name}' ({record.where}) lies in plates {plates} of sizes "
                f"{tuple(sizes[p] for p in plates)}, but its function returned shape "
                f"{tuple(value.shape)}{where}: "
                f"keep the plates as leading dimensions, or write plates=(...) for those that it keeps"
            )
    lead = [sizes[plate] for plate in plates]
    return (
        value
        if list(value.shape[: len(plates)]) == lead
        else value.expand(*lead, *value.shape[len(plates) :])
    )
