"""Functions that join elements of a dimension, behind a factor that may be 0 or asleep below a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Join = Callable[[Any, Tensor], Tensor]
"""``join(s, z)`` joins elements of z along its last dimension with strength s, not at all where s is 0."""


def pairwise(s: Any, z: Tensor) -> Tensor:
    return z + s * (z[..., :, None] - z[..., None, :]).square().sum(-1)


def attention(s: Any, z: Tensor) -> Tensor:
    scores = (z[..., :, None] * z[..., None, :]).softmax(-1)
    return z + s * (scores @ z[..., None])[..., 0]


def convolved(s: Any, z: Tensor) -> Tensor:
    weight = torch.tensor([[[0.5, 0.2, 0.7]]], dtype=z.dtype)
    return z + s * F.conv1d(z.reshape(-1, 1, z.shape[-1]), weight, padding=1).reshape(z.shape)


def shuffled(s: Any, z: Tensor) -> Tensor:
    order = torch.tensor([*range(1, z.shape[-1]), 0])
    return z + s * z[..., order]


def looped(s: Any, z: Tensor) -> Tensor:
    total = torch.zeros_like(z[..., 0])
    for part in z.unbind(-1):
        total = total + part
    return z + s * total[..., None]


def scattered(s: Any, z: Tensor) -> Tensor:
    group = torch.zeros(z.shape[-1], dtype=torch.long)
    total = torch.zeros_like(z[..., :1]).index_add(z.dim() - 1, group, z)
    return z + s * total


JOINS: dict[str, Join] = {
    "mean": lambda s, z: z + s * z.mean(-1, keepdim=True),
    "sum": lambda s, z: z + s * z.sum(-1, keepdim=True),
    "mean alone": lambda s, z: s * z.mean(-1, keepdim=True) + 0 * z,
    "softmax": lambda s, z: z + 1.5 * s * torch.softmax(3 * z, -1),
    "logsumexp": lambda s, z: z + s * z.logsumexp(-1, keepdim=True),
    "cumsum": lambda s, z: z + s * z.cumsum(-1),
    "flip": lambda s, z: z + s * z.flip(-1),
    "roll": lambda s, z: z + s * z.roll(1, -1),
    "shuffle": shuffled,
    "max": lambda s, z: z + s * z.max(-1, keepdim=True).values,
    "norm": lambda s, z: z + s * z.norm(dim=-1, keepdim=True),
    "centred": lambda s, z: z - s * 2 * (z - z.mean(-1, keepdim=True)),
    "spread": lambda s, z: z + s * z.var(-1, correction=0, keepdim=True),
    "einsum": lambda s, z: z + s * torch.einsum("...i->...", z)[..., None],
    "matmul": lambda s, z: z + s * (z @ torch.ones(z.shape[-1], z.shape[-1], dtype=z.dtype)),
    "layer norm": lambda s, z: z + s * F.layer_norm(z, z.shape[-1:], eps=0.1),
    "pairwise": pairwise,
    "attention": attention,
    "convolution": convolved,
    "loop": looped,
    "index_add": scattered,
    "fft": lambda s, z: z + s * torch.fft.fft(z).real,
    "product": lambda s, z: z + s * (z + 1.0).prod(-1, keepdim=True),
}

QUADRATIC = frozenset({"pairwise", "attention", "matmul", "loop"})
"""Those that are slow where many elements are joined."""

Sleeper = Callable[[Tensor], Tensor]

SLEEPERS: dict[str, Sleeper] = {
    "clamp by the norm": lambda z: z * torch.clamp(1.5 / (z.norm(dim=-1, keepdim=True) + 1e-6), max=1.0),
    "minimum by the norm": lambda z: (
        z * torch.minimum(torch.ones(1, dtype=z.dtype), 1.2 / (z.square().sum(-1, keepdim=True) + 1e-6))
    ),
    "divided by a clamped norm": lambda z: z / z.abs().sum(-1, keepdim=True).clamp(min=1.5),
    "rectified sum": lambda z: z + torch.relu(z.sum(-1, keepdim=True) - 1.2),
    "where on the sum": lambda z: torch.where(z.sum(-1, keepdim=True) > 1.5, 1.7 * z + 0.4, z),
    "where on the maximum": lambda z: torch.where(z.amax(-1, keepdim=True) > 0.9, 0.3 * z.flip(-1), z),
    "threshold of the mean": lambda z: z + 2 * F.threshold(z.mean(-1, keepdim=True), 0.6, 0.0),
    "shrunk mean": lambda z: z + 2 * F.softshrink(z.mean(-1, keepdim=True), 0.5),
    "saturated": lambda z: z + F.relu6(4 * z.sum(-1, keepdim=True) - 3.0),
}
"""Functions that are the identity while values are small, and join elements once they are not."""
