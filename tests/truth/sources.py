"""What a program with a defect is drawn from: the random variable it reads, its estimator, and its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from tests.truth.building import Fn, Module
from tests.truth.exact import bits, normals
from tests.truth.judge import Case

REPLICATES, FEWER = 2048, 300
WIDE, NARROW = 2000, 2
"""Elements of a run's plate where each is a replicate, and where all of them are enumerated together."""
FINITE = ("auto", "score", "enumerate", "rebar", "relax", "local")
CONTINUOUS = ("auto", "score", "reparam", "lax")
LOCAL = scg.Enumerate(local=True)

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Defect:
    """A program with a defect of a class, and the words for what was drawn."""

    kind: str
    words: str
    case: Case

    def __repr__(self) -> str:
        return f"{self.kind}: {self.words}"


@dataclass(frozen=True)
class Source:
    """The random variable that a defect reads: its law, and how it is estimated and computed."""

    law: str
    policy: str
    dtype: torch.dtype
    samples: int | None

    @property
    def estimators(self) -> Mapping[str, Any] | str:
        """The policy of the node z, and automatic choice for all others."""
        return {"z": LOCAL if self.policy == "local" else self.policy}

    def plates(self, name: str) -> tuple[str, ...]:
        """Return what everything random has to be drawn along to be averaged in one run."""
        return (name,) if self.samples is None else ()

    @property
    def effort(self) -> int:
        """Return how much more often a program of fewer replicates has to run."""
        return 4 if self.samples == FEWER else 1

    def fewer(self) -> Source:
        """Return the same in fewer replicates, if there are any."""
        return self if self.samples is None else replace(self, samples=FEWER)

    def number(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=self.dtype)

    def sample(self, g: scg.Graph, location: scg.Node, **options: Any) -> scg.Node:
        """Declare z, of the law, around a location."""
        if self.law == "bernoulli":
            return g.sample("z", Bernoulli, logits=location, **options)
        return g.sample("z", Normal, loc=location, scale=0.8, **options)

    def points(self, location: Tensor) -> tuple[Tensor, Tensor]:
        """Return all values of independent elements [n], and their probabilities."""
        location = location.double()
        scale = torch.tensor(0.8).double()
        return bits(location.sigmoid()) if self.law == "bernoulli" else normals(location, scale)


def sources(samples: Sequence[int | None] = (REPLICATES, None)) -> st.SearchStrategy[Source]:
    laws = st.sampled_from(
        [("bernoulli", policy) for policy in FINITE] + [("normal", policy) for policy in CONTINUOUS]
    )
    types = st.sampled_from([torch.float64, torch.float32])
    return st.builds(
        lambda law, dtype, samples: Source(*law, dtype, samples), laws, types, st.sampled_from(list(samples))
    )


def named(draw: Draw, table: Mapping[str, Any]) -> str:
    return str(draw(st.sampled_from(list(table))))


PLACED = ("node", "cost", "module")


def placed(g: scg.Graph, place: str, fn: Fn, *parents: scg.Node) -> None:
    """Make a function part of a graph: as a node with a cost, as a cost, or as a module."""
    if place == "cost":
        g.cost("c", fn, *parents)
    else:
        g.cost("c", g.det("h", Module(fn) if place == "module" else fn, *parents))
