"""Critics: networks that stand for the costs of later steps, and are fit on the returns that this gives."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts.baselines import Baseline
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import names_of
from scg.estimators.protocol.site import Site


class Critic(Baseline):
    """A prediction V of the credit Q along an ordered plate, which stands for later costs as well.

    All is made of the error D = Q - V, 0 after the last step. As V_t does not know what it will find at later
    steps, what remains of the credit is biased; ``net`` is fit on the return, which is V and what remains.
    """

    unbiased = False
    stands_alone = True

    @abstractmethod
    def advantage(self, error: Tensor, dim: int, rate: float) -> Tensor:
        """Return what remains of the credit, from the ``error`` D along ``dim``, at a discount ``rate``."""

    def value(self, site: Site, credit: Tensor) -> Tensor:
        """Return all of the credit but what remains."""
        return credit - self._advantage(site, credit, self.prediction(site, credit))

    def prediction(self, site: Site, credit: Tensor) -> Tensor:
        """Return what the network predicts, 0 for steps that do not exist."""
        found = site.predict()
        return found if site.exists is None else torch.where(site.exists, found, torch.zeros_like(found))

    def error(self, site: Site, credit: Tensor) -> Tensor:
        """Return the squared error to the return, which is taken for what it is."""
        predicted = self.prediction(site, credit)
        target = predicted + self._advantage(site, credit, predicted)
        return (target.detach() - predicted).square()

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse a node without steps, or with steps of several kinds."""
        found = [axis.name for axis in facts.axes if axis.ordered]
        if len(found) == 1:
            return None
        told = f"the ordered plates here are {', '.join(found)}" if found else "no plate here is ordered"
        return Refusal(
            f"{type(self).__name__} is of steps along one ordered plate, and {told}",
            'declare the steps as g.plate("time", ordered=True)' if not found else "take another baseline",
        )

    def asks(self) -> Asks:
        """Ask for the context."""
        return Asks(context=names_of(self.context))

    def _advantage(self, site: Site, credit: Tensor, predicted: Tensor) -> Tensor:
        dim = next(dim for dim, axis in enumerate(site.axes) if axis.ordered)
        rate = site.axes[dim].discount
        error = credit - predicted
        if site.exists is not None:
            error = carried(error, site.exists, dim, rate)
        return self.advantage(error, dim, rate)


@dataclass(frozen=True, eq=False)
class NStep(Critic):
    """The costs of ``n`` steps, and what ``net`` predicts after them: c_0 + ... + rate^n V_n - V_0.

    V reads ``context``, the node's parents if None. Mnih et al. (2016, arXiv:1602.01783).
    """

    net: nn.Module = field()
    n: int = field()
    context: Any = None

    def __post_init__(self) -> None:
        """Refuse what is no number of steps."""
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise EstimatorError(f"n is a number of steps, 1 or more, not {self.n!r}")

    def advantage(self, error: Tensor, dim: int, rate: float) -> Tensor:
        """Return D_t - rate^n D_(t + n)."""
        return error - rate**self.n * later(error, dim, self.n)


@dataclass(frozen=True, eq=False)
class GAE(Critic):
    """The sum over k of (rate decay)^k d_(t + k), where d_t = c_t + rate V_(t + 1) - V_t.

    V is what ``net`` predicts from ``context``, the node's parents if None. With a ``decay`` of 1 it is a
    baseline like any other, and unbiased. Schulman et al. (2016, arXiv:1506.02438).
    """

    net: nn.Module = field()
    decay: float = 0.95
    context: Any = None

    def __post_init__(self) -> None:
        """Refuse what is no decay."""
        given = self.decay
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= 1:
            raise EstimatorError(f"decay is a number from 0 to 1, not {given!r}")

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """Whether no later prediction stands for costs."""
        return self.decay == 1.0

    def advantage(self, error: Tensor, dim: int, rate: float) -> Tensor:
        """Return the decayed sum of D_t - rate D_(t + 1)."""
        return decayed(error - rate * later(error, dim, 1), dim, rate * self.decay)


def later(values: Tensor, dim: int, steps: int) -> Tensor:
    """Return what is a number of steps later, 0 after the end.

    >>> later(torch.tensor([1.0, 2.0, 3.0]), 0, 2)
    tensor([3., 0., 0.])
    """
    kept = max(values.shape[dim] - steps, 0)
    shifted = values.narrow(dim, values.shape[dim] - kept, kept)
    nothing = torch.zeros_like(values.narrow(dim, 0, values.shape[dim] - kept))
    return torch.cat((shifted, nothing), dim)


def decayed(values: Tensor, dim: int, rate: float) -> Tensor:
    """Return sum over k of rate**k values[t + k], which has no reciprocal of a power of the rate.

    >>> decayed(torch.tensor([1.0, 1.0, 1.0]), 0, 0.5)
    tensor([1.7500, 1.5000, 1.0000])
    """
    width = 1
    while width < values.shape[dim]:  # sums of so many steps become those of twice as many
        values = values + rate**width * later(values, dim, width)
        width *= 2
    return values


def carried(error: Tensor, exists: Tensor, dim: int, rate: float) -> Tensor:
    """Put, for a step that does not exist, what the next that does has, discounted up to there.

    So that no cost counts twice at steps on either side of it.
    """
    known, width = exists.expand(error.shape), 1
    found = torch.where(known, error, torch.zeros_like(error))
    while width < error.shape[dim]:
        found = torch.where(known, found, rate**width * later(found, dim, width))
        known = known | later(known, dim, width)
        width *= 2
    return found
