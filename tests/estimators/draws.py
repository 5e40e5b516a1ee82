"""Draws of outcomes, each with the uniform noise that makes it and how probable that is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, Distribution, OneHotCategorical

import scg
from scg.laws import Law, law_for
from tests.estimators.building import of, site

LAWS: dict[str, tuple[type[Distribution], dict[str, Any]]] = {
    "categorical-logits": (Categorical, {"logits": of(0.4, -0.7, 1.1, 0.2, -0.3)}),
    "categorical-probs": (Categorical, {"probs": of(0.1, 0.25, 0.3, 0.05, 0.5)}),
    "one-hot-logits": (OneHotCategorical, {"logits": of(0.4, -0.7, 1.1, 0.2, -0.3)}),
    "one-hot-probs": (OneHotCategorical, {"probs": of(0.1, 0.25, 0.3, 0.05, 0.5)}),
    "binomial": (Binomial, {"total_count": 4, "logits": of(0.4)[0]}),
    "bernoulli": (Bernoulli, {"logits": of(0.4)[0]}),
    "impossible": (Categorical, {"probs": of(0.0, 0.25, 0.0, 0.25, 0.5)}),
    "certain": (Categorical, {"logits": of(-900.0, 0.0, 900.0, -900.0, -900.0)}),
    "extreme": (Categorical, {"logits": of(-40.0, 40.0, 38.0, 0.0, -1.0)}),
}
COSTS = of(0.9, -0.7, 0.2, 1.4, 0.6)


@dataclass(frozen=True)
class Setting:
    """One element of a law, what it is charged with at each outcome, and the gradient of its mean cost."""

    dist: type[Distribution]
    given: dict[str, Any]

    @property
    def law(self) -> Law:
        return law_for(self.dist, self.given)[0]

    @property
    def learned(self) -> str:
        return "logits" if "logits" in self.given else "probs"

    @property
    def mass(self) -> Tensor:
        return self.law.mass(self.given)

    def charged(self, value: Tensor) -> Tensor:
        return (value * COSTS.to(value)).sum(-1) if self.law.value_rank else COSTS[value.long()]

    def gradient(self) -> Tensor:
        leaf = self.given[self.learned].clone().requires_grad_()
        costs = self.charged(self.law.support(self.given))
        return torch.autograd.grad((self.law.mass({self.learned: leaf}) * costs).sum(), leaf)[0]

    def seen(self) -> Tensor:
        """Which entries of the gradient draws tell: not those of the probability of what cannot happen."""
        if self.learned == "logits" or self.dist is Binomial:
            return torch.ones_like(self.given[self.learned], dtype=torch.bool)
        return self.given["probs"] > 0

    def estimate(self, estimator: scg.Cut, noise: list[Tensor]) -> Tensor:
        """Return what an estimator makes of uniform noise for each of its draws."""
        value = self.law.support(self.given)[0]
        fresh = tuple(torch.cat([u[None], 0.123 + 0 * value[1:]]) if value.dim() else u for u in noise)
        one = site(
            self.dist,
            self.given,
            0.5 + 0 * COSTS,
            self.charged,
            value=value,
            credit=self.charged(value),
            provided={"fresh": fresh},
        )
        return estimator.gradient(one)[self.learned]


SETTINGS = {name: Setting(*row) for name, row in LAWS.items()}


def orders(mass: Tensor, count: int) -> Iterator[tuple[float, list[Tensor]]]:
    """Yield, for every order in which so many different outcomes are drawn, its probability and noise."""
    possible = [place for place in range(len(mass)) if mass[place] > 0]
    for order in itertools.permutations(possible, min(count, len(possible))):
        left, probability, noise = mass.clone(), 1.0, []
        for place in order:
            total = float(left.sum())
            start = float(left[:place].sum())
            noise.append(of((start + float(left[place]) / 2) / total)[0])
            probability *= float(left[place]) / total
            left[place] = 0.0
        noise += [of(0.5)[0]] * (count - len(noise))
        yield probability, noise
