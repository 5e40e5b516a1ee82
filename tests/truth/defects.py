"""One strategy that draws a program with a defect, an example that hides it, and a run that shows it.

What is drawn is a ``Defect``: its class, what it is made of in words, and the ``Case`` that the judge takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from tests.truth.building import Fn, Module, value
from tests.truth.exact import bits, mean_of, normals
from tests.truth.gates import BEHIND, GATES, JUMPS
from tests.truth.hidden import DRAWS, PLACES, STATICS, Live
from tests.truth.joins import JOINS, SLEEPERS
from tests.truth.judge import Case, Inputs

SEEN: Counter[str] = Counter()
"""How many programs of each class were judged, and how many of them were right or refused."""

REPLICATES = 2048
WIDE, NARROW = 2000, 2
"""Elements of a run's plate where each is a replicate, and where all of them are enumerated together."""
FINITE = ("auto", "score", "enumerate", "rebar", "relax", "local")
CONTINUOUS = ("auto", "score", "reparam", "lax")
LOCAL = scg.Enumerate(local=True)

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Defect:
    """A program with a defect of a class, and the words for what was drawn."""

    kind: str
    words: str
    case: Case

    def __repr__(self) -> str:
        return f"{self.kind}: {self.words}"


@dataclass(frozen=True)
class Source:
    """The random variable that a defect reads: its law, and how it is estimated and computed."""

    law: str
    policy: str
    dtype: torch.dtype
    samples: int | None

    @property
    def estimators(self) -> Mapping[str, Any] | str:
        """The policy of the node z, and automatic choice for all others."""
        return {"z": LOCAL if self.policy == "local" else self.policy}

    def plates(self, name: str) -> tuple[str, ...]:
        """Return what everything random has to be drawn along to be averaged in one run."""
        return (name,) if self.samples is None else ()

    def number(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=self.dtype)

    def sample(self, g: scg.Graph, location: scg.Node, **options: Any) -> scg.Node:
        """Declare z, of the law, around a location."""
        if self.law == "bernoulli":
            return g.sample("z", Bernoulli, logits=location, **options)
        return g.sample("z", Normal, loc=location, scale=0.8, **options)

    def points(self, location: Tensor) -> tuple[Tensor, Tensor]:
        """Return all values of independent elements [n], and their probabilities."""
        location = location.double()
        scale = torch.tensor(0.8).double()
        return bits(location.sigmoid()) if self.law == "bernoulli" else normals(location, scale)


def sources(samples: Sequence[int | None] = (REPLICATES, None)) -> st.SearchStrategy[Source]:
    laws = st.sampled_from(
        [("bernoulli", policy) for policy in FINITE] + [("normal", policy) for policy in CONTINUOUS]
    )
    types = st.sampled_from([torch.float64, torch.float32])
    return st.builds(
        lambda law, dtype, samples: Source(*law, dtype, samples), laws, types, st.sampled_from(list(samples))
    )


def named(draw: Draw, table: Mapping[str, Any]) -> str:
    return str(draw(st.sampled_from(list(table))))


PLACED = ("node", "cost", "module")


def placed(g: scg.Graph, place: str, fn: Fn, *parents: scg.Node) -> None:
    """Make a function part of a graph: as a node with a cost, as a cost, or as a module."""
    if place == "cost":
        g.cost("c", fn, *parents)
    else:
        g.cost("c", g.det("h", Module(fn) if place == "module" else fn, *parents))


def a_jump(draw: Draw) -> Defect:
    """A function with a jump or a lost gradient, behind a gate that is shut in the example."""
    source = draw(sources())
    gate_name, jump_name, behind = named(draw, GATES), named(draw, JUMPS), named(draw, BEHIND)
    place, shift = draw(st.sampled_from(PLACED)), draw(st.sampled_from([0.0, 0.3]))
    gate = GATES[gate_name]
    jump = (lambda z: JUMPS[jump_name](z - 0.4)) if source.law == "bernoulli" else JUMPS[jump_name]
    fn = BEHIND[behind](gate.factor, jump)
    is_plated = gate.is_plated or source.samples is None
    size = WIDE if source.samples is None else 3

    def make() -> scg.Graph:
        g = scg.Graph()
        gates = gate.declare(g, 4, source.dtype, source.plates("batch"))
        one = g.input("one", plates="batch", example=torch.ones(4, dtype=source.dtype))
        mu = g.param("mu", source.number(shift + 0.1))
        z = source.sample(g, mu * one if is_plated else mu)
        placed(g, place, fn, z, *gates)
        return g

    def wake(g: scg.Graph) -> Inputs:
        gate.wake(g)
        return {"one": torch.ones(size, dtype=source.dtype), **gate.inputs(size, source.dtype)}

    def objective(g: scg.Graph) -> Tensor:
        values, weights = source.points(value(g, "mu")[None])
        given = gate.inputs(5 if size == WIDE else size, torch.double)
        total = torch.zeros(()).double()
        for mass, outcome in gate.outcomes(g, given):
            columns = [part.double()[..., None] if part.is_floating_point() else part for part in outcome]
            total = total + mass * (fn(values[:, 0], *columns).double() @ weights).mean()
        return total

    words = f"{jump_name} {behind} {gate_name}, {place}, {source}"
    return Defect("jump", words, Case(make, objective, wake, source.estimators, source.samples))


def a_crossing(draw: Draw) -> Defect:
    """Elements of a plate that join with a strength that is 0 in the example."""
    source = draw(sources())
    gate_name, join_name = named(draw, GATES), named(draw, JOINS)
    place, example = draw(st.sampled_from(PLACED)), draw(st.sampled_from([2, 3, 5]))
    gate, join = GATES[gate_name], JOINS[join_name]

    def fn(z: Tensor, *gates: Tensor) -> Tensor:
        return (join(gate.factor(*gates), z) - 0.4) ** 2

    def make() -> scg.Graph:
        g = crossing_graph(source, example)
        placed(
            g,
            place,
            fn,
            source.sample(g, location(g)),
            *gate.declare(g, example, source.dtype, source.plates("copies")),
        )
        return g

    def wake(g: scg.Graph) -> Inputs:
        gate.wake(g)
        return crossing_inputs(source) | gate.inputs(NARROW, source.dtype)

    def objective(g: scg.Graph) -> Tensor:
        points = source.points(value(g, "mu").expand(NARROW))
        total = torch.zeros(()).double()
        for mass, outcome in gate.outcomes(g, gate.inputs(NARROW, torch.double)):
            columns = [part.double() if part.is_floating_point() else part for part in outcome]
            total = total + mass * mean_of(lambda z: fn(z, *columns).mean(), points)  # noqa: B023
        return total

    words = f"{join_name} with {gate_name}, {place}, {source}"
    return Defect("crossing", words, Case(make, objective, wake, source.estimators, source.samples))


def crossing_graph(source: Source, example: int) -> scg.Graph:
    """Start a graph with a plate "batch", whose elements may be joined, and many copies of it if it is run once."""
    g = scg.Graph()
    shape = (example,) if source.samples is not None else (3, example)
    plates = ("batch",) if source.samples is not None else ("copies", "batch")
    g.input("one", plates=plates, example=torch.ones(shape, dtype=source.dtype))
    g.param("mu", source.number(0.3))
    return g


def location(g: scg.Graph) -> scg.Node:
    found: scg.Node = g["mu"] * g["one"]
    return found


def crossing_inputs(source: Source) -> dict[str, Tensor]:
    shape = (NARROW,) if source.samples is not None else (WIDE, NARROW)
    return {"one": torch.ones(shape, dtype=source.dtype)}


def a_sleeper(draw: Draw) -> Defect:
    """A reduction over the plate that sleeps until values are large."""
    source = draw(sources())
    name, place, example = named(draw, SLEEPERS), draw(st.sampled_from(PLACED)), draw(st.sampled_from([2, 4]))

    def fn(z: Tensor, scale: Tensor) -> Tensor:
        return (SLEEPERS[name](z * scale) - 0.5) ** 2

    def make() -> scg.Graph:
        g = crossing_graph(source, example)
        scale = g.input("scale", example=source.number(0.02))
        placed(g, place, fn, source.sample(g, location(g)), scale)
        return g

    def wake(g: scg.Graph) -> Inputs:
        return crossing_inputs(source) | {"scale": source.number(1.6)}

    def objective(g: scg.Graph) -> Tensor:
        points = source.points(value(g, "mu").expand(NARROW))
        return mean_of(lambda z: fn(z, torch.tensor(1.6).double()).mean(), points)

    case = Case(make, objective, wake, source.estimators, source.samples, slack=0.01)
    return Defect("sleeper", f"{name}, {place}, {source}", case)


def a_mixing(draw: Draw) -> Defect:
    """A function of an event that reads along what is a dimension of replicates when they run in one batch."""
    source = draw(sources([300, REPLICATES]))
    join_name = named(draw, JOINS)
    gate_name = draw(st.sampled_from([name for name, gate in GATES.items() if not gate.is_plated]))
    place, reads = draw(st.sampled_from(PLACED)), draw(st.sampled_from(["first", "whole"]))
    gate, join = GATES[gate_name], JOINS[join_name]

    def fn(z: Tensor, *gates: Tensor) -> Tensor:
        s = gate.factor(*gates)
        if reads == "whole":
            joined = join(s, z.flatten()).view_as(z)
        else:
            joined = join(s, z.movedim(0, -1)).movedim(-1, 0)
        return ((joined - 0.4) ** 2).mean(-1)

    def make() -> scg.Graph:
        g = scg.Graph()
        gates = gate.declare(g, NARROW, source.dtype)
        placed(g, place, fn, source.sample(g, g.param("mu", source.number([0.3, -0.2]))), *gates)
        return g

    def wake(g: scg.Graph) -> Inputs:
        gate.wake(g)
        return gate.inputs(NARROW, source.dtype)

    def objective(g: scg.Graph) -> Tensor:
        points, total = source.points(value(g, "mu")), torch.zeros(()).double()
        for mass, outcome in gate.outcomes(g, gate.inputs(NARROW, torch.double)):
            columns = [part.double() if part.is_floating_point() else part for part in outcome]
            total = total + mass * mean_of(lambda z: fn(z, *columns), points)  # noqa: B023
        return total

    words = f"{join_name} reads {reads} with {gate_name}, {place}, {source}"
    effort = 1 if source.samples == REPLICATES else 4
    return Defect(
        "mixing", words, Case(make, objective, wake, source.estimators, source.samples, effort=effort)
    )


def a_place(draw: Draw) -> Defect:
    """Weights by place in the batch, or a squeeze, and a run of another size."""
    source = draw(sources())
    name, place = draw(st.sampled_from([*PLACES, "squeeze"])), draw(st.sampled_from(PLACED))
    example, size = draw(st.sampled_from([(4, 1), (4, 7), (3, 4), (1, 3), (2, 9), (7, 5)]))
    plates = ("batch",) if source.samples is not None else ("batch", "copies")

    def shape(count: int, copies: int) -> tuple[int, ...]:
        return (count, 1) if source.samples is not None else (count, copies, 1)

    def fn(z: Tensor) -> Tensor:
        if name == "squeeze":
            return (z.squeeze() - 0.4) ** 2
        weights = PLACES[name](z.flatten(1)[:, 0])
        return (weights.view(-1, *[1] * (z.dim() - 2)) * z[..., 0] - 0.4) ** 2

    def make() -> scg.Graph:
        g = scg.Graph()
        one = g.input("one", plates=plates, example=torch.ones(shape(example, 2), dtype=source.dtype))
        placed(g, place, fn, source.sample(g, g.param("mu", source.number(0.5)) * one))
        return g

    def wake(g: scg.Graph) -> Inputs:
        return {"one": torch.ones(shape(size, WIDE), dtype=source.dtype)}

    def objective(g: scg.Graph) -> Tensor:
        values, weights = source.points(value(g, "mu")[None])
        ones = torch.ones(size).double()
        places = ones if name == "squeeze" else PLACES[name](ones)
        return (weights[:, None] * (places * values - 0.4) ** 2).sum(0).mean()

    words = f"{name}, {example} then {size}, {place}, {source}"
    return Defect("place", words, Case(make, objective, wake, source.estimators, source.samples))


def a_hidden_draw(draw: Draw) -> Defect:
    """A draw inside a function, from a law that depends on a parameter or on a random variable."""
    source = draw(sources())
    name, place, gate_name = named(draw, DRAWS), draw(st.sampled_from(PLACED)), named(draw, GATES)
    reads = draw(st.sampled_from(["parameter", "sample", "branch"]))
    drawn, mean = DRAWS[name]
    gate = GATES[gate_name]

    def called(inner: Fn) -> Fn:
        def fn(w: Tensor, z: Tensor, one: Tensor, *gates: Tensor) -> Tensor:
            u = (w + 0.7 * z if reads == "sample" else w) * torch.ones_like(one)
            if reads == "branch" and not bool((one > 0).any()):
                return u**2
            return 0.3 * z**2 + gate.factor(*gates) * inner(u) if gate_name else inner(u)

        return fn

    def make() -> scg.Graph:
        g = scg.Graph()
        example = torch.zeros(4, dtype=source.dtype)
        one = g.input("one", plates="batch", example=example if reads == "branch" else example + 1)
        z = source.sample(g, g.param("mu", source.number(0.3)), plates="batch")
        gates = gate.declare(g, 4, source.dtype, source.plates("batch"))
        placed(g, place, called(drawn), g.param("w", source.number(0.4)), z, one, *gates)
        return g

    def wake(g: scg.Graph) -> Inputs:
        gate.wake(g)
        size = 500 if source.samples is None else 4
        return {"one": torch.ones(size, dtype=source.dtype), **gate.inputs(size, source.dtype)}

    def objective(g: scg.Graph) -> Tensor:
        values, weights = source.points(value(g, "mu")[None])
        fn, total = called(mean), torch.zeros(()).double()
        one = torch.ones(1).double()
        for mass, outcome in gate.outcomes(g, gate.inputs(4, torch.double)):
            columns = [part.double()[..., None] if part.is_floating_point() else part for part in outcome]
            whole = fn(value(g, "w").double(), values[:, 0], one, *columns)
            total = total + mass * (whole @ weights).mean()
        return total

    words = f"{name} with {gate_name}, reads {reads}, {place}, {source}"
    return Defect("hidden", words, Case(make, objective, wake, source.estimators, source.samples))


def a_static(draw: Draw) -> Defect:
    """A law whose count, class, transform or argument is not what it was in the example."""
    name = named(draw, STATICS)
    static = STATICS[name]
    policy = draw(
        st.sampled_from(
            ["auto", "score", "reparam", "lax"] if static.is_continuous else ["auto", "score", "enumerate"]
        )
    )
    samples = draw(st.sampled_from([REPLICATES, None]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    source = Source("", policy, dtype, samples)
    size = WIDE if samples is None else 2

    def make() -> scg.Graph:
        g, live = scg.Graph(), Live(static.example, static.run)
        g_live[:] = [live]
        n = g.input("n", example=source.number(static.example))
        one = g.input("one", plates="batch", example=torch.ones(3, dtype=dtype))
        z = g.sample("z", static.dist(live), g.param("l", source.number(0.4)) * one, n)
        g.cost("c", static.of, z)
        return g

    g_live: list[Live] = []

    def wake(g: scg.Graph) -> Inputs:
        g_live[0].now = g_live[0].then
        return {"n": source.number(static.run), "one": torch.ones(size, dtype=dtype)}

    def objective(g: scg.Graph) -> Tensor:
        return static.mean(value(g, "l").double(), static.run)

    return Defect("static", f"{name}, {source}", Case(make, objective, wake, source.estimators, samples))


KINDS: dict[str, Callable[[Draw], Defect]] = {
    "jump": a_jump,
    "crossing": a_crossing,
    "sleeper": a_sleeper,
    "mixing": a_mixing,
    "place": a_place,
    "hidden": a_hidden_draw,
    "static": a_static,
}


@st.composite
def defects(draw: Draw, kinds: Sequence[str] = tuple(KINDS)) -> Defect:
    """Draw a program with a defect of one of some classes."""
    return KINDS[draw(st.sampled_from(list(kinds)))](draw)
