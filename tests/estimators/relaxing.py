"""Graphs of one discrete node, and the means of gradients over its noise: those of biased estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, OneHotCategorical

import scg
from tests.estimators.building import of

SQUARE = torch.tensor([[1.0, 0.3, -0.2], [0.3, -0.5, 0.7], [-0.2, 0.7, 0.4]], dtype=torch.double)
SLOPE = of(0.3, -1.0, 0.6)
LOGITS = of(0.4, -0.7, 0.1)


def linear(z: Tensor) -> Tensor:
    return (z * SLOPE).sum(-1)


def quadratic(z: Tensor) -> Tensor:
    return ((z @ SQUARE) * z).sum(-1) + linear(z)


def cubic(z: Tensor) -> Tensor:
    return (z - 0.3) ** 3


def graph(cost: Callable[[Tensor], Tensor], given: str, start: Tensor) -> scg.Graph:
    """One choice where the parameter is a vector, else one bit."""
    g = scg.Graph()
    law = OneHotCategorical if start.dim() else Bernoulli
    g.cost("c", cost, g.sample("z", law, **{given: g.param("theta", start.clone())}))
    return g


def given_probs(given: str, start: Tensor) -> Tensor:
    """The parameter that gives the same law as logits."""
    if given == "logits":
        return start
    return start.softmax(-1) if start.dim() else start.sigmoid()


def forced(start: Tensor) -> list[Tensor]:
    """Noise that gives each outcome: of three, or of two."""
    if not start.dim():
        return [torch.tensor(u, dtype=torch.double) for u in (1e-12, 1 - 1e-12)]
    least = torch.full((3,), 1e-9, dtype=torch.double)
    return [least.index_fill(0, torch.tensor(k), 1 - 2**-53) for k in range(3)]


def outcomes(start: Tensor) -> Tensor:
    """The probability of each outcome, from logits."""
    return start.softmax(-1) if start.dim() else torch.stack((1 - start.sigmoid(), start.sigmoid()))


def gradient(program: scg.Program, **noise: Tensor) -> Tensor:
    """The gradient of one run, under noise by name, "_" standing for "."."""
    program.zero_grad()
    loss: Any = program(noise={name.replace("_", "."): value for name, value in noise.items()}).loss
    loss.backward()
    found = program.get_parameter("theta").grad
    assert found is not None
    return found.clone()


def mean_by_outcome(
    estimator: scg.Estimator, cost: Callable[[Tensor], Tensor], given: str, start: Tensor
) -> Tensor:
    """The mean of an estimate that depends on noise through the value alone; ``start`` are logits."""
    program = scg.compile(graph(cost, given, given_probs(given, start)), estimator, allow_biased=True)
    several = zip(outcomes(start), forced(start), strict=True)
    return torch.stack([mass * gradient(program, z=noise) for mass, noise in several]).sum(0)


def exact(cost: Callable[[Tensor], Tensor], given: str, start: Tensor) -> Tensor:
    return scg.exact_gradient(graph(cost, given, given_probs(given, start)))["theta"]


def midpoints(low: Tensor, high: Tensor, count: int = 4000) -> Tensor:
    """The middles of equal cells."""
    return low + (high - low) * (torch.arange(count, dtype=torch.double) + 0.5) / count
