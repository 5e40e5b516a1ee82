"""Sizes of plates: read from declarations, parameters and inputs, and held against values."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scg.errors import PlateError
from scg.nodes.ir import IR
from scg.nodes.records import Record


def plate_sizes(ir: IR, inputs: Mapping[str, Tensor]) -> dict[str, int]:
    """Read the size of every plate from declarations, parameters and inputs, which must agree."""
    sizes = {name: plate.size for name, plate in ir.plates.items() if plate.size is not None}
    source = dict.fromkeys(sizes, "its declaration")
    held = {name: ir.store.tensors[name] for name in ir.params}
    for name, value in (*held.items(), *inputs.items()):
        plates = ir.layout[name]
        if value.dim() < len(plates):
            raise PlateError(f"'{name}' lies in plates {plates} but has shape {tuple(value.shape)}")
        for plate, size in zip(plates, value.shape, strict=False):
            if sizes.setdefault(plate, size) != size:
                raise PlateError(
                    f"plate '{plate}' has size {sizes[plate]} by {source[plate]}, but '{name}' has shape "
                    f"{tuple(value.shape)} with {size} elements there"
                )
            source.setdefault(plate, f"'{name}'")
    for plate in ir.plates:
        if sizes.get(plate) == 0:
            raise PlateError(f"plate '{plate}' has no elements in {source[plate]}: give at least one")
        if plate not in sizes:
            raise PlateError(
                f"the size of plate '{plate}' is not known: write g.plate(\"{plate}\", size=...)"
            )
    return sizes


def placed(
    ir: IR, sizes: Mapping[str, int], record: Record, inherited: frozenset[str], value: Tensor
) -> Tensor:
    """Check that a value has the plates of its node, and expand it along those no parent has."""
    plates = ir.layout[record.name]
    for index, plate in enumerate(plates):
        size = value.shape[index] if index < value.dim() else None
        if size != sizes[plate] and not (size == 1 and plate not in inherited):
            raise PlateError(
                f"node '{record.name}' ({record.where}) lies in plates {plates} of sizes "
                f"{tuple(sizes[p] for p in plates)}, but its function returned shape {tuple(value.shape)}: "
                f"keep the plates as leading dimensions, or write plates=(...) for those that it keeps"
            )
    lead = [sizes[plate] for plate in plates]
    return (
        value
        if list(value.shape[: len(plates)]) == lead
        else value.expand(*lead, *value.shape[len(plates) :])
    )
