"""The estimators under contract: every registered one by default, and the options worth a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import scg
from scg.surrogate.estimators.registry import registry

Context = str | None


class Net(nn.Module):
    """A baseline of one context, one scalar for each element."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, *context: Tensor) -> Tensor:
        return torch.tanh(self.bias + self.slope * context[0])


@dataclass(frozen=True)
class Instance:
    """One estimator with options; ``make`` is called for each node, so that no network is shared.

    Networks read the context that is given, or the parents of the node. ``samples`` is what it needs.
    ``exact`` says that an estimate depends on base noise through the values of nodes alone, so that it
    can be integrated cell by cell; what is not in the table is integrated by simulation.
    """

    name: str
    make: Callable[[Context], scg.Estimator]
    samples: int | None = None
    exact: bool = True

    def __str__(self) -> str:
        return self.name

    def claims(self, facts: scg.NodeFacts) -> bool:
        """Whether the estimator takes on a node."""
        return self.make("theta").refuses(facts) is None


def _score(name: str, samples: int | None = None, *, normalise: bool = False) -> Instance:
    baseline = None if normalise else name
    suffix = "normalise" if normalise else name
    return Instance(f"score+{suffix}", lambda _: scg.Score(baseline=baseline, normalise=normalise), samples)


VARIANTS: Mapping[str, tuple[Instance, ...]] = {
    "score": (
        _score("moving-average"),
        _score("leave-one-out", samples=2),
        _score("self-critical"),
        _score("normalise", normalise=True),
        Instance("score+module", lambda context: scg.Score(baseline=Net(), context=context)),
    ),
    "enumerate": (Instance("enumerate+local", lambda _: scg.Enumerate(local=True)),),
    "reparam": (),
}


def _all() -> Iterator[Instance]:
    for name, kind in registry().items():
        if kind.unbiased:
            yield Instance(name, lambda _, kind=kind: kind(), exact=name in VARIANTS)  # type: ignore[misc]
            yield from VARIANTS.get(name, ())


INSTANCES = {instance.name: instance for instance in _all()}
