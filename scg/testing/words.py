"""Words: the functions and laws that drawn graphs are made of, small enough to be read in a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, Normal, OneHotCategorical

Kind = Literal["finite", "continuous", "mixed"]
"""What the random variables of a graph are."""
NODES = 4
"""The points that a Normal counts for, where joint outcomes are counted."""

ONE: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "square": lambda x: 0.5 * (x - 0.4) ** 2,
        "sine": lambda x: torch.sin(x + 0.3),
        "sigmoid": lambda x: torch.sigmoid(1.5 * x - 0.2),
        "tanh": torch.tanh,
    }
)
"""Smooth functions of one number."""
TWO: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "product": lambda x, y: x * (y + 0.4),
        "difference": lambda x, y: torch.tanh(x - 0.6 * y),
        "mixture": lambda x, y: 0.5 * torch.sin(x + y) + 0.2 * x,
    }
)
"""Smooth functions of two numbers."""
ROUGH: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"step": lambda x: 0.7 * (x > 0.35).to(x.dtype)}
)
"""Functions without a derivative: of what no Normal influences, as there they could not be integrated, and of
what no gradient flows to, as it would be lost."""


def total(dim: int) -> Callable[[Tensor], Tensor]:
    """Return the sum over a plate."""
    return lambda x: 0.6 * x.sum(dim)


def past(dim: int) -> Callable[[Tensor], Tensor]:
    """Return the sum along an ordered plate up to each element."""
    return lambda x: 0.7 * x.cumsum(dim)


def centred(dim: int) -> Callable[[Tensor], Tensor]:
    """Return what mixes the elements of a plate."""
    return lambda x: x - 0.5 * x.mean(dim, keepdim=True)


@dataclass(frozen=True)
class Law:
    """How a random variable of one real parameter is declared, and a number is read from its value.

    ``keyword`` is that of the parameter, and ``given`` are other arguments. Each element has so many
    ``outcomes``. ``relaxed`` reads a relaxed value; without ``read`` the value is the number.
    """

    dist: Callable[..., Any]
    outcomes: int
    keyword: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Tensor], Tensor] | None = None
    relaxed: Callable[[Tensor], Tensor] | None = None


FINITE: Mapping[str, Law] = MappingProxyType(
    {
        "coin": Law(Bernoulli, 2, "logits"),
        "count": Law(Binomial, 3, "logits", {"total_count": 2}),
        "pair": Law(
            lambda h: Bernoulli(logits=torch.stack([h, 0.3 - h], -1)),
            4,
            read=lambda z: z[..., 0] * (z[..., 1] - 0.6),
        ),
        "choice": Law(
            lambda h: Categorical(logits=torch.stack([h, 0.5 * h - 0.2, 0.1 - h], -1)),
            3,
            read=lambda k: 0.9 * (k == 1).double() - 0.7 * (k == 2).double(),
            relaxed=lambda z: 0.9 * z[..., 1] - 0.7 * z[..., 2],
        ),
        "hot": Law(
            lambda h: OneHotCategorical(logits=torch.stack([h, 0.5 * h - 0.2, 0.1 - h], -1)),
            3,
            read=lambda z: 0.9 * z[..., 1] - 0.7 * z[..., 2],
        ),
    }
)
"""Laws of finite support."""


def continuous(spread: float) -> Mapping[str, Law]:
    """Return laws that are integrated by quadrature, of standard deviation ``spread`` or less."""
    return {
        "normal": Law(Normal, NODES, "loc", {"scale": spread}),
        "blur": Law(lambda h: Normal(h, spread * torch.sigmoid(h)), NODES),
    }


def laws(kind: Kind, spread: float) -> Mapping[str, Law]:
    """Return the laws that graphs of a kind have."""
    return {**(FINITE if kind != "continuous" else {}), **(continuous(spread) if kind != "finite" else {})}


def is_finite(word: str) -> bool:
    """Say whether a law is of finite support."""
    return word in FINITE
