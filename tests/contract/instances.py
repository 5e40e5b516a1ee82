"""The estimators under contract: every registered one by default, and the options worth a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import scg
from scg.estimators.parts.linear import Linear
from scg.estimators.parts.variates import Controls, Network
from scg.estimators.protocol.border import refusal
from scg.estimators.quadratic import Surface
from scg.estimators.registry import registry
from scg.laws import Relaxable

Context = str | None
Squash = Callable[[Tensor], Tensor]


def bounded(z: Tensor) -> Tensor:
    """Between -1 and 1, and a fraction of polynomials in the noise of a logistic variable z."""
    return torch.tanh(z / 2)


def itself(x: Tensor) -> Tensor:
    return x


class Net(nn.Module):
    """A baseline of one context, one scalar for each element."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, *context: Tensor) -> Tensor:
        return torch.tanh(self.bias + self.slope * context[0])


def summed(found: Tensor, rank: int) -> Tensor:
    """Add up an event of so many dimensions."""
    return found.flatten(-rank).sum(-1) if rank else found


class Odd(nn.Module):
    """A control variate of a value and of context, neither even nor small; of low degree in the value.

    An event of ``rank`` dimensions counts as the sum over its entries; context has no event.
    """

    def __init__(self, squash: Squash = bounded, *, square: float = -1.1, rank: int = 0) -> None:
        super().__init__()
        self.squash = squash
        self.rank = rank
        self.weights = nn.Parameter(torch.tensor([0.7, square, 0.4], dtype=torch.float64))

    def forward(self, value: Tensor, *context: Tensor) -> Tensor:
        x = self.squash(value)
        linear, square, product = self.weights
        slope = linear + product * sum(torch.tanh(item) for item in context)
        return slope * summed(x, self.rank) + square * summed(x**2, self.rank)


class Wrong(nn.Module):
    """A control variate that is much larger than any cost here, and has nothing to do with one."""

    def __init__(self, squash: Squash = bounded, *, rank: int = 0) -> None:
        super().__init__()
        self.squash = squash
        self.rank = rank
        self.weights = nn.Parameter(torch.tensor([5.0, 1.0], dtype=torch.float64))

    def forward(self, value: Tensor) -> Tensor:
        x = self.squash(value)
        return summed(self.weights[0] * (x - 0.2) ** 2 + self.weights[1] * torch.sin(3 * x), self.rank)


def stirred(program: scg.Program) -> scg.Program:
    """Give networks that start at 0 something to say, and the cost they are added to another scale."""
    with torch.no_grad():
        for module in program.controls.modules():
            if isinstance(module, Controls) and module.net is not None and module.eta is not None:
                module.temperature.log.copy_(torch.zeros(()))
                module.eta.log.copy_(torch.tensor(-0.4))
            if isinstance(module, Linear) and module.slope is not None:
                module.slope.fill_(0.6)
            if isinstance(module, Surface):
                module.first.fill_(0.7)
                module.second.copy_(torch.cos(torch.arange(module.second.numel())).view_as(module.second))
            if isinstance(module, Network):
                for index, parameter in enumerate(module.parameters()):
                    steps = torch.arange(1.0, 1.0 + parameter.numel()).view(parameter.shape)
                    parameter.copy_(0.5 * torch.sin(2.3 * steps + index))
    return program


@dataclass(frozen=True)
class Instance:
    """One estimator with options; ``make`` is called for each node, so that no network is shared.

    Networks read the context that is given, or the parents of the node. ``samples`` is what it needs.
    ``integrated`` tells how: in "cells" where an estimate depends on base noise through the values of nodes
    alone, at "points" where it is smooth in the noise within each cell as well, and else, as what is not in
    the table, by "simulation". One that is ``mirrored`` jumps where noise turned over, 1 - u, does as well.
    One that ``sums`` sees outcomes that cannot happen,
    at all laws or at the one named. ``rank`` is that of the values its network takes, or None if any.
    """

    name: str
    make: Callable[[Context], scg.Estimator]
    samples: int | None = None
    integrated: str = "cells"
    rank: int | None = None
    mirrored: bool = False
    sums: bool | str = False

    def __str__(self) -> str:
        return self.name

    @property
    def exact(self) -> bool:
        return self.integrated == "cells"

    def draws(self, facts: scg.NodeFacts) -> bool:
        """Whether it has noise of its own at a node that it claims."""
        return bool(self.make("theta").asks(facts).fresh)

    def does_sum(self, family: str) -> bool:
        """Whether an estimate at a law is the same sum over outcomes whatever is drawn."""
        return self.sums is True or self.sums == family

    def claims(self, facts: scg.NodeFacts) -> bool:
        """Whether the estimator takes on a node."""
        if self.rank is not None and self.rank != rank_of(facts):
            return False
        return refusal(self.make("theta"), facts) is None


def rank_of(facts: scg.NodeFacts) -> int:
    """Return the dimensions of what a network of the node takes: one more where an outcome is an index."""
    index = isinstance(facts.law, Relaxable) and facts.law.soft.value_rank > facts.law.value_rank
    return len(facts.event) + index


def _score(name: str, samples: int | None = None, *, normalise: bool = False) -> Instance:
    baseline = None if normalise else name
    suffix = "normalise" if normalise else name
    return Instance(f"score+{suffix}", lambda _: scg.Score(baseline=baseline, normalise=normalise), samples)


def _variate(name: str, make: Callable[[Context], scg.Estimator], **options: Any) -> Instance:
    return Instance(name, make, integrated="points", **options)


@dataclass(frozen=True)
class Row:
    """How the estimates of one estimator depend on noise, and the options of it that are worth a test."""

    integrated: str = "simulation"
    variants: tuple[Instance, ...] = ()
    mirrored: bool = False
    sums: bool | str = False
    samples: int | None = None


ROWS: Mapping[str, Row] = {
    "score": Row(
        "cells",
        (
            _score("moving-average"),
            _score("leave-one-out", samples=2),
            _score("self-critical"),
            _score("normalise", normalise=True),
            Instance("score+module", lambda context: scg.Score(baseline=Net(), context=context)),
        ),
    ),
    "reparam": Row("cells"),
    "enumerate": Row("cells", sums=True),
    "local": Row("cells", sums=True),
    "coupled": Row("cells", mirrored=True),
    "arm": Row("cells", mirrored=True),
    "nvil": Row("cells"),
    "critic": Row(
        "cells",
        (
            Instance("critic+net", lambda c: scg.Critic(Odd(), context=c), rank=0),
            Instance("critic+wrong", lambda _: scg.Critic(Wrong()), rank=0),
            Instance("critic+row", lambda c: scg.Critic(Odd(rank=1), context=c), rank=1),
        ),
    ),
    "muprop": Row("points", (Instance("muprop+learned", lambda _: scg.MuProp(slope="learned")),)),
    "quadratic": Row(
        "points", (Instance("quadratic+full", lambda _: scg.Quadratic(matrix="full"), integrated="points"),)
    ),
    "double-cv": Row("points", samples=2),
    "finite-difference": Row(sums=True),
    "measure-valued": Row("cells", sums="Bernoulli"),
    "sum-and-sample": Row(
        "cells",
        (Instance("sum-and-sample+1", lambda _: scg.SumAndSample(k=1), sums="Bernoulli"),),
        sums=True,
    ),
    "unordered-set": Row(
        "cells",
        (
            Instance("unordered-set+2", lambda _: scg.UnorderedSet(k=2), sums="Bernoulli"),
            Instance(
                "unordered-set+baseline",
                lambda _: scg.UnorderedSet(k=2, has_baseline=True),
                sums="Bernoulli",
            ),
        ),
        sums=True,
    ),
    "rebar": Row(
        "points",
        (
            _variate("rebar+warm", lambda _: scg.REBAR(temperature=1.0, eta=0.6)),
            _variate(
                "rebar+leave-one-out",
                lambda _: scg.REBAR(temperature=1.0, baseline="leave-one-out"),
                samples=2,
            ),
        ),
    ),
    "relax": Row(
        "points",
        (
            _variate("relax+net", lambda c: scg.RELAX(Odd(), relaxed_cost=False, context=c), rank=0),
            _variate("relax+both", lambda c: scg.RELAX(Odd(), relaxed_cost=True, context=c), rank=0),
            _variate("relax+wrong", lambda _: scg.RELAX(Wrong(), relaxed_cost=False), rank=0),
            _variate("relax+row", lambda c: scg.RELAX(Odd(rank=1), context=c), rank=1),
            _variate("relax+wrong-row", lambda _: scg.RELAX(Wrong(rank=1), relaxed_cost=False), rank=1),
            _variate(
                "relax+leave-one-out",
                lambda _: scg.RELAX(Odd(square=0.0), baseline="leave-one-out"),
                samples=2,
                rank=0,
            ),
        ),
    ),
    "lax": Row(
        "points",
        (
            _variate("lax+net", lambda c: scg.LAX(Odd(itself), context=c), rank=0),
            _variate("lax+wrong", lambda _: scg.LAX(Wrong(itself)), rank=0),
            _variate("lax+row", lambda c: scg.LAX(Odd(itself, rank=1), context=c), rank=1),
            _variate("lax+wrong-row", lambda _: scg.LAX(Wrong(itself, rank=1)), rank=1),
            _variate(
                "lax+leave-one-out",
                lambda _: scg.LAX(Odd(itself), baseline="leave-one-out"),
                samples=2,
                rank=0,
            ),
        ),
    ),
}


BOUNDED = ("vimco", "dreg")
"""Estimators for bounds alone, which no graph of the contract has: their own tests have those."""


def _all() -> Iterator[Instance]:
    for name, kind in registry().items():
        if kind.unbiased and name not in BOUNDED:
            row = ROWS.get(name, Row())
            yield Instance(
                name,
                lambda _, kind=kind: kind(),  # type: ignore[misc]
                integrated=row.integrated,
                mirrored=row.mirrored,
                sums=row.sums,
                samples=row.samples,
            )
            yield from row.variants


INSTANCES = {instance.name: instance for instance in _all()}
