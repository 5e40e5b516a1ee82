"""Siblings: Normal nodes side by side, each with a mean of its own, under one cost of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Normal

import scg
from benchmarks.by_hand import chain
from benchmarks.contest import PYRO, STORCHASTIC, Contest, Settings, entrants
from benchmarks.peers import peer
from benchmarks.problems.chain import COMPILED_UP_TO, FEW, SIZES, drawing

STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "score": chain.siblings_score,
    "reparam": chain.siblings_reparam,
}


def graph(model: chain.Model, count: int) -> scg.Graph:
    """``count`` siblings, with the square of their mean as cost."""
    g = scg.Graph("siblings")
    theta = g.param("theta", model.theta)
    xs = [g.sample(f"x{i}", Normal, theta * (1 / (i + 1)), chain.SCALE) for i in range(count)]
    g.cost("cost", mean_squared, xs)
    return g


def mean_squared(xs: list[Tensor]) -> Tensor:
    """The square of the mean."""
    return torch.stack(xs).mean(0) ** 2


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for every number of siblings under score and reparam."""
    for policy in STEPS:
        for count in FEW if settings.quick else SIZES:
            yield contest(policy, count, settings)


def contest(policy: str, count: int, settings: Settings) -> Contest:
    """The contenders at one number of siblings."""
    contenders = entrants(
        chain.Model().to(settings.device),
        lambda model: scg.compile(graph(model, count), policy=policy),
        lambda model: drawing(STEPS[policy], model, count),
        {
            PYRO: peer("in_pyro", "siblings", count=count, estimator=policy),
            STORCHASTIC: peer("in_storchastic", "siblings", count=count, estimator=policy),
        },
        compiled=settings.compiled and count <= COMPILED_UP_TO,
    )
    return Contest("siblings", policy, contenders, size=count)
