"""Extent: how many elements an operation would give, told without running it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

ELEMENTS: Final = 2**16
"""How many elements are many, where the operation is given fewer."""


def is_large(function: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Say whether an operation would give many elements, and more than four times those it is given.

    What depends on values, such as ``nonzero``, never is.

    >>> [is_large(torch.ops.aten.zeros.default, ([10, count],), {}) for count in (10, 10**9)]
    [False, True]
    """
    leaves = pytree.tree_leaves((args, dict(kwargs)))
    sizes = [leaf.numel() for leaf in leaves if isinstance(leaf, Tensor)]
    numbers = [abs(leaf) for leaf in leaves if isinstance(leaf, (int, float)) and math.isfinite(leaf)]
    many = max(ELEMENTS, 4 * max(sizes, default=0))
    if math.prod(max(1, number) for number in (*sizes, *numbers)) <= many:
        return False
    return _count(function, args, kwargs) > many


def _count(function: Any, args: Any, kwargs: Mapping[str, Any]) -> int:
    """Return how many elements the results have, as far as that does not depend on values."""
    meta = torch.device("meta")
    args, named = pytree.tree_map_only(Tensor, lambda leaf: leaf.to(meta), (args, dict(kwargs)))
    if any(argument.name == "device" for argument in function._schema.arguments):
        named["device"] = meta
    try:
        results = pytree.tree_leaves(function(*args, **named))
    except Exception:  # noqa: BLE001 - of operations that have no shapes alone; wrong arguments raise again
        return 0
    return sum(leaf.numel() for leaf in results if isinstance(leaf, Tensor))
