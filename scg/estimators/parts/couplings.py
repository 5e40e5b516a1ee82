"""Couplings: several values of a node, each with the node's law, and unlike each other by a known law."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.estimators.protocol.site import Site
from scg.laws import Bernoulli, Categorical


@dataclass(frozen=True, eq=False)
class Coupling(ABC):
    """The ``others`` [n - 1, *lead, *event] that go with the value of a node; elements are independent."""

    others: Tensor

    @abstractmethod
    def estimate(self, cost: Tensor, costs: Tensor) -> Tensor:
        """Return the estimate of the ``cost`` [*lead, 1...] of the node's value, and of the other ``costs``.

        It is in the shape of the parameter.
        """


@dataclass(frozen=True, eq=False)
class Bits(Coupling):
    """Bits that go with ``value``, of a law whose parameter has the name ``given`` and the value ``leaf``."""

    value: Tensor
    given: str
    leaf: Tensor

    def estimate(self, cost: Tensor, costs: Tensor) -> Tensor:
        """Return sum_i (f_i - mean f) (b_i - mean b) / ((n - 1) P(1, 0)), times p (1 - p) for logits."""
        if len(costs) == 1:
            unlike = (self.value - self.others[0]) * (cost - costs[0]) / 2
            return unlike * self.leaf.abs().sigmoid() if self.given == "logits" else unlike / self._least()
        values, costs = torch.cat((self.value[None], self.others)), torch.cat((cost[None], costs))
        unlike = ((costs - costs.mean(0)) * (values - values.mean(0))).sum(0) / (len(costs) - 1)
        least = self._least()
        rate = _apart(least, len(costs))
        return unlike * (least * (1 - least) / rate) if self.given == "logits" else unlike / rate

    def _least(self) -> Tensor:
        """Return the probability of the less likely side, kept above 0."""
        leaf = self.leaf
        least = (-leaf.abs()).sigmoid() if self.given == "logits" else torch.minimum(leaf, 1 - leaf)
        return least.clamp(min=torch.finfo(leaf.dtype).tiny)


def coupled_bits(site: Site, fresh: Sequence[Tensor]) -> Bits:
    """Return bits of noise u and 1 - u if there are two, else of u + i / n in the order of fresh noise."""
    law, parameters = site.law, site.parameters
    assert isinstance(law, Bernoulli)
    if not fresh:
        noise = (1 - site.noise)[None]
    else:
        places = torch.stack(list(fresh)).argsort(0) + 1
        noise = torch.remainder(site.noise + places.to(site.noise.dtype) / (len(fresh) + 1), 1.0)
    return Bits(law.draw(parameters, noise), site.value, law.given, parameters[law.given])


def _apart(least: Tensor, count: int) -> Tensor:
    """Return the probability that one bit of a pair is 1 and the other 0: E S (n - S) / (n (n - 1)).

    The number S of ones is n p, rounded down or up. Where n p is below 1, so is S, and this is p.
    """
    whole = (count * least).floor()
    part = count * least - whole
    below, above = whole * (count - whole), (whole + 1) * (count - whole - 1)
    mixed = below.lerp(above, part) / (count * (count - 1))
    return torch.where(whole > 0, mixed, least)


@dataclass(frozen=True, eq=False)
class Choices(Coupling):
    """Categorical values, of which 2k and 2k + 1 are a step of a chain apart, and all others independent.

    ``taken`` [n, *batch, K] says which outcome each of them is, of probabilities ``mass`` [*batch, K];
    ``given`` [*batch, K] are the probs of the law, or None where it has logits.
    """

    taken: Tensor
    mass: Tensor
    given: Tensor | None

    def estimate(self, cost: Tensor, costs: Tensor) -> Tensor:
        """Return sum_i s_i sum_j w_ij (f_i - f_j) / (n (n - 1)) with the scores s of each value.

        The weight w is 1 for independent values, and p(x) p(y) / P(x, y) for a step.
        """
        costs = torch.cat((cost[None], costs))
        count = len(costs)
        partner = [min(index ^ 1, count - 1) for index in range(count)]
        others = 1 - (self.taken * self.mass).sum(-1)
        weight = torch.maximum(others, others[partner])
        total = count * (costs - costs.mean(0)) - (1 - weight) * (costs - costs[partner])
        found = (total.unsqueeze(-1) * self.taken).sum(0) / (count * (count - 1))
        if self.given is None:
            return found
        return found / self.given.clamp(min=torch.finfo(self.given.dtype).tiny)


def coupled_choices(site: Site, fresh: Sequence[Tensor]) -> Choices:
    """Return values by turns one step from that before, by a uniform number, and drawn from base noise."""
    law = site.law
    assert isinstance(law, Categorical)
    mass = law.probabilities(site.parameters)
    taken = [_one_hot(law, site.value, mass)]
    for index, noise in enumerate(fresh):
        if index % 2:
            taken.append(_one_hot(law, law.draw(site.parameters, noise), mass))
        else:
            taken.append(_step(mass, taken[-1], noise[..., :1] if law.one_hot else noise.unsqueeze(-1)))
    several = torch.stack(taken)
    others = (several[1:] if law.one_hot else several[1:].argmax(-1)).to(site.value.dtype)
    given = site.parameters["probs"] if law.given == "probs" else None
    return Choices(others, several, mass, given)


def _step(mass: Tensor, taken: Tensor, number: Tensor) -> Tensor:
    """Move from x to each other y with probability p(y) / max(1 - p(x), 1 - p(y)), by a number [..., 1]."""
    left = torch.maximum(1 - mass, 1 - (taken * mass).sum(-1, keepdim=True))
    moves = torch.where(taken > 0, 0.0, mass / left)
    reached = torch.where(taken > 0, (1 - moves.sum(-1, keepdim=True)).clamp(min=0), moves).cumsum(-1)
    index = (number * reached[..., -1:] > reached).sum(-1, keepdim=True)
    return _compared(index, mass)


def _one_hot(law: Categorical, value: Tensor, mass: Tensor) -> Tensor:
    """Return which outcome a value is, in the type of the probabilities."""
    return value.to(mass.dtype) if law.one_hot else _compared(value.unsqueeze(-1), mass)


def _compared(index: Tensor, mass: Tensor) -> Tensor:
    return (index == torch.arange(mass.shape[-1], device=mass.device)).to(mass.dtype)
