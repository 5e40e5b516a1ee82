"""Defects of plates: elements that join, replicates that mix, and functions that know a place."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

import scg
from tests.truth.building import value
from tests.truth.exact import mean_of
from tests.truth.gates import GATES
from tests.truth.hidden import PLACES
from tests.truth.joins import JOINS, QUADRATIC, SLEEPERS
from tests.truth.judge import Case, Inputs
from tests.truth.sources import (
    FEWER,
    NARROW,
    PLACED,
    REPLICATES,
    WIDE,
    Defect,
    Draw,
    Source,
    named,
    placed,
    sources,
)


def a_crossing(draw: Draw) -> Defect:
    """Elements of a plate that join with a strength that is 0 in the example."""
    source = draw(sources())
    gate_name, join_name = named(draw, GATES), named(draw, JOINS)
    source = source.fewer() if join_name in QUADRATIC else source
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
    case = Case(make, objective, wake, source.estimators, source.samples, effort=source.effort)
    return Defect("crossing", words, case)


def crossing_graph(source: Source, example: int) -> scg.Graph:
    """Start a graph with a plate "batch" that may be joined, in many copies if it is run once."""
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
    """A function that reads along the first dimension, its event: replicates, when they run in one batch."""
    source = draw(sources([FEWER, REPLICATES]))
    join_name = named(draw, JOINS)
    source = source.fewer() if join_name in QUADRATIC else source
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
    return Defect(
        "mixing", words, Case(make, objective, wake, source.estimators, source.samples, effort=source.effort)
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
