"""What is left of the variance that actions cause, with and without baselines, exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

DRAWS = 2000


def scores(p: Tensor) -> Tensor:
    """Return the score of every action in the logits, [..., action] -> [..., action, logit]."""
    return torch.eye(p.shape[-1], dtype=p.dtype) - p.unsqueeze(-2)


def action_variance(p: Tensor, q: Tensor, baseline: Tensor) -> Tensor:
    """Return the variance of (Q(a) - b) dlog p(a) over actions, summed over logits, [...].

    ``p`` and ``q`` are the probability and the mean cost of every action, [..., action].

    >>> float(action_variance(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 3.0]), torch.tensor(2.0)))
    0.0
    """
    estimates = (q - baseline.unsqueeze(-1)).unsqueeze(-1) * scores(p)
    mean = (p.unsqueeze(-1) * estimates).sum(-2)
    return (p * estimates.square().sum(-1)).sum(-1) - mean.square().sum(-1)


def best_baseline(p: Tensor, q: Tensor) -> Tensor:
    """Return the b of least variance, E |dlog p|^2 Q / E |dlog p|^2 (Greensmith et al., 2004)."""
    weight = p * scores(p).square().sum(-1)
    return (weight * q).sum(-1) / weight.sum(-1)


def baselines(p: Tensor, q: Tensor) -> Mapping[str, Tensor]:
    """Return baselines of the state by name: none, its value, and the best there is."""
    return {
        "no baseline": torch.zeros_like(p[..., 0]),
        "V(s)": (p * q).sum(-1),
        "best baseline": best_baseline(p, q),
    }


def residuals(actions: int, seed: int, draws: int = DRAWS) -> dict[str, float]:
    """Return mean variances over random policies and costs, softmax of N(0, 1) and N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, draws, actions, generator=generator, dtype=torch.float64)
    p, q = drawn[0].softmax(-1), drawn[1]
    found = {name: float(action_variance(p, q, b).mean()) for name, b in baselines(p, q).items()}
    return {**found, "ideal c(s, a)": 0.0}
