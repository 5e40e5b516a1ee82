"""Graphs to be exact about: small, in float64, with plates, mixing and aggregates."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, OneHotCategorical

from scg.graph import Graph
from scg.nodes.handle import Node

SIZES = {"a": 2, "b": 3, "t": 3}
LEVELS: list[tuple[str, ...]] = [(), ("a",), ("b",), ("a", "b")]


def of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def plated(**sums: bool) -> Graph:
    """Return a graph that knows its plates; those named are summed, not averaged."""
    g = Graph()
    for name in ("a", "b"):
        g.plate(name, size=SIZES[name], reduce="sum" if sums.get(name) else "mean")
    g.plate("t", size=SIZES["t"], reduce="sum", ordered=True, discount=0.8)
    return g


def aligned_and_aggregate() -> Graph:
    g = plated()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.3, -0.8), plates="a"))
    c = g.sample("c", Bernoulli, logits=g.det("h", lambda b, u: 1.5 * b - u, b, g.param("u", of(0.4)[0])))
    g.cost("aligned", lambda b, c: (b + c - 0.6) ** 2 * (1 + b), b, c)
    g.cost("whole", g.det("product", lambda c: (c + 0.5).prod(), c, plates=()))
    return g


def nested() -> Graph:
    g = plated(b=True)
    x = g.sample("x", Bernoulli, logits=g.param("theta", of(0.5, -0.2), plates="a"))
    mean = g.det("mean", lambda x, w: x * 2 - w, x, g.param("w", of(0.3, -0.4, 1.1), plates="b"))
    y = g.sample("y", Bernoulli, logits=mean)
    g.cost("each", lambda x, y: torch.sin(x + 2 * y), x, y)
    g.cost("rows", g.det("spread", lambda y: y.sum(1) ** 2, y, plates=("a",)))
    return g


def mixed() -> Graph:
    g = plated()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.3, -0.8), plates="a"))
    centred = g.det("centred", lambda b: (b - b.mean(0)) * b.sum(0).exp(), b, mixes="a")
    c = g.sample("c", Bernoulli, logits=centred)
    g.cost("loss", lambda b, c: (b + c - 0.7) ** 2, centred, c)
    return g


def mixed_below() -> Graph:
    """An element of the cost sees its own c but, through c, all of b."""
    g = plated(a=True)
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.1, 0.9), plates="a"))
    c = g.sample("c", Bernoulli, logits=g.det("roll", lambda b: b.flip(0) - 0.5 * b, b, mixes="a"))
    g.cost("loss", lambda b, c, u: torch.exp(u * b - c), b, c, g.param("u", of(0.7)[0]))
    return g


def mixing_cost() -> Graph:
    g = plated()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.1, 0.9), plates="a"))
    g.cost("loss", lambda b: b.cumsum(0) ** 2, b, mixes="a")
    return g


def over_time() -> Graph:
    g = plated()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.1, 0.9, -0.4), plates="t"))
    state = g.det("state", lambda b: b.cumsum(0), b)
    g.cost("reward", lambda state, b: (state - 1.3) ** 2 + b, state, b)
    return g


def batches_over_time() -> Graph:
    g = plated()
    logits = g.det(
        "logits",
        lambda u, v: u + v,
        g.param("u", of(0.1, 0.9), plates="a"),
        g.param("v", of(0.2, -1, 0.6), plates="t"),
    )
    b = g.sample("b", Bernoulli, logits=logits)
    g.cost("reward", lambda b: torch.sin(1 + b.cumsum(1)), b)
    g.cost("last", g.det("final", lambda b: b.sum(1) ** 2, b, plates=("a",)))
    return g


def expanded() -> Graph:
    """A global choice, copied along a plate, then read by independent draws and by an aggregate."""
    g = plated()
    z = g.sample("z", Binomial, total_count=2, logits=g.param("theta", of(0.4)[0]))
    many = g.det("many", lambda z: (z * 0.7 - 0.5).reshape(1), z, plates=("a",))
    b = g.sample("b", Bernoulli, logits=many)
    g.cost("loss", lambda z, b: (z - b - 0.2) ** 2, z, b)
    g.cost("sum", g.det("total", lambda b: torch.tanh(b.sum(0)), b, plates=()))
    return g


def events() -> Graph:
    g = plated()
    k = g.sample(
        "k", Categorical, logits=g.param("rows", of(0.1, 0.9, -0.4, 0.3, 0.0, 1.0).reshape(2, 3), plates="a")
    )
    v = g.sample(
        "v", Bernoulli, logits=g.det("h", lambda k, w: k.unsqueeze(-1) * w, k, g.param("w", of(0.5, -0.3)))
    )
    g.cost("loss", g.det("f", lambda k, v: torch.cos(k + 1.7 * v[..., 0] * (1 + v[..., 1])), k, v))
    return g


def one_hot_log_prob() -> Graph:
    g = plated()
    logits = g.param("rows", of(0.1, 0.9, -0.4, 0.3, 0.0, 1.0).reshape(2, 3), plates="a")
    z = g.sample("z", OneHotCategorical, logits=logits)
    b = g.sample("b", Bernoulli, logits=g.det("h", lambda z, w: z @ w, z, g.param("w", of(0.5, -0.3, 0.8))))
    prior = g.log_prob(Bernoulli, b, logits=g.param("prior", of(0.2)[0]))
    g.cost("elbo", lambda *logs: logs[0] + logs[1] - 2 * logs[2], g.log_prob(z), g.log_prob(b), prior)
    return g


def black_box() -> Graph:
    g = plated()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.3, -0.8), plates="a"))
    g.cost("loss", g.det("score", lambda b: b.numpy() ** 2 - 0.3, b, differentiable=False))
    return g


def shared_plate() -> Graph:
    """One path keeps the plate, the other drops it."""
    g = plated()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.3, -0.8), plates="a"))
    most = g.det("most", lambda b: b.max(0).values, b, plates=())
    g.cost("loss", lambda b, most, u: (b - u * most) ** 2, b, most, g.param("u", of(0.7)[0]))
    return g


SMALL: list[Callable[[], Graph]] = [
    aligned_and_aggregate,
    nested,
    mixed,
    mixed_below,
    mixing_cost,
    over_time,
    batches_over_time,
    expanded,
    events,
    one_hot_log_prob,
    black_box,
    shared_plate,
]


def drawn(seed: int, budget: int = 8) -> Graph:
    """Return a random graph of up to eight inner nodes and at most ``budget`` stochastic elements."""
    rng = random.Random(seed)
    g = plated(a=rng.random() < 0.5, b=rng.random() < 0.5)
    nodes: list[tuple[Node, tuple[str, ...]]] = []
    for index in range(2):
        plates = rng.choice(LEVELS)
        init = torch.tensor(_normals(rng, plates), dtype=torch.float64)
        nodes.append(
            (g.param(f"theta{index}", init.reshape([SIZES[p] for p in plates]), plates=plates), plates)
        )
    spent = 0
    for index in range(rng.randint(6, 8)):
        chosen = rng.sample(nodes, min(len(nodes), rng.randint(1, 3)))
        plates = tuple(p for p in ("a", "b") if any(p in have for _, have in chosen))
        node = _combined(g, rng, f"h{index}", chosen)
        if rng.random() < 0.35:
            node, plates = _reshaped(g, rng, f"r{index}", node, plates)
        count = len(_normals(rng, plates))
        if spent + count <= budget and rng.random() < 0.7:
            spent += count
            node = g.sample(f"b{index}", Bernoulli, logits=node)
        nodes.append((node, plates))
    for index, (node, plates) in enumerate(rng.sample(nodes[2:], 2)):
        g.cost(f"cost{index}", _combined(g, rng, f"c{index}", [(node, plates), nodes[-1]]))
    return g


def _normals(rng: random.Random, plates: tuple[str, ...]) -> list[float]:
    count = 1
    for plate in plates:
        count *= SIZES[plate]
    return [rng.gauss(0, 1) for _ in range(count)]


def _combined(g: Graph, rng: random.Random, name: str, parents: list[tuple[Node, tuple[str, ...]]]) -> Node:
    weights = [rng.gauss(0, 1) for _ in parents]

    def fn(*values: Tensor) -> Tensor:
        mixture = sum(
            (w * v for w, v in zip(weights, values, strict=True)), torch.zeros((), dtype=torch.float64)
        )
        return torch.sin(mixture * 1.7 + 0.3) * 2

    node: Node = g.det(name, fn, *(parent for parent, _ in parents))
    return node


def _reshaped(
    g: Graph, rng: random.Random, name: str, node: Node, plates: tuple[str, ...]
) -> tuple[Node, tuple[str, ...]]:
    """Aggregate, mix or expand one plate."""
    plate = rng.choice(["a", "b"])
    if plate not in plates:
        wider = tuple(p for p in ("a", "b") if p in plates or p == plate)
        dim = wider.index(plate)
        return g.det(
            name, lambda v: (v + 0.2).unsqueeze(dim) if plates == () else v + 0.2, node, plates=wider
        ), wider
    dim = plates.index(plate)
    if rng.random() < 0.5:
        rest = tuple(p for p in plates if p != plate)
        return g.det(name, lambda v: torch.cos(v).sum(dim), node, plates=rest), rest
    return g.det(name, lambda v: v.cumsum(dim) - v.mean(dim, keepdim=True), node, mixes=plate), plates
