"""Which parameters of a distribution may need a gradient, as far as the graph tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Gamma, Normal

import scg
from scg.analysis.facts import gather
from scg.choosing.describe import node_facts

Make = Callable[[scg.Graph], scg.Node]
X = torch.tensor([0.5, 1.5])


def known(make: Make) -> set[str]:
    g = scg.Graph()
    g.cost("c", make(g))
    ir = g.freeze()
    found = node_facts(gather(ir, ir.store.examples), "z", None)
    assert all(found.may_learn(name) == (name in (found.learned() or ())) for name in found.law.parameters)
    return set(found.learned() or ())


def w(g: scg.Graph) -> scg.Node:
    return g.param("w", 0.7)


def factory(shape: Tensor, rate: Tensor) -> Distribution:
    return Gamma(shape + 1.0, rate)


def through(g: scg.Graph, law: Callable[..., Distribution]) -> scg.Node:
    """A shape that is drawn under a learned law."""
    a = g.sample("a", law, w(g), *([1.0] if law is Normal else []))
    return g.sample("z", Gamma, g.det("shape", lambda a: 1.0 + a**2, a), 2.0)


CASES: dict[str, tuple[Make, set[str]]] = {
    "a number and a parameter": (lambda g: g.sample("z", Gamma, 2.0, w(g)), {"rate"}),
    "by keyword": (lambda g: g.sample("z", Gamma, rate=1.0, concentration=w(g)), {"concentration"}),
    "both of one": (lambda g: g.sample("z", Normal, (m := w(g)), m * m), {"loc", "scale"}),
    "a tensor": (lambda g: g.sample("z", Gamma, X, w(g)), {"rate"}),
    "a default": (lambda g: g.sample("z", Normal, w(g), 1.0), {"loc"}),
    "an input": (lambda g: g.sample("z", Gamma, g.input("x", example=X), w(g)), {"rate"}),
    "an input with a gradient": (
        lambda g: g.sample("z", Gamma, g.input("x", example=X.clone().requires_grad_()), 1.0),
        {"concentration"},
    ),
    "a module": (
        lambda g: g.sample("z", Normal, g.det("h", nn.Linear(2, 2), g.input("x", example=X)), 1.0),
        {"loc"},
    ),
    "a black box": (
        lambda g: g.sample("z", Normal, g.det("h", torch.sin, w(g), differentiable=False), 1.0),
        set(),
    ),
    "a value with a path": (lambda g: through(g, Normal), {"concentration"}),
    "a value without": (lambda g: through(g, lambda p: Bernoulli(torch.sigmoid(p))), set()),
    "a factory": (lambda g: g.sample("z", factory, g.input("x", example=X), w(g)), {"rate"}),
    "a factory of two": (lambda g: g.sample("z", factory, (r := w(g)), r), {"concentration", "rate"}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_may_need_a_gradient(name: str) -> None:
    make, expected = CASES[name]
    assert known(make) == expected


def test_a_run_wants_what_requires_one() -> None:
    """Whatever may: a parameter that is frozen, or an input that has a gradient in a run, is seen there."""
    met = []

    @dataclass(frozen=True)
    class Seen(scg.Cut):
        name: ClassVar[str] = "seen"

        def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
            return None

        def gradient(self, site: scg.Site) -> dict[str, Tensor]:
            met.append(site.wanted)
            return site.score(site.value, site.credit)

    g = scg.Graph()
    x = g.input("x", example=X[0])
    z = g.sample("z", Normal, x, g.param("s", 0.7))
    g.cost("c", z**2)
    program = scg.compile(g, Seen())
    program(seed=0, x=X[0])
    program(seed=0, x=X[0].clone().requires_grad_())
    assert met[-2:] == [{"scale"}, {"loc", "scale"}]
