"""Draws inside functions, laws that change, and masks by place: what an example shows of them is not all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Binomial,
    Categorical,
    Exponential,
    Independent,
    Laplace,
    Multinomial,
    NegativeBinomial,
    Normal,
    TransformedDistribution,
)

from tests.truth.building import Fn
from tests.truth.table_laws import Shifted


def choices(u: Tensor) -> Tensor:
    """Return three probabilities that depend on a number."""
    return torch.stack([u, 0 * u, -u], -1).softmax(-1)


WORTH = (0.3, 1.4, -0.6)


def worth(like: Tensor) -> Tensor:
    return torch.tensor(WORTH, dtype=like.dtype)


def normal_inside(u: Tensor) -> Tensor:
    with torch.no_grad():
        return Normal(u, 0.5).sample() ** 2


DRAWS: dict[str, tuple[Fn, Fn]] = {
    "bernoulli": (lambda u: torch.bernoulli(u.sigmoid()), torch.sigmoid),
    "bernoulli method": (lambda u: u.sigmoid().bernoulli() ** 2, torch.sigmoid),
    "rand below p": (lambda u: (torch.rand_like(u) < u.sigmoid()).to(u.dtype), torch.sigmoid),
    "rand minus p, stepped": (
        lambda u: torch.heaviside(u.sigmoid() - torch.rand(u.shape, dtype=u.dtype), torch.zeros_like(u)),
        torch.sigmoid,
    ),
    "Bernoulli.sample": (
        lambda u: (Bernoulli(logits=u).sample() - 0.2) ** 2,
        lambda u: 0.04 + 0.6 * u.sigmoid(),
    ),
    "Categorical.sample": (
        lambda u: worth(u)[Categorical(choices(u)).sample()],
        lambda u: choices(u) @ worth(u),
    ),
    "multinomial": (
        lambda u: worth(u)[torch.multinomial(choices(u).reshape(-1, 3), 1).reshape(u.shape)],
        lambda u: choices(u) @ worth(u),
    ),
    "Gumbel argmax": (
        lambda u: worth(u)[
            (choices(u).log() - torch.rand(*u.shape, 3, dtype=u.dtype).log().neg().log()).argmax(-1)
        ],
        lambda u: choices(u) @ worth(u),
    ),
    "hard gumbel_softmax": (
        lambda u: (F.gumbel_softmax(choices(u).log(), tau=0.7, hard=True) @ worth(u)) ** 2,
        lambda u: choices(u) @ worth(u) ** 2,
    ),
    "Normal.sample": (lambda u: Normal(u, 0.5).sample() ** 2, lambda u: u**2 + 0.25),
    "Normal without gradients": (normal_inside, lambda u: u**2 + 0.25),
    "torch.normal": (lambda u: torch.normal(u, 0.3), lambda u: u),
    "poisson": (lambda u: torch.poisson(u.exp()), torch.exp),
    "Exponential.sample": (lambda u: Exponential(u.exp()).sample(), lambda u: (-u).exp()),
    "binomial": (lambda u: torch.binomial(torch.full_like(u, 3.0), u.sigmoid()), lambda u: 3 * u.sigmoid()),
    "dropout by p": (
        lambda u: F.dropout(torch.ones_like(u), 0.5) * torch.bernoulli(u.sigmoid()),
        torch.sigmoid,
    ),
}
"""Draws whose law depends on a number u, element by element, with their means; no gradient passes them."""


@dataclass
class Live:
    """A number in a closure, and the value it takes after compiling."""

    now: float
    then: float


@dataclass(frozen=True)
class Static:
    """A law ``dist(live)(a, n)`` of a parameter and an input, and the mean of ``of(value)`` at a later n.

    The input is ``example`` when compiled and ``run`` later.
    """

    dist: Callable[[Live], Fn]
    mean: Callable[[Tensor, float], Tensor]
    example: float
    run: float
    is_continuous: bool = False
    of: Fn = lambda z: z


def square(z: Tensor) -> Tensor:
    return z**2


STATICS: dict[str, Static] = {
    "Binomial by count": Static(
        lambda s: lambda a, n: Binomial(n, logits=a), lambda a, n: n * a.sigmoid(), 2.0, 6.0
    ),
    "Binomial by integer": Static(
        lambda s: lambda a, n: Binomial(int(n), logits=a), lambda a, n: n * a.sigmoid(), 3.0, 1.0
    ),
    "Binomial by item": Static(
        lambda s: lambda a, n: Binomial(total_count=n.item(), probs=a.sigmoid()),
        lambda a, n: n * a.sigmoid(),
        1.0,
        4.0,
    ),
    "Binomial by closure": Static(
        lambda s: lambda a, n: Binomial(int(s.now), logits=a), lambda a, n: n * a.sigmoid(), 2.0, 5.0
    ),
    "NegativeBinomial by count": Static(
        lambda s: lambda a, n: NegativeBinomial(n, logits=a), lambda a, n: n * a.exp(), 2.0, 5.0
    ),
    "Multinomial by integer": Static(
        lambda s: lambda a, n: Multinomial(int(n), logits=torch.stack([a, 0 * a], -1)),
        lambda a, n: n * a.sigmoid(),
        2.0,
        4.0,
        False,
        lambda z: z[..., 0],
    ),
    "class by a sign": Static(
        lambda s: lambda a, n: Normal(a, 1.0) if bool(n > 0) else Laplace(a, 1.5),
        lambda a, n: a**2 + 4.5,
        1.0,
        -1.0,
        True,
        square,
    ),
    "class by a closure": Static(
        lambda s: lambda a, n: Normal(a, a.exp()) if s.now > 3 else Laplace(a, a.exp()),
        lambda a, n: a**2 + 2 * (2 * a).exp(),
        5.0,
        2.0,
        True,
        square,
    ),
    "scale by closure": Static(
        lambda s: lambda a, n: Normal(0 * a, a.exp() * s.now),
        lambda a, n: n**2 * (2 * a).exp(),
        1.0,
        2.0,
        True,
        square,
    ),
    "affine by closure": Static(
        lambda s: lambda a, n: TransformedDistribution(Normal(a, 0.5), [AffineTransform(0.2, s.now)]),
        lambda a, n: (0.2 + n * a) ** 2 + 0.25 * n**2,
        1.0,
        2.0,
        True,
        square,
    ),
    "affine by input": Static(
        lambda s: lambda a, n: TransformedDistribution(Normal(a, 0.5), [AffineTransform(n.item(), 1.5)]),
        lambda a, n: (n + 1.5 * a) ** 2 + 0.5625,
        0.0,
        1.5,
        True,
        square,
    ),
    "a transform more": Static(
        lambda s: (
            lambda a, n: TransformedDistribution(
                Normal(a, 0.5), [AffineTransform(0.0, 2.0)] * (1 if float(n) > 0 else 2)
            )
        ),
        lambda a, n: 16 * (a**2 + 0.25),
        1.0,
        -1.0,
        True,
        square,
    ),
    "an argument of one's own": Static(
        lambda s: lambda a, n: Shifted(a, n), lambda a, n: (a + n) ** 2 + 1, 0.0, 1.5, True, square
    ),
    "an argument of one's own, in a closure": Static(
        lambda s: lambda a, n: Shifted(a, s.now), lambda a, n: (a + n) ** 2 + 1, 0.0, -1.5, True, square
    ),
    "within Independent": Static(
        lambda s: lambda a, n: Independent(Shifted(a[..., None], n), 1),
        lambda a, n: (a + n) ** 2 + 1,
        0.0,
        1.5,
        True,
        lambda z: z[..., 0] ** 2,
    ),
}


def of_list(count: int) -> Any:
    return [1.0 if place < 4 else 0.3 for place in range(count)]


PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "list": lambda z: torch.tensor(of_list(len(z)), dtype=z.dtype),
    "list of three": lambda z: torch.tensor([float(place % 3) for place in range(len(z))], dtype=z.dtype),
    "NumPy, first four": lambda z: torch.from_numpy((np.arange(len(z)) < 4) + 0.2).to(z.dtype),
    "NumPy, even": lambda z: torch.from_numpy(np.arange(len(z)) % 2 + 0.5).to(z.dtype),
    "arange": lambda z: torch.arange(len(z), dtype=z.dtype) / 3,
    "arange by shape": lambda z: torch.arange(z.shape[0], dtype=z.dtype).remainder(3),
    "linspace": lambda z: torch.linspace(0.2, 2.0, len(z), dtype=z.dtype),
    "assigned": lambda z: torch.ones(len(z), dtype=z.dtype).index_fill(0, torch.arange(min(2, len(z))), 3.0),
    "one by its count": lambda z: torch.full_like(z, 1.0 / len(z)) * 4,
    "cumulated": lambda z: torch.ones_like(z).cumsum(0) / 3,
    "triangle": lambda z: torch.ones(len(z), len(z), dtype=z.dtype).tril().sum(1) / 2,
}
"""Weights by place in a plate [batch], which a function multiplies what it is given by."""
