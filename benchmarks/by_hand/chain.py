"""Steps of a chain and of siblings of Normal nodes by hand: one node after the other, as a loop.

The nodes stand for parts of a model that differ, so no loop runs several of them in one operation; what
can be shared among all of them, the noise and the sum, is. ``pooled`` knows besides that all scales are
equal, and ``stacked`` that all nodes are alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SCALE = 0.5


class Model(nn.Module):
    """The one parameter."""

    def __init__(self) -> None:
        """Start at 0.1."""
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.1))


def step(x: Tensor, theta: Tensor) -> Tensor:
    """Return the mean of the next state."""
    return 0.9 * x + theta


def score(theta: Tensor, noise: Tensor) -> Tensor:
    """The score function along a chain with the square of the last state as its cost."""
    x, logs = theta, []
    for eps in (SCALE * noise).unbind():
        mean = step(x, theta)
        x = mean.detach() + eps
        logs.append(log_prob(x, mean))
    weighted = torch.stack(logs).sum() * (x**2).detach()
    return x**2 + (weighted - weighted.detach())


def log_prob(x: Tensor, mean: Tensor) -> Tensor:
    """The density of a state, as the formula says."""
    return -((x - mean) ** 2) / (2 * SCALE**2) - math.log(SCALE) - math.log(2 * math.pi) / 2


def pooled(theta: Tensor, noise: Tensor) -> Tensor:
    """The score function along a chain of equal scales, of which only the squares depend on parameters."""
    x, squares = theta, []
    for eps in (SCALE * noise).unbind():
        mean = step(x, theta)
        x = mean.detach() + eps
        squares.append((x - mean).square())
    return x**2 + surrogate(torch.stack(squares), x**2)


def reparam(theta: Tensor, noise: Tensor) -> Tensor:
    """The pathwise derivative along a chain."""
    x: Tensor = theta
    for eps in (SCALE * noise).unbind():
        x = step(x, theta) + eps
    return x**2


def stacked(theta: Tensor, noise: Tensor) -> Tensor:
    """The score function, if all nodes are alike: sampled without gradients, then all densities at once."""
    with torch.no_grad():
        states = [theta.detach()]
        for eps in (SCALE * noise).unbind():
            states.append(step(states[-1], theta) + eps)
        xs = torch.stack(states)
    before = torch.cat((theta.unsqueeze(0), xs[1:-1]))
    return xs[-1] ** 2 + surrogate((xs[1:] - step(before, theta)).square(), xs[-1] ** 2)


def siblings_score(theta: Tensor, noise: Tensor) -> Tensor:
    """The score function of siblings with the square of their mean as the cost."""
    xs, logs = [], []
    for index, eps in enumerate((SCALE * noise).unbind()):
        mean = theta * (1 / (index + 1))
        xs.append(mean.detach() + eps)
        logs.append(log_prob(xs[-1], mean))
    cost = torch.stack(xs).mean() ** 2
    weighted = torch.stack(logs).sum() * cost.detach()
    return cost + (weighted - weighted.detach())


def siblings_reparam(theta: Tensor, noise: Tensor) -> Tensor:
    """The pathwise derivative of siblings."""
    xs = [theta * (1 / (index + 1)) + eps for index, eps in enumerate((SCALE * noise).unbind())]
    return torch.stack(xs).mean() ** 2


def surrogate(squares: Tensor, cost: Tensor) -> Tensor:
    """Zero, with the gradient of ``cost log q``; ``squares`` are those of values less their means."""
    log_q = squares.sum() * (-0.5 / SCALE**2)
    weighted = log_q * cost.detach()
    return weighted - weighted.detach()
