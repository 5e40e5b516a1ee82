"""Graphs that could break an estimator: small, with an exact gradient where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Exponential,
    Gamma,
    Geometric,
    Laplace,
    Normal,
    OneHotCategorical,
    Poisson,
)

from scg.graph import Graph
from scg.nodes.handle import Node

X = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64)
WEIGHTS = (0.9, -0.7, 0.2)


@dataclass(frozen=True)
class Example:
    """A graph, the node at which an estimator is tried, and what the others have, by name.

    ``resolution`` is the relative bias that gradients are held to there; less costs many more runs.
    """

    name: str
    make: Callable[[], Graph]
    node: str = "z"
    others: tuple[tuple[str, str], ...] = ()
    resolution: float = 0.1


def parameter(g: Graph, name: str, *values: float) -> Node:
    """Declare a parameter in double precision."""
    value = torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)
    return g.param(name, value)


def inputs(g: Graph, size: int = 3) -> Node:
    """Declare an input of some elements of a plate."""
    return g.input("x", plates="batch", example=X[:size])


def squares(z: Tensor) -> Tensor:
    """Return a cost that is no sum over the entries of an event."""
    weights = torch.tensor(WEIGHTS[: z.shape[-1]], dtype=z.dtype, device=z.device)
    return ((z * weights).sum(-1) - 0.3) ** 2 + z[..., 0]


def step(z: Tensor) -> Tensor:
    """Return a cost without a derivative."""
    return (z.sum(-1) > 0.5).to(z.dtype) * 1.3 + z[..., 0].round()


def coins(size: int = 3, scale: float = 1.0, cost: Callable[[Tensor], Tensor] = squares) -> Graph:
    """Two coins for each element."""
    g = Graph("coins")
    w = parameter(g, "w", 0.4, -0.7)
    h = g.det("h", lambda x, w: scale * (x[..., None] * w + 0.2), inputs(g, size), w)
    g.cost("c", cost, g.sample("z", Bernoulli, logits=h))
    return g


def coin_from_probs() -> Graph:
    """A coin for each element, whose probability is the parameter."""
    g = Graph("coin from probs")
    w = parameter(g, "w", 0.4)
    z = g.sample("z", Bernoulli, probs=g.det("p", lambda x, w: torch.sigmoid(x * 0.2 + w), inputs(g), w))
    g.cost("c", (z + 0.3) ** 2)
    return g


def choice(law: type, relaxed_at: bool) -> Graph:
    """A choice of three for each element."""
    g = Graph("choice")
    w = parameter(g, "w", 0.4, -0.7, 0.1)
    z = g.sample("z", law, logits=g.det("h", lambda x, w: (0.2 * x[..., None] + 1) * w, inputs(g), w))
    value = z if relaxed_at else g.det("v", looked_up, z, relaxed=weighed)
    g.cost("c", squares if relaxed_at else above, value)
    return g


def above(v: Tensor) -> Tensor:
    """Return a cost of a number."""
    return (v + 1) ** 2


def looked_up(k: Tensor) -> Tensor:
    """Return a number for each outcome."""
    hot = torch.stack([k == index for index in range(3)], -1).to(torch.float64)
    return weighed(hot)


def weighed(hot: Tensor) -> Tensor:
    """Return a number for each outcome, or a mean of them."""
    return (hot * torch.tensor(WEIGHTS, dtype=hot.dtype, device=hot.device)).sum(-1)


def positive(law: Callable[..., torch.distributions.Distribution], *others: float) -> Graph:
    """A law for each element, of a positive parameter, and of others that are not learned."""
    g = Graph("positive")
    w = parameter(g, "w", 0.3)
    rate = g.det("rate", lambda x, w: torch.exp(x * w + 0.4), inputs(g), w)
    g.cost("c", (g.sample("z", law, rate, *others) - 0.1) ** 2)
    return g


def located(law: Callable[..., torch.distributions.Distribution]) -> Graph:
    """A law for each element, of which location and scale are learned."""
    g = Graph("located")
    w, s = parameter(g, "w", 0.4), parameter(g, "s", -0.3)
    z = g.sample("z", law, inputs(g) * w, g.det("scale", torch.exp, s))
    g.cost("c", (z - 0.3) ** 2 + z)
    return g


def failures() -> Graph:
    """A count of failures for each element."""
    g = Graph("failures")
    w = parameter(g, "w", 0.3)
    z = g.sample("z", Geometric, logits=inputs(g) * w + 0.5)
    g.cost("c", (z - 0.8) ** 2 * 0.2)
    return g


def chain() -> Graph:
    """Coins above and below the node."""
    g = Graph("chain")
    x, w = inputs(g), parameter(g, "w", 0.4, -0.7)
    a = g.sample("a", Bernoulli, logits=x + g.det("w0", lambda w: w[0], w))
    z = g.sample("z", Bernoulli, logits=g.det("h", lambda a, w: a[..., None] * w - 0.1, a, w))
    b = g.sample("b", Bernoulli, logits=g.det("m", lambda z, a, w: (z * w).sum(-1) - a, z, a, w))
    g.cost("c", lambda z, b: squares(z) + b * z[..., 1], z, b)
    g.cost("log", g.log_prob(z) * 0.3)
    return g


def fork() -> Graph:
    """Two ways from the node to a cost, one through another draw, and a cost beside them."""
    g = Graph("fork")
    x, w = inputs(g), parameter(g, "w", 0.4)
    z = g.sample("z", Bernoulli, logits=x * w + 0.2)
    b = g.sample("b", Normal, z * w, 0.5)
    g.cost("c", lambda z, b: (b - z) ** 2 + b, z, b)
    g.cost("d", (z - 0.4) ** 2 * w)
    return g


def joined() -> Graph:
    """A cost of all elements of the plate together."""
    g = Graph("joined")
    x, w = inputs(g, 2), parameter(g, "w", 0.4)
    z = g.sample("z", Bernoulli, logits=x * w + 0.2)
    g.cost("c", lambda z: z.sum(-1) ** 2, z, plates=())
    g.cost("d", (z - 0.4) ** 2)
    return g


def bounded() -> Graph:
    """Coins of two particles for each element, and the importance weighted bound of them."""
    g = Graph("bounded")
    particles = g.plate("particles", size=2)
    x, w = g.input("x", plates="batch", example=X[:2]), parameter(g, "w", 0.4, -0.7)
    z = g.sample("z", Bernoulli, logits=g.det("h", along, x, w), plates=(particles, "batch"))
    likelihood = g.log_prob(Normal, x, g.det("m", weighed_coins, z, w), 0.6)
    g.bound("bound", g.log_prob(z) - g.log_prob(prior, z) - likelihood, over=particles)
    return g


def particles() -> Graph:
    """Two particles of a normal law for each element, and the importance weighted bound of them."""
    g = Graph("particles")
    both = g.plate("both", size=2)
    x, w, s = inputs(g, 1), parameter(g, "w", 0.4), parameter(g, "s", -0.3)
    z = g.sample("z", Normal, x * w + 0.2, g.det("scale", torch.exp, s), plates=(both, "batch"))
    likelihood = g.log_prob(Normal, x, z.sin() * w, 0.9)
    g.bound("bound", g.log_prob(z) - g.log_prob(Normal, z, 0.0, 1.0) - likelihood, over=both)
    return g


def along(x: Tensor, w: Tensor) -> Tensor:
    """Return the logits of two coins for each number."""
    return x[..., None] * w + 0.2


def weighed_coins(z: Tensor, w: Tensor) -> Tensor:
    """Return a number for two coins."""
    return (z * w).sum(-1) + 0.3 * z.prod(-1)


def prior() -> Bernoulli:
    """Return a law of two coins."""
    return Bernoulli(logits=torch.tensor([0.3, -0.2], dtype=torch.float64))


def steps() -> Graph:
    """An ordered plate with a discount, whose costs add."""
    g = Graph("steps")
    g.plate("time", reduce="sum", ordered=True, discount=0.7)
    x = g.input("x", plates="time", example=X)
    z = g.sample("z", Bernoulli, logits=x * parameter(g, "w", 0.4) + 0.2)
    g.cost("c", lambda z: torch.cumsum(z, -1) ** 2 * 0.3, z)
    return g


def unreached() -> Graph:
    """A node that no cost reads, beside one that is read."""
    g = Graph("unreached")
    w = parameter(g, "w", 0.4)
    g.sample("z", Bernoulli, logits=w)
    g.cost("c", g.sample("b", Bernoulli, logits=w) * 2)
    return g


EXAMPLES = (
    Example("coins", coins),
    Example("coins-one-element", lambda: coins(1)),
    Example("coins-extreme", lambda: coins(scale=12.0)),
    Example("coins-with-a-step", lambda: coins(cost=step), resolution=0.2),
    Example("coin-from-probs", coin_from_probs),
    Example("categorical", lambda: choice(Categorical, relaxed_at=False), resolution=0.2),
    Example("one-hot", lambda: choice(OneHotCategorical, relaxed_at=True), resolution=0.2),
    Example("normal", lambda: located(Normal)),
    Example("laplace", lambda: located(Laplace), resolution=0.3),
    Example("exponential", lambda: positive(Exponential), resolution=0.3),
    Example("gamma", lambda: positive(Gamma, 1.5), resolution=0.5),
    Example("beta", lambda: positive(Beta, 1.5), resolution=0.5),
    Example("poisson", lambda: positive(Poisson), resolution=0.3),
    Example("geometric", failures, resolution=0.3),
    Example("chain-above-score", chain, others=(("a", "score"), ("b", "score"))),
    Example("chain-between-sums", chain, others=(("a", "enumerate"), ("b", "enumerate"))),
    Example("chain-below-rebar", chain, others=(("a", "rebar"), ("b", "enumerate"))),
    Example("fork", fork, others=(("b", "reparam"),)),
    Example("joined", joined),
    Example("steps", steps),
    Example("bounded", bounded),
    Example("particles", particles, resolution=0.2),
    Example("unreached", unreached, others=(("b", "enumerate"),)),
)
