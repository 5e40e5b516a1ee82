"""Slices: the part of the graph below one node as a function of that node's value."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from scg.analysis.influence import below
from scg.nodes.records import Det, LogProb, Record, Sample
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.credit import Credit
from scg.surrogate.lowering.draws import log_probability, sample
from scg.surrogate.lowering.emitter import Emitter
from scg.surrogate.lowering.plan import POINTS, Labels, Plan
from scg.surrogate.lowering.worlds import World
from scg.surrogate.ops import discounted, named, output


def emit_record(world: World, record: Record) -> None:
    """Append the lines of one node, drawing it where it is stochastic."""
    if isinstance(record, Sample):
        sample(world, record)
    elif isinstance(record, Det):
        world.deterministic(record)
    elif isinstance(record, LogProb):
        log_probability(world, record)
    else:
        world.leaf(record)


def downstream(world: World, plan: Plan, branching: Branching, name: str, lead: Labels) -> fx.Node:
    """Append a function [n, *lead, *event] -> [n, *lead]: a node's credit at values of its own.

    Everything below is redrawn under the noise of the program, and evaluated in one batched call.
    """
    inside = World(plan, Emitter(), world, "_below", f"#below:{name}")
    _points(inside, name, lead)
    for other in below(plan.ir, name):
        if other in plan.useful:
            emit_record(inside, plan.ir[other])
    inside.emitter.graph.output(Credit(plan, branching).of(inside, name))
    return _bound(world, inside, f"{name}_downstream")


def relaxed(world: World, plan: Plan, branching: Branching, name: str, lead: Labels) -> fx.Node:
    """Append a function of relaxed points [n, *lead, *event] and a temperature, smooth in both.

    It gives the credit [n, *lead] of the costs that are smooth there, and their total [n], in which every
    element of a cost counts once. What it captures is detached.
    """
    known = plan.facts.relaxation(name)
    modes = plan.relaxed_modes(name)
    inside = World(plan, Emitter(), world, "_relaxed", f"#relaxed:{name}", known.worlds[0], modes)
    _points(inside, name, lead)
    inside.temperature = inside.emitter.argument("temperature")
    for record in known.records:
        emit_record(inside, record)
    credit = Credit(plan, branching, attached=True).of(inside, name, known.smooth)
    totals = [_total(inside, branching, name, cost) for cost in known.smooth]
    inside.emitter.graph.output((credit, inside.emitter.add(totals, f"{name}_total")))
    return _bound(world, inside, f"{name}_relaxed")


def _points(inside: World, name: str, lead: Labels) -> None:
    """Take the values of a node as an argument with a dimension of points in front."""
    inside.values[name] = inside.emitter.argument("points")
    inside.axes[name] = (POINTS, *(label for label in lead if label in inside.plan.axes))


def _bound(world: World, inside: World, label: str) -> fx.Node:
    """Append the function that a world of its own is, with what it captures."""
    run = fx.GraphModule(torch.nn.Module(), inside.emitter.graph).forward

    def bind(*captured: Any) -> Callable[..., Any]:
        held = [output(item) for item in captured]
        return lambda *points: run(*points, *held)

    return world.emitter.call(named(label, bind), *inside.captured, name=label)


def _total(inside: World, branching: Branching, name: str, cost: str) -> fx.Node:
    """Append the total [n] of a cost in each branch of a node, over the weight of the node's mean plates."""
    emitter, plates = inside.emitter, inside.plan.ir.plates
    own, lead = inside.plan.ir.layout[name], branching.lead(inside, name)
    value, labels = branching.expected(inside, inside.value(cost), inside.lead(cost), lead)
    for dim, label in enumerate(labels):
        if label in plates and plates[label].discount != 1.0:
            shown = emitter.shown("discounted", None, discounted)
            value = emitter.call(shown, value, dim, plates[label].discount)
    means = [p for p in labels if p in plates and plates[p].reduce == "mean" and p not in own]
    gone = [dim for dim, label in enumerate(labels) if label != POINTS and label not in means]
    if gone:
        value = emitter.method("sum", value, gone, name=f"{cost}_total")
    if means:
        value = emitter.method("mean", value, list(range(1, 1 + len(means))), name=f"{cost}_total")
    for plate in own:
        if plates[plate].reduce == "mean" and plate not in labels:
            value = emitter.call(operator.mul, value, inside.size(plate), name=f"{cost}_total")
    return value
