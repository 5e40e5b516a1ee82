"""Means: how far they may be off."""

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
