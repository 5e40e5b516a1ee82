"""The five graphs of Schulman et al. (2015), Figure 1, with functions and distributions filled in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from scg.graph import Graph


def schulman_1() -> Graph:
    """Declare theta -> [x] -> (y) -> [f]; the estimator is dx/dtheta dlog p(y | x)/dx f(y).

    >>> list(schulman_1())
    ['theta', 'x', 'y', 'f']
    """
    g = Graph("schulman_1")
    theta = g.param("theta", 0.4)
    x = g.det("x", torch.tanh, theta)
    y = g.sample("y", Bernoulli, logits=x)
    g.cost("f", miss, y)
    return g


def schulman_2() -> Graph:
    """Declare theta -> (x) -> [y] -> [f]; the estimator is dlog p(x | theta)/dtheta f(y(x))."""
    g = Graph("schulman_2")
    theta = g.param("theta", 0.4)
    x = g.sample("x", Normal, loc=theta, scale=0.8)
    y = g.det("y", torch.sin, x)
    g.cost("f", miss, y)
    return g


def schulman_3() -> Graph:
    """Declare theta -> (x) -> (y) -> [f]; the estimator is dlog p(x | theta)/dtheta f(y)."""
    g = Graph("schulman_3")
    theta = g.param("theta", 0.4)
    x = g.sample("x", Bernoulli, logits=theta)
    y = g.sample("y", Normal, loc=x, scale=0.5)
    g.cost("f", miss, y)
    return g


def schulman_4() -> Graph:
    """Declare theta -> [x] -> (y) -> [f] and x -> [f].

    The estimator is dx/dtheta dlog p(y | x)/dx f(x, y) + dx/dtheta df/dx.
    """
    g = Graph("schulman_4")
    theta = g.param("theta", 0.4)
    x = g.det("x", torch.exp, theta)
    y = g.sample("y", Normal, loc=x, scale=0.5)
    g.cost("f", product, x, y)
    return g


def schulman_5() -> Graph:
    """Declare x0 -> (x1) -> (x2) with theta -> both, and a cost of each.

    The estimator is dlog p(x1 | theta, x0)/dtheta (f1 + f2) + dlog p(x2 | theta, x1)/dtheta f2.
    """
    g = Graph("schulman_5")
    x0 = g.input("x0", example=torch.tensor(1.0))
    theta = g.param("theta", 0.4)
    x1 = g.sample("x1", shifted, x0, theta)
    x2 = g.sample("x2", shifted, x1, theta)
    g.cost("f1", miss, x1)
    g.cost("f2", miss, x2)
    return g


SCHULMAN: tuple[Callable[[], Graph], ...] = (schulman_1, schulman_2, schulman_3, schulman_4, schulman_5)


def miss(y: Tensor) -> Tensor:
    """Return (y - 0.3)^2."""
    return (y - 0.3) ** 2


def product(x: Tensor, y: Tensor) -> Tensor:
    """Return x y."""
    return x * y


def shifted(state: Tensor, theta: Tensor) -> Normal:
    """Return the law of the next state, Normal(theta state, 0.5)."""
    return Normal(theta * state, 0.5)
