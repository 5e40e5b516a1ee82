"""The unordered set: several different outcomes of each element, and how probable the set of them was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.local import infinite
from scg.estimators.parts.outcomes import check_number, drawn, every, own_noise, summed
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site

MOST = 8
"""The largest set: its probability is a sum over all of its subsets."""


@dataclass(frozen=True)
class UnorderedSet(Cut):
    """sum over s in S of R(S, s) f(s) dp(s), S being k draws without replacement, R = P(S | s first) / P(S).

    With ``has_baseline`` f(s) has its baseline B(S, s), made of the same set, which lowers the variance
    where costs are far from 0, and can raise it where they are not. One element is set at a time, the others
    at their sample. Kool, van Hoof and Welling (2020, "Estimating gradients for discrete random variables by
    sampling without replacement", arXiv:2002.06043).
    """

    name: ClassVar[str] = "unordered-set"

    k: int = 4
    has_baseline: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no size of a set, and a baseline of a set of one."""
        check_number("k", self.k, 1, MOST)
        if self.has_baseline and self.k == 1:
            raise EstimatorError("has_baseline=True compares the outcomes of a set: give k=2 or more")

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse supports that are not finite."""
        return infinite(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs at k outcomes of each element, or at all if there are no more."""
        outcomes = facts.outcomes or 0
        fresh = ("uniform",) * self.k if outcomes > self.k else ()
        return Asks(fresh=fresh, downstream=min(self.k, outcomes) * facts.elements)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the sum over the set."""
        mass = site.law.mass(site.parameters)
        if len(mass) <= self.k:
            return summed(site, every(mass), lambda costs: costs)
        places, chances, rest = list[Tensor](), list[Tensor](), mass
        for index in range(self.k):
            place = drawn(rest, own_noise(site, index))[None]
            places.append(place)
            chances.append(rest.gather(0, place)[0])
            rest = rest.scatter(0, place, 0.0)
        several = completions(chances, rest.sum(0))
        ratios = [_over(several[1 << s], several[0]) * (chances[s] > 0) for s in range(self.k)]

        def weigh(costs: Tensor) -> Tensor:
            if self.has_baseline:
                costs = costs - _baseline(costs, chances, several)
            return torch.stack(ratios) * costs

        return summed(site, torch.cat(places), weigh)


def completions(chances: list[Tensor], rest: Tensor) -> list[Tensor]:
    """Return, for each subset of a set, how probable it is that draws go on to give the whole set.

    Subset T has the place of its bits. C(T) = sum over t not in T of p_t / (1 - P(T)) C(T and t), where
    1 - P(T) is added up from what is not in T, ``rest`` being outside of the set.
    """
    size = len(chances)
    found = [torch.ones_like(rest)] * (1 << size)
    for subset in reversed(range((1 << size) - 1)):
        left = [t for t in range(size) if not subset >> t & 1]
        tail = rest + torch.stack([chances[t] for t in left]).sum(0)
        # Where nothing is left that can happen, draws that cannot happen stand for the rest of the set.
        terms = [torch.where(tail > 0, chances[t] / tail, 1.0) * found[subset | 1 << t] for t in left]
        found[subset] = torch.stack(terms).sum(0)
    return found


def _baseline(costs: Tensor, chances: list[Tensor], several: list[Tensor]) -> Tensor:
    """Return B(S, s) = p_s f(s) + sum over t of p_t C(s, t) / C(s) f(t): the mean cost if s came first."""
    found = []
    for s in range(len(chances)):
        others = [
            chances[t] * _over(several[1 << s | 1 << t], several[1 << s]) * costs[t]
            for t in range(len(chances))
            if t != s
        ]
        found.append(chances[s] * costs[s] + torch.stack(others).sum(0))
    return torch.stack(found)


def _over(one: Tensor, other: Tensor) -> Tensor:
    """Return a ratio, 0 where what it is over is."""
    return torch.where(other > 0, one / other, 0.0)
