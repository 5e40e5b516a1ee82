"""Values drawn elsewhere, and elements that do not exist: taken for what they are, and selected out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scg.errors import GraphError
from scg.evaluation.densities import Density
from scg.evaluation.invoke import call, seen
from scg.laws import Law, broadcast, can_look, is_seen_finite
from scg.nodes import trees
from scg.nodes.ir import IR
from scg.nodes.records import Record, Sample


class Existing(NamedTuple):
    """Which elements exist, [*lead], and the place of the first that does, counted flat.

    There is no place where a look told that all do.
    """

    mask: Tensor
    first: Tensor | None


def existing(mask: Tensor) -> Existing:
    """Return which elements a mask of zeros and ones says exist.

    >>> existing(torch.tensor([0.0, 1.0, 1.0])).first.item()
    1
    """
    if mask.dtype != torch.bool:
        wrong = (mask != 0) & (mask != 1)
        if can_look(mask) and bool(wrong.any()):
            raise GraphError(f"where= is 0 or 1 for every element, found {mask[wrong].flatten()[0].item()}")
        mask = mask != 0
    if can_look(mask) and bool(mask.all()):
        return Existing(mask, None)
    return Existing(mask, mask.flatten().to(torch.uint8).argmax())


def filled(value: Tensor, exists: Existing) -> Tensor:
    """Put a detached copy of an element that exists, [*lead, ...], in the place of those that do not.

    What is computed of it is then as finite as it is there, and no gradient reaches what was recorded.
    """
    mask, rank = exists.mask, exists.mask.dim()
    if not rank or exists.first is None:
        return value
    lead = broadcast(value.shape[:rank], mask.shape)
    full = value if value.shape[:rank] == lead else value.expand(lead + value.shape[rank:])
    first = exists.first if lead == mask.shape else mask.expand(lead).flatten().to(torch.uint8).argmax()
    copy = full.detach().flatten(0, rank - 1).index_select(0, first.view(1))[0]
    return torch.where(spread(mask, full), full, copy)


def filled_value(value: Tensor, exists: Existing) -> Tensor:
    """Do the same to a value, which is 0 where nothing exists at all: it is an index, perhaps."""
    found = filled(value, exists)
    return found if exists.first is None else torch.where(exists.mask.any(), found, torch.zeros_like(found))


def healed(ir: IR, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs that are 0 where they are not finite and nothing exists.

    A gradient of 0, times what is not finite, would be NaN.
    """
    found = dict(inputs)
    for name, several in ir.partial_inputs.items():
        if name in inputs and all(isinstance(inputs.get(mask), Tensor) for mask in several):
            leaves = [leaf for leaf in trees.tensors(inputs[name]) if leaf.is_floating_point()]
            if not all(map(is_seen_finite, leaves)):
                masks = [present(ir, inputs, ir[name], mask).mask for mask in several]
                exists = reduce(torch.logical_or, masks)
                found[name] = trees.tree_map_only(Tensor, partial(_healed, exists), inputs[name])
    return found


def _healed(exists: Tensor, leaf: Tensor) -> Tensor:
    if not leaf.is_floating_point() or leaf.dim() < exists.dim():
        return leaf
    return torch.where(spread(exists, leaf) | leaf.isfinite(), leaf, torch.zeros_like(leaf))


def selected(value: Tensor, *masks: Tensor) -> Tensor:
    """Put 0 in the place of elements, [*lead], that exist by none of several masks.

    >>> selected(torch.tensor([torch.nan, 2.0]), torch.tensor([False, True]))
    tensor([0., 2.])
    """
    mask = reduce(torch.logical_or, masks) if len(masks) > 1 else masks[0]
    return torch.where(mask if mask.dtype == torch.bool else mask != 0, value, 0.0)


def kept_of(value: Tensor, exists: Existing) -> Tensor:
    """Put 0 in the place of elements, [*lead], that do not exist."""
    return value if exists.first is None else selected(value, exists.mask)


def spread(mask: Tensor, like: Tensor) -> Tensor:
    """Give a mask [*lead] size-1 dimensions for the rest of another tensor."""
    return mask[(..., *(None,) * (like.dim() - mask.dim()))]


def taken(
    parameters: Mapping[str, Tensor], value: Tensor, dtype: torch.dtype, bounds: tuple[float, float] | None
) -> Tensor:
    """Return a value that was drawn elsewhere in the type of one drawn here; hold it against its support.

    The ``parameters`` are those of its law, for whoever looks at the call.
    """
    value = value.detach().to(dtype)
    if bounds is not None and can_look(value) and value.numel():
        low, high = (end.item() for end in torch.aminmax(value))
        is_whole = not value.is_floating_point() or bool((value == value.floor()).all())
        if low < bounds[0] or high > bounds[1] or not is_whole:
            raise GraphError(
                f"its value is outside of its support: a whole number from {bounds[0]:g} to {bounds[1]:g} is "
                f"wanted, and there are values from {low:g} to {high:g}"
            )
    return value


def bounds_of(law: Law, parameters: Mapping[str, Tensor]) -> tuple[float, float] | None:
    """Return the least and the largest value of a law of whole numbers, where they are few."""
    if not law.finite or law.value_rank:
        return None
    support = law.support(parameters)
    is_whole = bool((support == support.floor()).all()) if support.is_floating_point() else True
    step = support.sort().values.diff()
    return (float(support.min()), float(support.max())) if is_whole and bool((step == 1).all()) else None


def present(ir: IR, values: Mapping[str, Any], record: Record, exists: str) -> Existing:
    """Return which elements of a node exist."""
    return existing(seen(ir, record, exists, values[exists]))


def check_stated(ir: IR, values: Mapping[str, Any], record: Sample) -> None:
    """Refuse what says which elements exist, or how likely they were, unless it is one number for each."""
    for key, name in (("where", record.exists), ("behaviour", record.behaviour)):
        if name is None:
            continue
        value, plates = values[name], ir.layout[name]
        if not isinstance(value, Tensor) or value.dim() != len(plates):
            raise GraphError(
                f"sample '{record.name}' ({record.where}): its {key} '{name}' has {_kind(value)}, and one "
                f"number for each element of its plates {plates} is wanted"
            )


def _kind(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"


def of_existing(ir: IR, values: Mapping[str, Any], record: Sample, density: Density) -> Density:
    """Return the density of a sample, with the parameters of an element that exists where one does not."""
    if record.exists is None:
        return density
    exists = present(ir, values, record, record.exists)
    found = {
        name: filled(value, exists) if density.plated[name] else value
        for name, value in density.parameters.items()
    }
    return replace(density, parameters=found)


def given_value(ir: IR, values: Mapping[str, Any], record: Sample, density: Density, like: Tensor) -> Tensor:
    """Return the value that was drawn elsewhere, which is to be ``like`` one that is drawn here."""
    assert record.value is not None
    value, what = values[record.value], f"its value '{record.value}'"
    if not isinstance(value, Tensor) or value.shape != like.shape:
        raise GraphError(
            f"sample '{record.name}' ({record.where}): {what} has {_kind(value)}, and a draw from its "
            f"{density.law.family} has shape {tuple(like.shape)}"
        )
    is_there = True
    if record.exists is not None:
        exists = present(ir, values, record, record.exists)
        value, is_there = filled_value(value, exists), bool(exists.mask.any())
    found: Tensor = call(
        record, taken, ({}, value, like.dtype, bounds_of(density.law, density.parameters)), {}
    )
    if is_there and not _is_inside(density, found):
        raise GraphError(
            f"sample '{record.name}' ({record.where}): {what} is outside of the support of its "
            f"{density.law.family}"
        )
    return found


def _is_inside(density: Density, value: Tensor) -> bool:
    """Say whether a value is in the support of a law, as far as that is told."""
    try:
        support = density.law.distribution(dict(density.parameters)).support
    except (NotImplementedError, AttributeError):
        return True
    return support is None or bool(support.check(value).all())


def of_existing_elements(ir: IR, values: Mapping[str, Any], record: Record, value: Any) -> Any:
    """Return the value of a cost, 0 for elements that do not exist."""
    several = ir.masks.get(record.name, ())
    if not several or not isinstance(value, Tensor):
        return value
    return selected(value, *(seen(ir, record, mask, values[mask]) for mask in several))
