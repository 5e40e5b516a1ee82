"""Defects of functions and laws: jumps behind gates, draws inside, and laws that do not stay."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

import scg
from tests.truth.building import Fn, value
from tests.truth.gates import BEHIND, DISTINCT, GATES, JUMPS
from tests.truth.hidden import DRAWS, STATICS, Live
from tests.truth.judge import Case, Inputs
from tests.truth.sources import PLACED, REPLICATES, WIDE, Defect, Draw, Source, named, placed, sources


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
        given = gate.inputs(min(size, DISTINCT), torch.double)
        total = torch.zeros(()).double()
        for mass, outcome in gate.outcomes(g, given):
            columns = [part.double()[..., None] if part.is_floating_point() else part for part in outcome]
            total = total + mass * (fn(values[:, 0], *columns).double() @ weights).mean()
        return total

    words = f"{jump_name} {behind} {gate_name}, {place}, {source}"
    case = Case(make, objective, wake, source.estimators, source.samples)
    is_undefined = jump_name.startswith("nan_to_num") and behind == "inside"  # in the gate's own parameter
    return Defect("jump", words, replace(case, may_warn=is_undefined))


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
