"""Chains of Normal nodes, each with a mean of its own: how a step grows with the number of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Normal

import scg
from benchmarks.by_hand import chain
from benchmarks.contest import (
    BY_HAND_POOLED,
    BY_HAND_STACKED,
    PYRO,
    STORCHASTIC,
    Contest,
    Loss,
    Settings,
    by_loss,
    entrants,
)
from benchmarks.peers import peer

SIZES, FEW = (10, 30, 100, 300, 1000, 3000), (10, 100)
COMPILED_UP_TO = 100
STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"score": chain.score, "reparam": chain.reparam}


def graph(model: chain.Model, nodes: int) -> scg.Graph:
    """A chain of ``nodes`` nodes, half of them means and half states, with the square of the last as cost."""
    g = scg.Graph("chain")
    x = theta = g.param("theta", model.theta)
    for index in range(nodes // 2):
        x = g.sample(f"x{index}", Normal, g.det(f"m{index}", chain.step, x, theta), chain.SCALE)
    g.cost("cost", x**2)
    return g


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for every length under score and reparam."""
    for policy in STEPS:
        for nodes in FEW if settings.quick else SIZES:
            yield contest(policy, nodes, settings)


def contest(policy: str, nodes: int, settings: Settings) -> Contest:
    """The contenders at one length."""
    model = chain.Model().to(settings.device)
    contenders = entrants(
        model,
        lambda model: scg.compile(graph(model, nodes), policy=policy),
        lambda model: drawing(STEPS[policy], model, nodes // 2),
        {
            PYRO: peer("in_pyro", "chain", count=nodes // 2, estimator=policy),
            STORCHASTIC: peer("in_storchastic", "chain", count=nodes // 2, estimator=policy),
        },
        compiled=settings.compiled and nodes <= COMPILED_UP_TO,
    )
    if policy == "score":
        contenders[BY_HAND_POOLED] = lambda: by_loss(drawing(chain.pooled, model, nodes // 2), model)
        contenders[BY_HAND_STACKED] = lambda: by_loss(drawing(chain.stacked, model, nodes // 2), model)
    return Contest("chain", policy, contenders, size=nodes)


def drawing(step: Callable[[Tensor, Tensor], Tensor], model: chain.Model, count: int) -> Loss:
    """A step by hand that draws its own noise."""
    return lambda: step(model.theta, torch.randn(count, device=model.theta.device))
