"""Programs whose law or operation is not what the example made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Binomial,
    Categorical,
    Distribution,
    Laplace,
    Normal,
    TransformedDistribution,
    constraints,
)

import scg
from tests.truth.building import Fn, double, value
from tests.truth.exact import normals
from tests.truth.judge import Case, Inputs

LOW, HIGH = 2.0, 6.0
"""A number in the example, and the one that the program is run with."""
ONLINE = double(LOW)


class Shifted(Distribution):
    """A Normal with an argument that ``arg_constraints`` does not name."""

    arg_constraints = {"loc": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, shift: Any = 0.0, validate_args: bool | None = None) -> None:
        self.loc, self.shift = loc, shift
        super().__init__(loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Shifted:
        return Shifted(self.loc.expand(batch_shape), self.shift)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + self.shift + torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        return Normal(self.loc + self.shift, 1.0).log_prob(value)


def counted(dist: Fn, policy: Any = "auto") -> Case:
    """A Binomial of p whose count is an input: ``dist(n, p)``."""

    def make() -> scg.Graph:
        g = scg.Graph()
        n = g.input("n", example=double(LOW))
        g.cost("c", g.sample("k", dist, n, g.det("p", torch.sigmoid, g.param("l", double(0.4)))))
        return g

    return Case(make, lambda g: HIGH * value(g, "l").sigmoid(), lambda g: {"n": double(HIGH)}, policy)


def sampled_count(policy: Any = "auto") -> Case:
    """A Binomial whose count is drawn."""

    def make() -> scg.Graph:
        g = scg.Graph()
        k = g.sample("k", Categorical, logits=g.param("w", double([0.1, 0.5, 1.5])))
        p = g.det("p", torch.sigmoid, g.param("l", double(0.4)))
        g.cost("c", g.sample("m", Binomial, total_count=3 * k, probs=p))
        return g

    def objective(g: scg.Graph) -> Tensor:
        return 3 * value(g, "w").softmax(-1) @ double([0.0, 1.0, 2.0]) * value(g, "l").sigmoid()

    return Case(make, objective, policy=policy)


def switched(dist: Fn, squared: Fn, example: float, run: float, policy: Any = "auto") -> Case:
    """A factory ``dist(s, n)`` that makes another law at another n; ``squared(s)`` is then E z**2."""

    def make() -> scg.Graph:
        g = scg.Graph()
        n = g.input("n", example=double(example))
        g.cost("c", g.sample("z", dist, g.param("s", double(0.8)), n) ** 2)
        return g

    return Case(make, lambda g: squared(value(g, "s")), lambda g: {"n": double(run)}, policy)


def annealed(policy: Any = "auto") -> Case:
    """A number that a closure reads, in a transform, which is another after compiling."""
    state = {"scale": 1.0}

    def make() -> scg.Graph:
        g = scg.Graph()

        def dist(mu: Tensor) -> Distribution:
            return TransformedDistribution(Normal(mu, 0.5), [AffineTransform(0.3, state["scale"])])

        g.cost("c", g.sample("z", dist, g.param("mu", double(0.7))) ** 2)
        return g

    def wake(g: scg.Graph) -> Inputs:
        state["scale"] = 2.5
        return {}

    def objective(g: scg.Graph) -> Tensor:
        return (0.3 + 2.5 * value(g, "mu")) ** 2 + (2.5 * 0.5) ** 2

    return Case(make, objective, wake, policy)


def operation(fn: Fn, example: float = 0.0, *, node: bool = False, policy: Any = "auto") -> Case:
    """An operation on a Normal, as a function or on the node itself, run elsewhere than it is shown."""

    def make() -> scg.Graph:
        g = scg.Graph()
        at = g.input("at", example=double(example))
        z = g.sample("z", Normal, loc=at + g.param("mu", double(0.3)), scale=0.4)
        g.cost("c", fn(z) if node else g.det("h", fn, z))
        return g

    def objective(g: scg.Graph) -> Tensor:
        values, weights = normals(value(g, "mu")[None], double(0.4))
        return weights @ fn(values[:, 0])

    return Case(make, objective, lambda g: {"at": double(0.0)}, policy)


def bernoulli_or_not(s: Tensor, n: Tensor) -> Distribution:
    return Normal(0 * s, s) if bool(n > 0) else Laplace(0 * s, s)


CASES: dict[str, Callable[[], Case]] = {
    "a count that is drawn": sampled_count,
    "a count that is drawn, score": lambda: sampled_count("score"),
    "a count that is drawn, enumerated": lambda: sampled_count("enumerate"),
    "a count that is an input": lambda: counted(lambda n, p: Binomial(total_count=n, probs=p)),
    "a count that is an input, score": lambda: counted(lambda n, p: Binomial(n, p), "score"),
    "a count made an integer": lambda: counted(lambda n, p: Binomial(int(n), probs=p)),
    "another class": lambda: switched(bernoulli_or_not, lambda s: 2 * s**2, 1.0, -1.0),
    "another class, score": lambda: switched(bernoulli_or_not, lambda s: 2 * s**2, 1.0, -1.0, "score"),
    "an annealed transform": annealed,
    "an annealed transform, score": lambda: annealed("score"),
    "a law of one's own": lambda: switched(Shifted, lambda s: (s + 1.5) ** 2 + 1, 0.0, 1.5),
    "a law of one's own, score": lambda: switched(Shifted, lambda s: (s + 1.5) ** 2 + 1, 0.0, 1.5, "score"),
    "atan2 of nodes": lambda: operation(lambda z: torch.atan2(z, double(-1.0)), node=True),
    "atan2 of nodes, shown elsewhere": lambda: operation(
        lambda z: torch.atan2(z, double(-1.0)), 5.0, node=True
    ),
    "atan2, shown elsewhere": lambda: operation(lambda z: torch.atan2(z, torch.full_like(z, -0.5)), 5.0),
    "copysign, shown elsewhere": lambda: operation(lambda z: torch.copysign(torch.full_like(z, 0.7), z), 5.0),
    "copysign of nodes, shown elsewhere": lambda: operation(
        lambda z: torch.copysign(double(0.7), z), 5.0, node=True
    ),
    "nan_to_num of a root, automatic": lambda: operation(lambda z: torch.nan_to_num(torch.sqrt(z)), 3.0),
    "nan_to_num of a root, reparam": lambda: operation(
        lambda z: torch.nan_to_num(torch.sqrt(z)), policy="reparam"
    ),
    "nan_to_num of a root of nodes": lambda: operation(
        lambda z: torch.nan_to_num(torch.sqrt(z)), 3.0, node=True
    ),
}
