"""Programs whose examples hide a gate, a crossing, mixed replicates, a size or a coincidence of shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from tests.truth.building import Fn, Module, below, double, fill, value
from tests.truth.exact import bits, mean_of, normals
from tests.truth.judge import Case, Inputs

SCORES = double([0.3, 1.9, -0.8])


def lookup(g: scg.Graph, name: str, k: scg.Node) -> scg.Node:
    found: scg.Node = g.det(name, lambda k: SCORES[k], k, relaxed=lambda p: p @ SCORES)
    return found


def classes_and_replicates(policy: Any, nodes: int) -> Case:
    """As many classes as replicates, so that a value [3] has the shape of the logits [3]."""

    def make() -> scg.Graph:
        g = scg.Graph()
        logits = [g.param(f"logits{i}", double([0.2, -0.1, 0.4])) for i in range(nodes)]
        read = [
            lookup(g, f"h{i}", g.sample(f"k{i}", Categorical, logits=part)) for i, part in enumerate(logits)
        ]
        g.cost("c", lambda *h: sum(h) + 0.1 * sum(h) ** 2, *read)  # mild, so that few runs tell
        return g

    def objective(g: scg.Graph) -> Tensor:
        p = [value(g, f"logits{i}").softmax(-1) for i in range(nodes)]
        total = double(0.0)
        for picked in itertools.product(range(3), repeat=nodes):
            mass = torch.stack([part[k] for part, k in zip(p, picked, strict=True)]).prod()
            scored = SCORES[list(picked)].sum()
            total = total + mass * (scored + 0.1 * scored**2)
        return total

    return Case(make, objective, policy=policy, samples=3, effort=6, must_work=True)


def classes_and_batch(policy: Any) -> Case:
    """As many classes as elements of a plate, and logits without that plate."""

    def make() -> scg.Graph:
        g = scg.Graph()
        t = g.input("t", plates="batch", example=double([0.4, 1.2, -0.3]))
        k = g.sample("k", Categorical, logits=g.param("logits", double([0.2, -0.1, 0.4])), plates="batch")
        g.cost("c", lambda h, t: (h - t) ** 2, lookup(g, "h", k), t)
        return g

    def objective(g: scg.Graph) -> Tensor:
        errors = (SCORES[:, None] - double([0.4, 1.2, -0.3])) ** 2
        return value(g, "logits").softmax(-1) @ errors.mean(1)

    def wake(g: scg.Graph) -> Inputs:
        return {"t": double([0.4, 1.2, -0.3])}

    return Case(make, objective, wake, policy, must_work=True)


def gated(gate: str, fn: Fn, mean_jump: Fn) -> Case:
    """``fn(b, z)`` jumps in z behind a gate b that is shut in the example: automatic choice has to see it."""

    def make() -> scg.Graph:
        g = scg.Graph()
        if gate == "bernoulli":
            b = g.sample("b", Bernoulli, logits=g.param("l", double(-4.0)))
        elif gate == "parameter":
            b = g.param("l", double(0.0))
        else:
            b = g.input("x", plates="batch", example=torch.zeros(4).double())
        plates = ("batch",) if gate == "input" else ()
        z = g.sample("z", Normal, loc=g.param("mu", double(0.3)), scale=1.0, plates=plates)
        g.cost("c", g.det("h", fn, b, z))
        return g

    def wake(g: scg.Graph) -> Inputs:
        if gate != "input":
            fill(g, l=0.4)
        return {"x": double([0.5, 1.0, 2.0])} if gate == "input" else {}

    def objective(g: scg.Graph) -> Tensor:
        mean = mean_jump(value(g, "mu"))
        if gate == "input":
            return mean * 3.5 / 3
        return mean * (value(g, "l").sigmoid() if gate == "bernoulli" else value(g, "l"))

    return Case(make, objective, wake)


def crossing(fn: Fn, hidden: str, policy: Any, law: str = "bernoulli") -> Case:
    """``fn(x, a, z)`` joins elements of a plate, which the example (x or a is 0: ``hidden``) conceals."""

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input(
            "x", plates="batch", example=torch.zeros(5).double() if hidden == "x" else double([1.0] * 5)
        )
        a = g.param("a", double(0.0 if hidden == "a" else 1.0))
        theta = g.param("l", double(0.3))
        drawn = {"logits": theta} if law == "bernoulli" else {"loc": theta, "scale": 0.8}
        z = g.sample("z", Bernoulli if law == "bernoulli" else Normal, plates="batch", **drawn)
        g.cost("c", lambda h: (h - 0.4) ** 2, g.det("h", fn, x, a, z))
        return g

    x = double([1.5, 0.7])

    def objective(g: scg.Graph) -> Tensor:
        theta = value(g, "l").expand(2)
        points = bits(theta.sigmoid()) if law == "bernoulli" else normals(theta, double(0.8))
        return mean_of(lambda z: ((fn(x, value(g, "a"), z) - 0.4) ** 2).mean(), points)

    def wake(g: scg.Graph) -> Inputs:
        fill(g, a=1.3)
        return {"x": x}

    return Case(make, objective, wake, policy)


def clipped(policy: Any) -> Case:
    """A clip by the norm over the plate, which sleeps while values are small."""

    def clip(z: Tensor) -> Tensor:
        return z * torch.clamp(2.0 / z.norm(), max=1.0)

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="batch", example=0.1 * torch.ones(4).double())
        z = g.sample("z", Normal, loc=x * g.param("w", double(1.0)), scale=0.2)
        g.cost("c", lambda h: (h - 0.1) ** 2, g.det("h", clip, z))
        return g

    x = double([3.0, 0.6])

    def objective(g: scg.Graph) -> Tensor:
        points = normals(x * value(g, "w"), double(0.2))
        return mean_of(lambda z: ((clip(z) - 0.1) ** 2).mean(), points)

    return Case(make, objective, lambda g: {"x": x}, policy)


def mixed_replicates(fn: Fn, samples: int, policy: Any = "auto") -> Case:
    """``fn(a, z)`` reads along the event, which is replicates in many worlds; a is 0 in the example."""

    def make() -> scg.Graph:
        g = scg.Graph()
        z = g.sample("z", Normal, loc=g.param("mu", double([0.4, -0.3])), scale=0.7)
        h = g.det("h", fn, g.param("a", double(0.0)), z)
        g.cost("c", lambda h: ((h - 0.2) ** 2).sum(-1), h)
        return g

    def objective(g: scg.Graph) -> Tensor:
        points = normals(value(g, "mu"), double(0.7))
        return mean_of(lambda z: ((fn(value(g, "a"), z) - 0.2) ** 2).sum(), points)

    def wake(g: scg.Graph) -> Inputs:
        fill(g, a=1.7)
        return {}

    return Case(make, objective, wake, policy, samples)


def by_place(weights: Callable[[int], Tensor], size: int, policy: Any, samples: int | None = 1024) -> Case:
    """A mask by the place in the batch, made outside torch."""

    def make() -> scg.Graph:
        g = scg.Graph()
        b = g.sample("b", Bernoulli, logits=g.param("l", double(0.3)), plates="batch")
        t = g.input("t", plates="batch", example=torch.ones(4).double())
        g.cost("c", lambda h, t: t * (h + 0.2) ** 2, g.det("h", lambda b: b * weights(len(b)), b), t)
        return g

    def objective(g: scg.Graph) -> Tensor:
        p = value(g, "l").sigmoid()
        return (p * (weights(size) + 0.2) ** 2 + (1 - p) * 0.04).mean()

    return Case(make, objective, lambda g: {"t": torch.ones(size).double()}, policy, samples)


def squeezed(size: int, policy: Any, samples: int | None, effort: int = 1) -> Case:
    """A module that squeezes what it gives, and a last batch of another size."""

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="batch", example=torch.ones(4, 1).double())
        z = g.sample("z", Normal, loc=x * g.param("mu", double([0.6])), scale=0.5)
        h = g.det("h", Module(lambda w, z: (w * z).squeeze(), w=[1.2]), z)
        g.cost("c", (h - 0.5) ** 2)
        return g

    def objective(g: scg.Graph) -> Tensor:
        mu, w = value(g, "mu")[0], dict(g.named_parameters())["h.w"][0]
        return (w * mu - 0.5) ** 2 + w**2 * 0.25

    return Case(
        make, objective, lambda g: {"x": torch.ones(size, 1).double()}, policy, samples, effort=effort
    )


def step(b: Tensor, z: Tensor) -> Tensor:
    return b * (z > 0).to(z.dtype)


def signed(mu: Tensor) -> Tensor:
    """Return the mean sign of a Normal of scale 1."""
    return 2 * below(mu) - 1


def listed(count: int) -> Tensor:
    return double([1.0 if place < 4 else 0.0 for place in range(count)])


def in_numpy(count: int) -> Tensor:
    return torch.from_numpy(np.arange(count) % 3 + 0.0)


def with_mean(x: Tensor, a: Tensor, z: Tensor) -> Tensor:
    return z + a * z.mean(0, keepdim=True)


def by_mean(x: Tensor, a: Tensor, z: Tensor) -> Tensor:
    return x * z.mean(0, keepdim=True)


def with_softmax(a: Tensor, z: Tensor) -> Tensor:
    return z + a * torch.softmax(3 * z, 0)


CASES: dict[str, Callable[[], Case]] = {
    "3 classes, 3 replicates, automatic": lambda: classes_and_replicates("auto", 4),
    "3 classes, 3 replicates, rebar": lambda: classes_and_replicates("rebar", 1),
    "3 classes, 3 replicates, local enumeration": lambda: classes_and_replicates(
        scg.Enumerate(local=True), 1
    ),
    "3 classes, batch of 3, rebar": lambda: classes_and_batch("rebar"),
    "3 classes, batch of 3, local enumeration": lambda: classes_and_batch(scg.Enumerate(local=True)),
    "a jump behind a Bernoulli gate": lambda: gated("bernoulli", step, below),
    "a jump behind a parameter at 0": lambda: gated("parameter", step, below),
    "a jump behind an input of zeros": lambda: gated("input", step, below),
    "copysign behind a Bernoulli gate": lambda: gated("bernoulli", torch.copysign, signed),
    "copysign behind a parameter at 0": lambda: gated("parameter", torch.copysign, signed),
    "copysign behind an input of zeros": lambda: gated("input", torch.copysign, signed),
    "crossing behind an input of zeros, automatic": lambda: crossing(by_mean, "x", "auto"),
    "crossing behind an input of zeros, score": lambda: crossing(by_mean, "x", "score", "normal"),
    "crossing with weight 0, automatic": lambda: crossing(with_mean, "a", "auto"),
    "crossing with weight 0, score": lambda: crossing(with_mean, "a", "score", "normal"),
    "a clip by the norm that sleeps": lambda: clipped("score"),
    "replicates mixed with weight 0": lambda: mixed_replicates(with_softmax, 50),
    "replicates mixed with weight 0, score": lambda: mixed_replicates(with_softmax, 1024, "score"),
    "squeeze, a batch of 1, one sample": lambda: squeezed(1, "auto", None, 64),
    "squeeze, a batch of 1, replicates": lambda: squeezed(1, "auto", 1024),
    "squeeze, a batch of 1, score": lambda: squeezed(1, "score", 1024),
    "squeeze, a batch of 3, replicates": lambda: squeezed(3, "auto", 1024),
    "a mask from a list, enumerated": lambda: by_place(listed, 8, "enumerate"),
    "a mask from a list, score": lambda: by_place(listed, 8, "score"),
    "a mask from NumPy, enumerated": lambda: by_place(in_numpy, 6, "enumerate"),
    "a mask from NumPy, score": lambda: by_place(in_numpy, 6, "score"),
    "a mask from NumPy, local enumeration": lambda: by_place(in_numpy, 6, scg.Enumerate(local=True)),
}
