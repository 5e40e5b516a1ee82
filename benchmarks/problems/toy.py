"""The toy problem of the REBAR and RELAX papers, E (b - t)^2 over one coin b, with 1,000 replicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli

import scg
from benchmarks.by_hand import toy
from benchmarks.contest import PYRO, STORCHASTIC, Contest, Job, Settings, entrants
from benchmarks.peers import peer

REPLICATES = 1000


@dataclass(frozen=True)
class Row:
    """An estimator of the toy: what scg is told, the loss by hand, and steps in other libraries."""

    name: str
    policy: Callable[[toy.Model], Any]
    loss: Callable[[toy.Model, int], Tensor]
    peers: dict[str, Callable[..., Job]] = field(default_factory=dict)


def graph(model: toy.Model) -> scg.Graph:
    """One coin and its cost."""
    g = scg.Graph("toy")
    b = g.sample("b", Bernoulli, logits=g.param("theta", model.theta))
    g.cost("loss", (b - toy.T) ** 2)
    return g


storchastic, pyro = partial(peer, "in_storchastic", "toy"), partial(peer, "in_pyro", "toy")

ROWS = (
    Row(
        "score",
        lambda m: "score",
        lambda m, k: toy.score_step(m, *toy.draw(m, k, 1)),
        {PYRO: pyro(estimator="score"), STORCHASTIC: storchastic(estimator="score")},
    ),
    Row(
        "score, leave one out",
        lambda m: scg.Score(baseline="leave-one-out"),
        lambda m, k: toy.score_step(m, *toy.draw(m, k, 1), toy.leave_one_out),
        {STORCHASTIC: storchastic(estimator="score", baseline="batch_average")},
    ),
    Row(
        "enumerate",
        lambda m: "enumerate",
        lambda m, k: toy.exact_step(m),
        {PYRO: pyro(estimator="enumerate"), STORCHASTIC: storchastic(estimator="enumerate")},
    ),
    Row(
        "rebar",
        lambda m: "rebar",
        lambda m, k: toy.controlled_step(m, *toy.draw(m, k, 2), network=False),
        {STORCHASTIC: storchastic(estimator="rebar")},
    ),
    Row(
        "relax",
        lambda m: scg.RELAX(net=m.net),
        lambda m, k: toy.controlled_step(m, *toy.draw(m, k, 2), network=True),
        {STORCHASTIC: storchastic(estimator="relax")},
    ),
)


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for every estimator."""
    for row in ROWS:
        yield contest(row, REPLICATES, settings)


def contest(row: Row, replicates: int, settings: Settings) -> Contest:
    """The contenders of a row with so many replicates."""
    torch.manual_seed(0)
    contenders = entrants(
        toy.Model().to(settings.device),
        lambda model: program_of(row, model, replicates),
        lambda model: partial(row.loss, model, replicates),
        {name: partial(build, replicates=replicates) for name, build in row.peers.items()},
        compiled=settings.compiled,
    )
    return Contest("toy", row.name, contenders)


def program_of(row: Row, model: toy.Model, replicates: int) -> scg.Program:
    """The program of a row, which trains the parameters of ``model``."""
    return scg.compile(graph(model), policy=row.policy(model), samples=replicates)
