"""Chains of Normal nodes, as graphs and as loops written by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal

import scg

LOG_ROOT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def step(x: Tensor, theta: Tensor) -> Tensor:
    """Return the mean of the next state."""
    return 0.9 * x + theta


def normal_chain(length: int) -> scg.Graph:
    """Return theta -> m0 -> x0 -> m1 -> x1 -> ..., with the square of the last state as the cost.

    ``length`` counts the graph's nodes: half of them are means, half are states.
    """
    graph = scg.Graph("chain")
    theta = graph.param("theta", 0.1)
    x = theta
    for index in range(length // 2):
        mean = graph.det(f"m{index}", step, x, theta)
        x = graph.sample(f"x{index}", Normal, mean, 1.0)
    graph.cost("cost", x**2)
    return graph


def score_by_hand(theta: nn.Parameter, length: int) -> None:
    """Run one score-function step of the chain in plain torch, as an expert would write it."""
    noise = torch.randn(length // 2).unbind()
    scale = torch.ones(())
    x, log_probs = theta.detach(), []
    for eps in noise:
        mean = step(x, theta)
        x = (mean + scale * eps).detach()
        log_probs.append(-0.5 * ((x - mean) / scale) ** 2 - scale.log() - LOG_ROOT_TWO_PI)
    cost = x**2
    surrogate = torch.stack(log_probs).sum() * cost.detach()
    (cost + (surrogate - surrogate.detach())).backward()


def reparam_by_hand(theta: nn.Parameter, length: int) -> None:
    """Run one pathwise step of the chain in plain torch."""
    scale = torch.ones(())
    x: Tensor = theta
    for eps in torch.randn(length // 2).unbind():
        x = step(x, theta) + scale * eps
    (x**2).backward()
