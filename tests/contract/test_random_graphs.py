"""Random graphs with plates under random policies: the integrated gradient is the exact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Normal

import scg
from scg.oracle import exact_gradient
from tests.contract.instances import INSTANCES
from tests.contract.judge import gap, warmed
from tests.support.integrate import integrated_gradient, worlds

NODES, RUNS, POINTS = 12, 200, 4
ASSIGNMENTS = 32
SPREAD = 0.03
"""The scale of normals, small enough for a few points to integrate any function here."""
ORDER = ("p", "t")
OUTCOMES = {"bernoulli": 2, "binomial": 3, "normal": POINTS}
ESTIMATORS: Mapping[str, tuple[str, ...]] = {
    "bernoulli": ("score", "score+self-critical", "score+moving-average", "enumerate", "local"),
    "binomial": ("score", "enumerate", "local"),
    "normal": ("reparam", "reparam", "score"),
}

ONE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sine": lambda x: torch.sin(x + 0.3),
    "sigmoid": lambda x: torch.sigmoid(1.5 * x - 0.2),
    "square": lambda x: 0.5 * x**2,
}
TWO: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda x, y: x * (y + 0.4),
    "difference": lambda x, y: torch.tanh(x - 0.6 * y),
    "mixture": lambda x, y: 0.5 * torch.sin(x + y) + 0.2 * x,
}


@dataclass
class Sketch:
    """A graph being drawn: the plates of each node that may be read, and an estimator for each sample."""

    dice: Random
    g: scg.Graph = field(default_factory=scg.Graph)
    plates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    policy: dict[str, str] = field(default_factory=dict)
    assignments: int = 1
    costs: int = 0
    known: list[str] = field(default_factory=list)

    def pick(self, options: Any) -> Any:
        return self.dice.choice(list(options))

    def recent(self) -> str:
        """A node that may be read, a late one more often."""
        names = list(self.plates)
        return names[max(self.dice.randrange(len(names)), self.dice.randrange(len(names)))]

    def fresh(self, kind: str) -> str:
        return f"{kind}{len(self.plates) + self.costs}"

    def det(self, fn: Callable[..., Tensor], *parents: str, kind: str = "h", **options: Any) -> None:
        name = self.fresh(kind)
        self.g.det(name, fn, *(self.g[parent] for parent in parents), **options)
        every = {plate for parent in parents for plate in self.plates[parent]}
        self.plates[name] = options.get("plates", tuple(plate for plate in ORDER if plate in every))

    def one(self) -> None:
        self.det(ONE[self.pick(ONE)], self.recent())

    def two(self) -> None:
        self.det(TWO[self.pick(TWO)], self.recent(), self.recent())

    def across(self) -> None:
        """Aggregate a plate, mix it, or sum along it up to each element."""
        parent = self.recent()
        have = self.plates[parent]
        if not have:
            return self.one()
        plate = self.pick(have)
        dim = have.index(plate)
        if self.pick(["aggregate", "within", "within"]) == "aggregate":
            rest = tuple(other for other in have if other != plate)
            return self.det(lambda x: x.sum(dim) * 0.6, parent, kind="total", plates=rest)
        if plate == "t":
            return self.det(lambda x: x.cumsum(dim) * 0.7, parent, kind="past")
        return self.det(lambda x: x - 0.5 * x.mean(dim, keepdim=True), parent, kind="mix", mixes=plate)

    def sample(self) -> None:
        """Declare a stochastic node, if one fits into what can be visited."""
        fitting = [
            (kind, parent, plates)
            for kind in OUTCOMES
            for parent in self.plates
            for plates in self.widened(parent)
            if self.assignments * OUTCOMES[kind] ** (2 ** len(plates)) <= ASSIGNMENTS
        ]
        if not fitting:
            return
        kind = self.pick(sorted({kind for kind, _, _ in fitting}))
        _, parent, plates = self.pick([one for one in fitting if one[0] == kind][-8:])
        name, pressure = self.fresh(kind), self.g[parent]
        if kind == "normal":
            self.g.sample(name, Normal, loc=pressure, scale=SPREAD, plates=plates)
        elif kind == "binomial":
            self.g.sample(name, Binomial, total_count=2, logits=pressure, plates=plates)
        else:
            self.g.sample(name, Bernoulli, logits=pressure, plates=plates)
        self.assignments *= OUTCOMES[kind] ** (2 ** len(plates))
        self.plates[name] = plates
        self.policy[name] = self.pick(ESTIMATORS[kind])

    def widened(self, parent: str) -> list[tuple[str, ...]]:
        """The plates that a draw may have: those of its parent, with or without one more."""
        have = set(self.plates[parent])
        more = [{plate} for plate in self.known if plate not in have]
        return [tuple(plate for plate in ORDER if plate in have | extra) for extra in (set(), *more)]

    def cost(self) -> None:
        self.g.cost(self.fresh("cost"), TWO[self.pick(TWO)], self.g[self.recent()], self.g[self.recent()])
        self.costs += 1


def drawn(seed: int) -> Sketch:
    """Draw a graph; the dice are uniform, where Hypothesis itself would keep to few kinds of nodes."""
    sketch = Sketch(Random(seed))
    g = sketch.g
    sketch.known = sketch.pick([["p"], ["t"], ["p", "t"]])
    if "p" in sketch.known:
        g.plate("p", size=2, reduce=sketch.pick(["mean", "sum"]))
    if "t" in sketch.known:
        g.plate("t", size=2, ordered=True, discount=0.8, reduce=sketch.pick(["mean", "sum"]))
    for name, value, plates in (
        ("a", 0.3, ()),
        ("b", [0.4, -0.6], (sketch.known[0],)),
        ("c", [-0.2, 0.5], (sketch.known[-1],)),
    ):
        g.param(name, torch.tensor(value).double(), plates=plates)
        sketch.plates[name] = plates
    sketch.sample()
    for step in range(4):
        sketch.pick([sketch.one, sketch.two, sketch.across])()
        sketch.pick([sketch.one, sketch.two, sketch.across])() if step % 2 else sketch.sample()
    sketch.cost()
    sketch.sample()
    sketch.two()
    sketch.cost()
    sketch.cost()
    return sketch


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_the_integrated_gradient_is_exact(seed: int) -> None:
    sketch = drawn(seed)
    g = sketch.g
    assume(len(list(g)) >= NODES and len(sketch.policy) >= 2)
    every = worlds(g.freeze(), {}, POINTS)
    assume(len(list(islice(every, RUNS + 1))) <= RUNS)
    estimators = {name: INSTANCES[instance].make(None) for name, instance in sketch.policy.items()}
    program = warmed(scg.compile(g, estimators))
    found, expected = integrated_gradient(g, program, points=POINTS), exact_gradient(g, points=2 * POINTS)
    size = max(1.0, *(float(part.abs().max()) for part in expected.values()))
    tolerance = 1e-6 if any(name.startswith("normal") for name in sketch.policy) else 1e-10
    assert gap(found, expected) < tolerance * size, (sketch.policy, found, expected)
