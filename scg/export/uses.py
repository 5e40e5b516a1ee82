"""Uses: where a part of a program finds the values that it is given, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scg.export.tape import Given, Ref
from scg.nodes import trees


def places(known: Mapping[int, Ref], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Ref, Given]:
    """Return where a part finds the known values among its arguments."""
    found: dict[Ref, Given] = {}
    several: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for root, value in several:
        for place, leaf in trees.placed_leaves("", value):
            ref = known.get(id(leaf)) if isinstance(leaf, Tensor) else None
            if ref is not None:
                found.setdefault(ref, Given(root, place, not leaf.requires_grad))
    return found


def seen(known: Mapping[int, Ref], value: Any) -> Any:
    """Return the numbers of known values in what a part takes or gives, and all else as it is."""
    if isinstance(value, (tuple, list)):
        return tuple(seen(known, item) for item in value)
    if type(value) is dict:
        return {key: seen(known, item) for key, item in value.items()}
    return known.get(id(value), value) if isinstance(value, Tensor) else value
