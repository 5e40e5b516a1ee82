"""Slices: the part of the graph below one node as a function of that node's value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from scg.analysis.influence import below
from scg.nodes.records import Det, LogProb, Record, Sample
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.credit import Credit
from scg.surrogate.lowering.draws import log_probability, sample
from scg.surrogate.lowering.emitter import Emitter
from scg.surrogate.lowering.worlds import POINTS, Labels, Plan, World


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
    inside = World(plan, Emitter(), world, suffix="_below")
    axes = tuple(label for label in lead if label in plan.axes)
    inside.values[name] = inside.emitter.argument("points")
    inside.axes[name] = (POINTS, *axes)
    for other in below(plan.ir, name):
        if other in plan.useful:
            emit_record(inside, plan.ir[other])
    inside.emitter.graph.output(Credit(plan, branching).of(inside, name))
    run = fx.GraphModule(torch.nn.Module(), inside.emitter.graph).forward

    def bind(*captured: Any) -> Callable[[Tensor], Tensor]:
        return lambda points: run(points, *captured)

    shown = world.emitter.shown(f"{name}_downstream", None, bind)
    return world.emitter.call(shown, *inside.captured, name=f"{name}_downstream")
