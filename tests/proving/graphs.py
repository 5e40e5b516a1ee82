"""Graphs that proofs are of: small, in double precision."""

from __future__ import annotations

import torch
from torch.distributions import Bernoulli, Categorical, Normal, OneHotCategorical

import scg


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def toy() -> scg.Graph:
    g = scg.Graph("toy")
    b = g.sample("b", Bernoulli, logits=g.param("theta", number(0.3)))
    g.cost("f", (b - 0.45) ** 2)
    return g


def chain() -> scg.Graph:
    g = scg.Graph("chain")
    theta, w = g.param("theta", number(0.3)), g.param("w", number(0.7))
    b1 = g.sample("b1", Bernoulli, logits=theta)
    b2 = g.sample("b2", Bernoulli, logits=w * b1 - 0.2)
    g.cost("f", (b2 - 0.4) ** 2 + 0.5 * b1 * b2 * torch.exp(theta))
    return g


def diamond() -> scg.Graph:
    g = scg.Graph("diamond")
    t, s = g.param("t", number(0.3)), g.param("s", number(0.2))
    b = g.sample("b", Bernoulli, logits=t)
    z = g.sample("z", Normal, loc=b * s, scale=0.6)
    g.cost("f", lambda b, z, t: (z - 0.3 * b) ** 2 + b * z * t, b, z, t)
    return g


def coins() -> scg.Graph:
    g = scg.Graph("coins")
    b = g.sample("b", Bernoulli, logits=g.param("l", torch.tensor([0.1, 0.4], dtype=torch.float64)))
    g.cost("f", lambda b: (b.sum() - 0.7) ** 2, b)
    return g


def choice() -> scg.Graph:
    g = scg.Graph("choice")
    k = g.sample("k", Categorical, logits=g.param("l", torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64)))
    g.cost("f", lambda k: (k.double() - 0.4) ** 2, k)
    return g


def hot() -> scg.Graph:
    g = scg.Graph("hot")
    l = g.param("l", torch.tensor([0.1, -0.3], dtype=torch.float64))  # noqa: E741
    k = g.sample("k", OneHotCategorical, logits=l)
    g.cost("f", lambda k: ((k * torch.tensor([0.1, 0.9], dtype=k.dtype)).sum(-1) - 0.4) ** 2, k)
    return g


def batch(reduce: str = "mean", discount: float = 1.0) -> scg.Graph:
    g = scg.Graph("batch")
    g.plate("batch", size=2, reduce=reduce, ordered=discount != 1.0, discount=discount)
    x = g.input("x", plates="batch", example=torch.tensor([0.3, -0.8], dtype=torch.float64))
    w = g.param("w", number(0.4))
    b = g.sample("b", Bernoulli, logits=x * w)
    g.cost("c", lambda b, w: (b - 0.3) ** 2 * torch.exp(w), b, w)
    return g


def mixed() -> scg.Graph:
    g = scg.Graph("mixed")
    x = g.input("x", plates="batch", example=torch.tensor([0.3, -0.8], dtype=torch.float64))
    b = g.sample("b", Bernoulli, logits=x * g.param("w", number(0.4)))
    g.cost("c", g.det("m", lambda b: (b.mean() - 0.3) ** 2, b, plates=(), mixes="batch"))
    return g


def probable() -> scg.Graph:
    g = scg.Graph("probable")
    b = g.sample("b", Bernoulli, probs=g.param("p", number(0.4)))
    g.cost("c", (g.sample("z", Normal, b, g.param("s", number(0.6))) - 0.3) ** 2)
    return g


def downstream() -> scg.Graph:
    """A coin below a Normal: no closed form."""
    g = scg.Graph("downstream")
    z = g.sample("z", Normal, g.param("m", number(0.4)), 1.0)
    b = g.sample("b", Bernoulli, logits=z)
    g.cost("c", (b - 0.3) ** 2 * z)
    return g


def stepped() -> scg.Graph:
    """A cost that is a step of a Normal."""
    g = scg.Graph("stepped")
    z = g.sample("z", Normal, g.param("m", number(0.4)), 1.0)
    g.cost("c", g.det("h", lambda z: (z > 0).to(z.dtype) * 1.3, z, differentiable=True))
    return g
