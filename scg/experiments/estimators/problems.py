"""The problems: five graphs on which estimators are told apart, each small enough for a reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, OneHotCategorical

from scg.graph import Graph
from scg.nodes.handle import Node

BITS, HIDDEN, SEEN = 20, 40, 50
OUTCOMES = 64
LAYERS, WIDTH = 3, 5
PARTS = 5


@dataclass(frozen=True)
class Problem:
    """A graph by what declares it, and what it is like in a sentence."""

    make: Callable[[], Graph]
    summary: str


def toy() -> Graph:
    """Declare one coin b and the cost (b - 0.45)^2 (Tucker et al., 2017)."""
    g = Graph("toy")
    b = g.sample("b", Bernoulli, logits=g.param("l", 0.5))
    g.cost("cost", lambda b: (b - 0.45).square(), b)
    return g


def decoder(seed: int = 1) -> Graph:
    """Declare twenty bits that a network decodes to fifty, and how unlikely a point is that it may give."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    first, second = 2 * normal(BITS, HIDDEN) / BITS**0.5, 2 * normal(HIDDEN, SEEN) / HIDDEN**0.5

    def net(b: Tensor) -> Tensor:
        logits: Tensor = torch.tanh((2 * b - 1) @ first) @ second
        return logits

    x = (torch.rand(SEEN, generator=generator) < net((normal(BITS) > 0).float()).sigmoid()).float()
    g = Graph("decoder")
    b = g.sample("b", Bernoulli, logits=g.param("l", normal(BITS)))
    g.cost("cost", lambda h: (nn.functional.softplus(h) - h * x).sum(-1), g.det("seen", net, b))
    return g


def wide(seed: int = 2) -> Graph:
    """Declare a choice among 64 outcomes, of which a few have almost all of the probability."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.5 * torch.randn(OUTCOMES, generator=generator)
    values, slopes = torch.randn(2, OUTCOMES, generator=generator)
    g = Graph("wide")
    z = g.sample("z", OneHotCategorical, logits=g.param("l", logits))
    g.cost("cost", lambda z: (z @ values - 0.5) ** 2 + torch.sin(3 * (z @ slopes)), z)
    return g


def chain(seed: int = 3) -> Graph:
    """Declare layers of bits, each with logits that are linear in the layer above, and a cost at each."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    g = Graph("chain")
    above: Node | None = None
    for layer in range(LAYERS):
        if above is None:
            logits = g.param("l", normal(WIDTH))
        else:
            weights = g.param(f"w_{layer}", normal(WIDTH, WIDTH))
            logits = g.det(f"l_{layer}", lambda b, w: (2 * b - 1) @ w, above, weights)
        above = g.sample(f"b_{layer}", Bernoulli, logits=logits)
        g.cost(f"cost_{layer}", lambda b, to: ((b * to).sum(-1) - 1) ** 2, above, normal(WIDTH))
    return g


def simulator(seed: int = 4) -> Graph:
    """Declare Normal variables that a simulator counts above a threshold: no slope, and a jump at each."""
    generator = torch.Generator().manual_seed(seed)
    g = Graph("simulator")
    mean = g.param("mean", torch.randn(PARTS, generator=generator))
    scale = g.det("scale", torch.exp, g.param("log_scale", torch.zeros(PARTS)))
    z = g.sample("z", Normal, mean, scale)
    hits = g.det("hits", lambda z: (z > 0.3).float().sum(-1), z, differentiable=False)
    g.cost("cost", (hits - 2) ** 2)
    return g


PROBLEMS: Mapping[str, Problem] = {
    "toy": Problem(toy, "one coin b, and the cost (b - 0.45)^2"),
    "decoder": Problem(decoder, f"{BITS} bits, and the likelihood of what a network decodes them to"),
    "wide": Problem(wide, f"a choice among {OUTCOMES} outcomes, a few of which are likely"),
    "chain": Problem(chain, f"{LAYERS} layers of {WIDTH} bits, each given the one above, and a cost at each"),
    "simulator": Problem(
        simulator, f"{PARTS} Normal variables, and a cost of how many a black box finds above 0.3"
    ),
}
