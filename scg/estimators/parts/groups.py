"""Groups: elements that a baseline compares, and how far their credit is apart."""

from __future__ import annotations

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.parts.baselines import Baseline

ALIKE = 16
"""Credit that is apart by so many roundings is the same."""


def group_of(baseline: Baseline) -> str:
    """Return the axis along which a baseline compares elements."""
    axis = baseline.asks().independent
    if axis is None:
        raise EstimatorError(
            "normalise='group' is of the elements that the baseline compares, and this one compares none: "
            'give baseline="leave-one-out", or scg.LeaveOneOut(axis) of a plate'
        )
    return axis


def deviation(credit: Tensor, dim: int) -> Tensor:
    """Return the standard deviation along an axis, its squares over n - 1; infinity where all are the same.

    What does not exist counts as a credit of 0, as it does in the mean over the others.

    >>> deviation(torch.tensor([1.0, 3.0, 5.0]), 0)
    tensor([2.])
    """
    if credit.shape[dim] < 2:
        return torch.full_like(credit, torch.inf)
    found = credit.std(dim, keepdim=True)
    least = ALIKE * torch.finfo(credit.dtype).eps * credit.abs().amax(dim, keepdim=True)
    return torch.where(found > least, found, torch.inf)
