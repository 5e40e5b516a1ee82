"""What the programs here are built from: numbers in double precision, and laws that a test knows by heart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import scg

Fn = Callable[..., Any]


def double(values: float | Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def value(g: scg.Graph, name: str) -> Tensor:
    """Return a parameter of a graph."""
    return g[name].value


def fill(g: scg.Graph, **values: float) -> None:
    """Give parameters of a graph other values."""
    with torch.no_grad():
        for name, number in values.items():
            g[name].value.fill_(number)


def below(x: Tensor) -> Tensor:
    """Return the standard normal distribution function."""
    return torch.special.ndtr(x)


class Module(nn.Module):
    """A function as a module, with parameters of its own where it takes them."""

    def __init__(self, fn: Fn, **parameters: float | Sequence[float]) -> None:
        super().__init__()
        self.fn = fn
        for name, number in parameters.items():
            self.register_parameter(name, nn.Parameter(double(number)))

    def forward(self, *args: Any) -> Any:
        return self.fn(*self._parameters.values(), *args)
