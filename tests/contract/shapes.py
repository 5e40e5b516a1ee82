"""Small graphs in which an upper and a lower stochastic node meet in every way that graphs allow.

Functions are polynomials of low degree, so that three Gauss-Hermite points integrate them exactly, and
costs stay small, so that the credit never deviates by more than 1. They count dimensions from the right,
so that a graph may have one more plate on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.distributions import Bernoulli, Binomial, Normal

import scg

POINTS = 3
POINT = "point"
COPIES = 3
Sample = Callable[..., scg.Node]


@dataclass(frozen=True)
class Kinds:
    """The laws of the upper and the lower node: "bernoulli", "binomial" or "normal".

    A graph that is ``many`` has a plate POINT of independent copies, which are added, around everything,
    and its parameters are inputs with a value for each copy.
    """

    upper: str
    lower: str
    many: bool = False

    @property
    def polynomial(self) -> bool:
        """Whether probabilities have to be polynomials, since a normal may be above them."""
        return "normal" in (self.upper, self.lower)


@dataclass(frozen=True)
class Shape:
    """A graph, the part that each stochastic node plays in it, and its siblings.

    A part is "upper", "lower", or the name of an estimator that stays the same.
    """

    graph: scg.Graph
    parts: Mapping[str, str]
    siblings: Mapping[str, str] = field(default_factory=dict)


class Draft:
    """A graph under construction: ``upper`` and ``lower`` declare nodes of the two kinds."""

    def __init__(self, kinds: Kinds) -> None:
        self.g = scg.Graph()
        self.kinds = kinds
        self.parts: dict[str, str] = {}
        if kinds.many:
            self.g.plate(POINT, reduce="sum")

    def param(self, name: str, value: Any, *plates: str) -> scg.Node:
        start = torch.as_tensor(value, dtype=torch.float64)
        if not self.kinds.many:
            return self.g.param(name, start, plates=plates)
        return self.g.input(name, plates=self.within(*plates), example=start.expand(COPIES, *start.shape))

    def within(self, *plates: str) -> tuple[str, ...]:
        """These plates, inside that of the copies if there is one."""
        return (POINT, *plates) if self.kinds.many else plates

    def upper(self, name: str, pressure: scg.Node, **options: Any) -> scg.Node:
        return self._sample("upper", self.kinds.upper, name, pressure, **options)

    def lower(self, name: str, pressure: scg.Node, **options: Any) -> scg.Node:
        return self._sample("lower", self.kinds.lower, name, pressure, **options)

    def fixed(self, estimator: str, kind: str, name: str, pressure: scg.Node, **options: Any) -> scg.Node:
        return self._sample(estimator, kind, name, pressure, **options)

    def _sample(self, part: str, kind: str, name: str, pressure: scg.Node, **options: Any) -> scg.Node:
        self.parts[name] = part
        if kind == "normal":
            scale = self.param(f"{name}_scale", 0.6)
            return self.g.sample(name, Normal, loc=pressure, scale=scale, **options)
        chance = {"probs": chances(pressure)} if self.kinds.polynomial else {"logits": pressure}
        if kind == "binomial":
            return self.g.sample(name, Binomial, total_count=2, **chance, **options)
        return self.g.sample(name, Bernoulli, **chance, **options)

    def shape(self, **siblings: str) -> Shape:
        return Shape(self.g, self.parts, siblings)


def chances(pressure: scg.Node) -> scg.Node:
    """A probability that is a polynomial, for pressures up to 4."""
    node: scg.Node = 0.5 + 0.12 * pressure
    return node


def low(x: Any, y: Any) -> Any:
    """A cost of two values, of low degree and not a sum of a function of each."""
    return 0.2 * (y - 0.4) ** 2 + 0.3 * x * y - 0.1 * x


def chain(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    a, b = d.param("a", 0.3), d.param("b", -0.2)
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x)
    d.g.cost("cost", low, x, y)
    return d.shape()


def fork(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    a, b = d.param("a", 0.3), d.param("b", -0.2)
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x)
    w = d.lower("w", 0.5 * b - 0.4 * x)
    d.g.cost("left", low, x, y)
    d.g.cost("right", 0.25 * (w - 0.3) ** 2)
    return d.shape(y="w", w="y")


def join(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    a, b, c = d.param("a", 0.3), d.param("b", -0.2), d.param("c", 0.1)
    x = d.upper("x", a)
    w = d.lower("w", b)
    y = d.fixed("score", "bernoulli", "y", c + 0.6 * x - 0.5 * w)
    d.g.cost("own", low, w, x)
    d.g.cost("cost", 0.4 * y * (x + 0.3) + 0.2 * w)
    return d.shape(x="w", w="x")


def diamond(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    a, b = d.param("a", 0.3), d.param("b", -0.2)
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x)
    w = d.upper("w", b - 0.4 * x)
    d.g.cost("cost", lambda y, w: 0.4 * (y - 0.3) * (w + 0.2), y, w)
    return d.shape(y="w", w="y")


def direct(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    a, b = d.param("a", 0.3), d.param("b", -0.2)
    h = d.g.det("h", lambda a: a * a + 0.5, a)
    x = d.upper("x", h)
    y = d.lower("y", b + 0.5 * x + 0.3 * h)
    d.g.cost("cost", lambda x, y, h, b: 0.3 * h * y + 0.2 * b * x * y + h * b, x, y, h, b)
    return d.shape()


def between_normals(kinds: Kinds) -> Shape:
    """A reparameterised node above, and one below."""
    d = Draft(replace(kinds, lower="normal"))
    a, b = d.param("a", 0.3), d.param("b", -0.2)
    top = d.fixed("reparam", "normal", "top", 0.5 * a)
    x = d.upper("x", a + 0.4 * top)
    end = d.fixed("reparam", "normal", "end", b + 0.5 * x)
    d.g.cost("cost", low, x, end)
    d.g.cost("across", 0.2 * top * end)
    return d.shape()


def plated(kinds: Kinds, reduce: str = "mean") -> Shape:
    d = Draft(kinds)
    d.g.plate("p", size=2, reduce=reduce)
    a, b = d.param("a", [0.3, -0.5], "p"), d.param("b", -0.2)
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x)
    d.g.cost("cost", low, x, y)
    return d.shape()


def summed(kinds: Kinds) -> Shape:
    return plated(kinds, "sum")


def plate_added(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    d.g.plate("p", size=2)
    a, b = d.param("a", 0.3), d.param("b", -0.2)
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x, plates=d.within("p"))
    d.g.cost("cost", low, x, y)
    d.g.cost("own", 0.3 * x)
    return d.shape()


def sum_added(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    d.g.plate("p", size=2, reduce="sum")
    a, b = d.param("a", 0.3), d.param("b", -0.2)
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x, plates=d.within("p"))
    d.g.cost("cost", lambda x, y: 0.5 * low(x, y), x, y)
    return d.shape()


def aligned_and_aggregate(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    d.g.plate("p", size=2)
    a, b = d.param("a", [0.3, -0.5], "p"), d.param("b", -0.2)
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x)
    total = d.g.det("total", lambda y: y.sum(-1), y, plates=d.within())
    d.g.cost("aligned", low, x, y)
    d.g.cost("aggregate", 0.1 * (total - 0.8) ** 2)
    return d.shape()


def through_a_mean(kinds: Kinds) -> Shape:
    """A mean plate above, and a node and a cost without it below."""
    d = Draft(kinds)
    d.g.plate("p", size=2)
    a, b = d.param("a", [0.3, -0.5], "p"), d.param("b", -0.2)
    x = d.upper("x", a)
    mean = d.g.det("mean_x", lambda x: x.mean(-1), x, plates=d.within())
    y = d.lower("y", b + 0.7 * mean)
    d.g.cost("cost", low, mean, y)
    d.g.cost("own", 0.2 * x)
    return d.shape()


def ordered(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    d.g.plate("t", size=2, ordered=True, discount=0.7)
    a, b = d.param("a", [0.3, -0.5], "t"), d.param("b", -0.2)
    x = d.upper("x", a)
    past = d.g.det("past", lambda x: x.cumsum(-1), x)
    y = d.lower("y", b + 0.5 * past)
    d.g.cost("cost", lambda past, y: 0.5 * low(past, y), past, y)
    return d.shape()


def mixing(kinds: Kinds) -> Shape:
    d = Draft(kinds)
    d.g.plate("p", size=2)
    a, b = d.param("a", [0.3, -0.5], "p"), d.param("b", -0.2)
    x = d.upper("x", a)
    centred = d.g.det("centred", lambda x: x - x.mean(-1, keepdim=True), x, mixes="p")
    y = d.lower("y", b + 0.7 * centred)
    d.g.cost("cost", low, x, y)
    return d.shape()


def nested(kinds: Kinds, inside: int = 2) -> Shape:
    d = Draft(kinds)
    d.g.plate("outer", size=3)
    d.g.plate("inner", size=inside)
    a = d.param("a", [0.3, -0.5, 1.1], "outer")
    b = d.param("b", torch.linspace(-0.6, 0.7, inside), "inner")
    x = d.upper("x", a)
    y = d.lower("y", b + 0.7 * x)
    total = d.g.det("total", lambda y: y.sum(-1), y, plates=d.within("outer"))
    d.g.cost("aligned", low, x, y)
    d.g.cost("aggregate", lambda x, total: 0.2 * (1 + x) * total, x, total)
    return d.shape()


def deep(many: bool, *laws: str) -> Shape:
    """A chain, each node below the one before it, with costs of its own and one of the first and the last."""
    d = Draft(Kinds("bernoulli", "normal" if "normal" in laws else "bernoulli", many=many))
    nodes: list[scg.Node] = []
    for index, law in enumerate(laws):
        start = d.param(f"a{index}", 0.4 - 0.3 * index)
        pressure = start + 0.8 * nodes[-1] if nodes else start
        nodes.append(d.fixed(str(index), law, f"x{index}", pressure))
        d.g.cost(f"cost{index}", 0.2 * (nodes[-1] - 0.3) ** 2)
    d.g.cost("first_and_last", 0.5 * nodes[0] * nodes[-1])
    return d.shape()


def wide(kinds: Kinds) -> Shape:
    """Nested plates of 3 and 5 elements."""
    return nested(kinds, 5)
