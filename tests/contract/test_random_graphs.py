"""Random graphs with plates under random policies: the integrated gradient is the exact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
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

NODES, RUNS, POINTS = 12, 150, 5
SPREAD = 0.15
"""The scale of normals, small enough for a few points to integrate any function here."""
ORDER = ("p", "t")
OUTCOMES = {"bernoulli": 2, "binomial": 3, "normal": POINTS}
ESTIMATORS: Mapping[str, tuple[str, ...]] = {
    "bernoulli": ("score", "score+self-critical", "score+moving-average", "enumerate", "enumerate+local"),
    "binomial": ("score", "enumerate", "enumerate+local"),
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

    draw: Callable[[st.SearchStrategy[Any]], Any]
    g: scg.Graph = field(default_factory=scg.Graph)
    plates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    policy: dict[str, str] = field(default_factory=dict)
    assignments: int = 1
    costs: int = 0

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def recent(self) -> str:
        """A node that may be read, a late one more often."""
        names = list(self.plates)
        return names[max(self.draw(st.integers(0, len(names) - 1)), self.draw(st.integers(0, len(names) - 1)))]

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
        kind = self.pick(["aggregate", "mix"])
        if kind == "aggregate":
            rest = tuple(other for other in have if other != plate)
            return self.det(lambda x: x.sum(dim) * 0.6, parent, kind="total", plates=rest)
        if plate == "t":
            return self.det(lambda x: x.cumsum(dim) * 0.7, parent, kind="past")
        return self.det(lambda x: x - 0.5 * x.mean(dim, keepdim=True), parent, kind="mix", mixes=plate)

    def sample(self) -> None:
        kind, parent = self.pick(OUTCOMES), self.recent()
        have = self.plates[parent]
        added = [plate for plate in ORDER if plate in self.g._plates and plate not in have]
        wider = self.pick([(), *((plate,) for plate in added)])
        plates = tuple(plate for plate in ORDER if plate in have or plate in wider)
        grown = self.assignments * OUTCOMES[kind] ** (2 ** len(plates))
        if grown > 40:
            return
        name, pressure = self.fresh(kind), self.g[parent]
        options: dict[str, Any] = {"plates": plates} if wider else {}
        if kind == "normal":
            self.g.sample(name, Normal, loc=pressure, scale=SPREAD, **options)
        elif kind == "binomial":
            self.g.sample(name, Binomial, total_count=2, logits=pressure, **options)
        else:
            self.g.sample(name, Bernoulli, logits=pressure, **options)
        self.assignments, self.plates[name] = grown, plates
        self.policy[name] = self.pick(ESTIMATORS[kind])

    def cost(self) -> None:
        self.g.cost(self.fresh("cost"), TWO[self.pick(TWO)], self.g[self.recent()], self.g[self.recent()])
        self.costs += 1


@st.composite
def sketches(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Sketch:
    sketch = Sketch(draw)
    g = sketch.g
    g.plate("p", size=2, reduce=sketch.pick(["mean", "sum"]))
    if draw(st.booleans()):
        g.plate("t", size=2, ordered=True, discount=0.8, reduce=sketch.pick(["mean", "sum"]))
    for name, value, plates in (
        ("a", 0.3, ()),
        ("b", [0.4, -0.6], ("p",)),
        ("c", [-0.2, 0.5], ("t",) if "t" in g._plates else ("p",)),
    ):
        g.param(name, torch.tensor(value).double(), plates=plates)
        sketch.plates[name] = plates
    sketch.sample()
    for step in range(4):
        getattr(sketch, draw(st.sampled_from(["one", "two", "across"])))()
        getattr(sketch, "sample" if step % 2 == 0 else draw(st.sampled_from(["one", "two", "across"])))()
    sketch.cost()
    sketch.sample()
    sketch.two()
    sketch.cost()
    sketch.cost()
    return sketch


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(sketches())
def test_the_integrated_gradient_is_exact(sketch: Sketch) -> None:
    g = sketch.g
    assume(len(list(g)) >= NODES and len(sketch.policy) >= 2)
    every = worlds(g.freeze(), {}, POINTS)
    assume(len(list(islice(every, RUNS + 1))) <= RUNS)
    estimators = {name: INSTANCES[instance].make(None) for name, instance in sketch.policy.items()}
    program = warmed(scg.compile(g, estimators))
    found, expected = integrated_gradient(g, program, points=POINTS), exact_gradient(g)
    size = max(1.0, *(float(part.abs().max()) for part in expected.values()))
    tolerance = 1e-6 if any(name.startswith("normal") for name in sketch.policy) else 1e-10
    assert gap(found, expected) < tolerance * size, (sketch.policy, found, expected)
