"""Selections: reductions that give one of the elements they read, or a truth or a count of them.

They depend on all that they read, though random numbers in place of the values may hardly ever show it: that
all of many are true, that one of many is the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from scg.probes.dependence import Label
from scg.probes.operation import Operation

SELECTIONS: Final = frozenset(
    "all any max min amax amin aminmax argmax argmin count_nonzero median nanmedian mode kthvalue".split()
)


def selected(
    operation: Operation, label: Label, owners: Tensor, joint: int, outputs: Sequence[Tensor]
) -> list[Tensor]:
    """Return the owners of what a selection gives: of elements with several owners it is a joint.

    >>> from torch.utils import _pytree as pytree
    >>> leaves, spec = pytree.tree_flatten(((torch.ones(2),), {}))
    >>> operation = Operation(torch.ops.aten.all.default, "all", leaves, spec)
    >>> selected(operation, Label("batch", 2), torch.tensor([1, 2]), -1, [torch.tensor(True)])
    [tensor(-1)]
    """
    places = [place for place in _dims(operation) if owners.dim()]
    kept = [place for place in range(owners.dim()) if place not in {p % owners.dim() for p in places}]
    rows = owners.permute(*kept, *(p for p in range(owners.dim()) if p not in kept))
    rows = rows.reshape(*(owners.shape[place] for place in kept), -1)
    latest, lost = rows.amax(-1), rows.amin(-1)
    first = torch.where(rows == 0, latest[..., None], rows).amin(-1)
    if not label.is_ordered:
        latest = torch.where(first == latest, latest, joint)
    found = torch.where(lost < 0, lost, latest)
    return [found.reshape(out.shape) for out in outputs]


def _dims(operation: Operation) -> Sequence[int]:
    """Return the dimensions that a selection works along: all of them where it names none."""
    rank = operation.tensors[0].dim()
    names = [argument.name for argument in operation.function._schema.arguments]
    args, kwargs = operation.arguments
    given = {**dict(zip(names, args, strict=False)), **kwargs}.get("dim")
    if given is None and "dim" in names and operation.name in ("median", "nanmedian", "mode", "kthvalue"):
        given = -1
    several = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    return several or range(rank)
