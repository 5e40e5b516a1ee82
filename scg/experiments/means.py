"""Means: how far they may be off, and how tables say so."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def standard_error(values: Tensor) -> Tensor:
    """Return the standard error of the mean over the last dimension, NaN for a single value."""
    count = values.shape[-1]
    if count < 2:
        return torch.full(values.shape[:-1], math.nan, dtype=values.dtype)
    return values.std(-1) / math.sqrt(count)


def shown(values: Tensor, digits: int, *, sign: str = "") -> tuple[str, str]:
    """Return the mean of values and its standard error as texts, which is empty for a single value.

    >>> shown(torch.tensor([1.0, 3.0]), 2), shown(torch.tensor([1.0]), 2, sign="+")
    (('2.00', '1.00'), ('+1.00', ''))
    """
    mean, error = float(values.double().mean()), float(standard_error(values.double()))
    return f"{mean:{sign}.{digits}f}", "" if values.shape[-1] < 2 else f"{error:.{digits}f}"
