"""Exact expectations: finite parts enumerated, Normal parts on a grid whose weights are differentiated.

Parameters of a Normal act through its density alone, so a gradient is right whatever steps a function has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal

FEW = 64
"""Up to so many points a function is called at one after another, and may branch or be NumPy's."""
REACH = 7.0
POINTS = {1: 40_000, 2: 400, 3: 70}
"""Points along each dimension of a grid, by the number of dimensions."""

Weighted = tuple[Tensor, Tensor]
"""Values [points, ...] and their probabilities [points], attached to what they depend on."""


def bits(probs: Tensor) -> Weighted:
    """Return every outcome of independent Bernoulli elements ``probs`` [n]."""
    values = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(probs))), dtype=probs.dtype)
    return values, torch.where(values > 0, probs, 1 - probs).prod(-1)


def normals(loc: Tensor, scale: Tensor) -> Weighted:
    """Return a grid over independent Normal elements ``loc`` [n], which broadcast with ``scale``."""
    loc, scale = torch.broadcast_tensors(loc, scale)
    count = POINTS[len(loc)]
    unit = (torch.arange(count, dtype=torch.double) + 0.5) / count * 2 * REACH - REACH
    grid = torch.cartesian_prod(*[unit] * len(loc)).view(-1, len(loc))
    values = (loc + scale * grid).detach()
    cell = (2 * REACH / count * scale.detach()).prod()
    return values, Normal(loc, scale).log_prob(values).sum(-1).exp() * cell


def mean_of(fn: Callable[[Tensor], Tensor], points: Weighted) -> Tensor:
    """Return the expectation of a function that is written for one point."""
    values, weights = points
    if len(values) <= FEW:
        return torch.stack([w * fn(v) for v, w in zip(values, weights, strict=True)]).sum()
    return (weights * torch.func.vmap(fn)(values)).sum()
