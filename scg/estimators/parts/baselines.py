"""Baselines: what is taken from the credit of a score, which the value it belongs to does not influence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts.memory import Memory
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import ANTITHETIC, REPLICATES, NodeFacts, Refusal
from scg.estimators.protocol.kinds import names_of
from scg.estimators.protocol.site import Site, left_out


class Baseline(ABC):
    """A baseline of the credit at a node; baselines add.

    It is told the ``facts`` of the node when compiling, and is called with the ``site`` in a run.
    """

    net: nn.Module | None = None
    """The network that it learns."""
    context: Any = None
    """What the network reads."""
    remembers: bool = False
    """Whether it is of past credit, in a ``Memory``."""
    each: str | None = None
    """The plate of which every element has a past of its own."""
    unbiased: bool = True
    """Whether the value of an element does not influence what is taken from its credit."""
    stands_alone: bool = False
    """Whether it takes the credit apart, so that it does not add to others."""

    @abstractmethod
    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return the baseline of a ``credit`` [*lead]: that of the site, or what other baselines leave."""

    def __call__(self, site: Site) -> Tensor:
        """Return the baseline of what the node is charged with."""
        return self.value(site, site.credit)

    def prediction(self, site: Site, credit: Tensor) -> Tensor:
        """Return what it takes the ``credit`` to be: its value, unless that is made of something else."""
        return self.value(site, credit)

    def error(self, site: Site, credit: Tensor) -> Tensor | None:
        """Return what its network descends of its own accord, [*lead]; None is the variance."""
        return None

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Return why it would be wrong at a node, or None."""
        return None

    def asks(self) -> Asks:
        """Return what it will find at a site."""
        return Asks()

    def __add__(self, other: Baseline) -> Sum:
        """Return the sum of two baselines."""
        return Sum((*_parts(self), *_parts(other)))


@dataclass(frozen=True)
class Zero(Baseline):
    """No baseline: the credit as it is, for which no site is made."""

    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros((), dtype=credit.dtype, device=credit.device)

    def asks(self) -> Asks:
        """Ask for nothing, not even a site."""
        return Asks(site=False)


@dataclass(frozen=True)
class MovingAverage(Baseline):
    """The running mean of past credit; with ``each``, the name of a plate, one for every element of it."""

    remembers = True

    each: str | None = None

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse a plate that the node does not have."""
        return facts.lacks(self.each)

    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return the mean so far."""
        assert isinstance(site.controls, Memory)
        return site.controls.placed(site.controls.mean(), site)


@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """The mean over the other elements along an axis: replicates, or a plate whose elements no cost joins.

    Kool et al. (2019, "Buy 4 REINFORCE samples, get a baseline for free!").
    """

    axis: str = REPLICATES

    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return the mean over the others; what does not exist counts 0, whatever baselines take from it."""
        if site.exists is not None:
            credit = torch.where(site.exists, credit, torch.zeros_like(credit))
        dim = site.dim(self.axis)
        return left_out(credit, dim, pairs=site.axes[dim].coupled == ANTITHETIC)

    def asks(self) -> Asks:
        """Ask for elements that are independent, or in pairs that are."""
        return Asks(independent=self.axis, pairs=True)


@dataclass(frozen=True)
class SelfCritical(Baseline):
    """The cost at the most likely value (Rennie et al., 2017, arXiv:1612.00563)."""

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws that do not know their most likely value."""
        if facts.has_mode:
            return None
        family = facts.law.family
        return Refusal(f"self-critical needs the most likely value, which a {family} does not give")

    def asks(self) -> Asks:
        """Ask for the costs at one more value."""
        return Asks(downstream=1)

    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return the cost at the greedy value."""
        greedy = site.law.mode(site.parameters).expand(site.value.shape)
        return site.downstream(greedy.to(site.value.dtype)[None])[0]


@dataclass(frozen=True, eq=False)
class Net(Baseline):
    """A network ``net`` of ``context``, trained on the variance (Mnih and Gregor, 2014, arXiv:1402.0030).

    It reads the node's parents unless told otherwise, and gives one number for each plate element.
    """

    net: nn.Module
    context: Any = None

    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return what the network predicts."""
        return site.predict()

    def asks(self) -> Asks:
        """Ask for the context."""
        return Asks(context=names_of(self.context))


@dataclass(frozen=True, eq=False)
class Sum(Baseline):
    """Several baselines, each of what those before it leave: at most one network and one comparison.

    A moving average, which is of the whole credit, comes first.
    """

    parts: tuple[Baseline, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be added."""
        for part in self.parts:
            if part.stands_alone:
                kind = type(part).__name__
                raise EstimatorError(f"{kind} takes the credit apart: it does not add to others")
        if sum(part.net is not None for part in self.parts) > 1:
            raise EstimatorError("one network at most: give the networks as one module that adds them")
        if sum(part.asks().independent is not None for part in self.parts) > 1:
            raise EstimatorError(
                "one comparison of elements at most: twice along one axis, the second would depend on the "
                "value whose baseline it is"
            )
        parts = tuple(sorted(self.parts, key=lambda part: not part.remembers))
        object.__setattr__(self, "parts", parts)

    @property
    def net(self) -> nn.Module | None:  # type: ignore[override]
        """The network of the part that has one."""
        return next((part.net for part in self.parts if part.net is not None), None)

    @property
    def each(self) -> str | None:  # type: ignore[override]
        """The plate of which every element has a past of its own, in the part that is of the past."""
        return next((part.each for part in self.parts if part.remembers), None)

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """Whether every part is unbiased."""
        return all(part.unbiased for part in self.parts)

    @property
    def remembers(self) -> bool:  # type: ignore[override]
        """Whether some part is of past credit."""
        return any(part.remembers for part in self.parts)

    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return the sum."""
        left = credit
        for part in self.parts:
            left = left - part.value(site, left)
        return credit - left

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Return the first refusal."""
        found = (part.refuses(facts) for part in self.parts)
        return next((refusal for refusal in found if refusal is not None), None)

    def asks(self) -> Asks:
        """Ask for what any of them asks for."""
        several = [part.asks() for part in self.parts]
        return Asks(
            downstream=sum(asks.downstream for asks in several),
            context=next((asks.context for asks in several if asks.context is not None), None),
            independent=next((asks.independent for asks in several if asks.independent is not None), None),
            pairs=all(asks.pairs for asks in several if asks.independent is not None),
        )


Word = Literal["moving-average", "leave-one-out", "self-critical"]
NAMES: dict[Word, Baseline] = {
    "moving-average": MovingAverage(),
    "leave-one-out": LeaveOneOut(),
    "self-critical": SelfCritical(),
}
"""The baselines that have a word."""


def baseline_of(given: Any, context: Any = None) -> Baseline:
    """Return the baseline that an option gives: None, a word, a module or a baseline."""
    if isinstance(given, nn.Module):
        return Net(given, context)
    if context is not None:
        raise EstimatorError("context= is what a baseline module reads: give baseline=module too")
    if given is None:
        return Zero()
    if isinstance(given, Baseline):
        return given
    if not isinstance(given, str) or given not in NAMES:
        raise EstimatorError(
            f"baseline is None, a module, a scg.Baseline, or one of {tuple(NAMES)}, not {given!r}"
        )
    return NAMES[given]


def besides(given: Any) -> Baseline:
    """Return a baseline that a control variate takes besides: it learns and remembers nothing of its own."""
    found = baseline_of(given)
    if found.net is not None or found.remembers:
        raise EstimatorError(
            f'baseline is None, "leave-one-out", "self-critical" or a sum of such, not {given!r}: the '
            "control variate learns already what the past or a network would tell"
        )
    return found


def _parts(baseline: Baseline) -> tuple[Baseline, ...]:
    if not isinstance(baseline, Baseline):
        raise EstimatorError(f"baselines add to baselines, as scg.Net(module), not to {baseline!r}")
    return baseline.parts if isinstance(baseline, Sum) else (baseline,)
