"""Second derivatives: whether torch has those of a function, and whether a function brings its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction


class Twice(NamedTuple):
    """Why something cannot be differentiated twice, or None; and whether it has an ``autograd.Function``."""

    fault: str | None
    is_opaque: bool


def attached(value: Tensor) -> Tensor:
    """Return a leaf of the same value, which requires a gradient if it can."""
    leaf = value.detach().clone()
    return leaf.requires_grad_() if leaf.is_floating_point() else leaf


def is_attached(value: Any) -> bool:
    """Whether a value is a tensor through which a gradient flows."""
    return isinstance(value, Tensor) and value.requires_grad


def differentiated_twice(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> Twice:
    """Differentiate outputs in leaves and the derivatives once more, and say what was met."""
    if not outputs or not leaves:
        return Twice(None, False)
    opaque = any(map(_is_opaque, outputs))
    try:
        total = torch.stack([output.sum() for output in outputs]).sum()
        first = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
        sizes = [part.square().sum() for part in first if part is not None and part.requires_grad]
        if sizes:
            torch.autograd.grad(torch.stack(sizes).sum(), leaves, allow_unused=True)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        return Twice(f"it cannot be differentiated twice, as control variates are: {reason}", opaque)
    return Twice(None, opaque)


def _is_opaque(output: Tensor) -> bool:
    """Whether an ``autograd.Function`` of the user's own lies on the way to an output."""
    waiting: list[Any] = [output.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, BackwardCFunction):
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False
