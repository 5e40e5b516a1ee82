"""The inner gradient of control variates: one call for all points, eager or compiled by torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Variates = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def with_slopes(variates: Variates, points: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return the control variates at the points, and the derivatives of their sum, attached to parameters."""
    if torch.compiler.is_compiling():

        def summed(points: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
            found = variates(points)
            return torch.stack([c.sum() for c in found]).sum(), found

        slopes, found = torch.func.grad(summed, has_aux=True)(points)
        return found, slopes
    leaves = [point.requires_grad_() for point in points]
    found = variates(leaves)
    ones = [torch.ones_like(c) for c in found]
    return found, torch.autograd.grad(found, leaves, ones, create_graph=True)
