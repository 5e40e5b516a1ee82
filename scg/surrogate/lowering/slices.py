"""Slices: the part of the graph below one node as a function of that node's value."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from scg.analysis.influence import below
from scg.analysis.relaxation import Relaxation
from scg.choosing.choice import View
from scg.nodes.records import Det, LogProb, Record, Sample
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.credit import Credit
from scg.surrogate.lowering.draws import log_probability, sample
from scg.surrogate.lowering.elsewhere import keep_existing
from scg.surrogate.lowering.emitter import Emitter, Part
from scg.surrogate.lowering.halves import Half
from scg.surrogate.lowering.plan import POINTS, Labels, Plan
from scg.surrogate.lowering.weighing import charged
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import discounted, drawn_again, named, output

Piece = tuple[fx.GraphModule, tuple[fx.Node, ...]]
"""A function, and the values of the program that it takes last."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice that was written: functions to be called in turn, and the leading dimensions of its points.

    Along a chain the slice of a node is a step to the next node and the slice of that, which is not written
    again.
    """

    pieces: tuple[Piece, ...]
    lead: Labels


def emit_record(world: World, record: Record) -> None:
    """Append the lines of one node, drawing it where it is stochastic."""
    if isinstance(record, Sample):
        sample(world, record)
    elif isinstance(record, Det):
        world.deterministic(record)
        keep_existing(world, record)
    elif isinstance(record, LogProb):
        log_probability(world, record)
    else:
        world.leaf(record)


def downstream(
    world: World, plan: Plan, branching: Branching, name: str, label: str, lead: Labels
) -> fx.Node:
    """Append a function [n, *lead, *event] -> [n, *lead]: a node's credit at values of its own.

    Everything below is redrawn under the noise of the program, and evaluated in one batched call.
    """
    inside = World(plan, Emitter(), world, "_below", f"#below:{name}")
    _below(inside, name, lead)
    inside.emitter.graph.output(Credit(plan, branching).of(inside, name))
    return _bound(world, name, (_piece(inside),), f"{label}_downstream")


def redrawn(world: World, branching: Branching, view: View, name: str, lead: Labels) -> fx.Node:
    """Append the credit [n, *lead] of a node at its value, all that is drawn below it drawn anew n times."""
    plan = world.plan.of(view)
    inside = World(plan, Emitter(), world, "_again", f"#again:{view.key}")
    inside.redraws = view.key
    _below(inside, name, lead)
    credit = Credit(plan, branching, is_weighed=not view.choice.asks.by_step)
    inside.emitter.graph.output(credit.of(inside, name))
    costs = _bound(world, name, (_piece(inside),), f"{view.label}_redrawn")
    value = world.aligned(world.value(name), world.lead(name), lead)
    shown = world.emitter.shown("drawn_again", None, drawn_again)
    line = world.emitter.call(shown, costs, value, view.choice.asks.redraws, name=f"{view.label}_credits")
    return world.emitter.placed(name, line)


def _below(inside: World, name: str, lead: Labels) -> None:
    """Append all that leads from a node to costs, at points of the node."""
    plan = inside.plan
    _points(inside, name, lead)
    for other in below(plan.ir, name):
        if other in plan.useful:
            emit_record(inside, plan.ir[other])


def relaxed(
    world: World,
    plan: Plan,
    branching: Branching,
    name: str,
    label: str,
    lead: Labels,
    written: dict[str, Slice],
) -> fx.Node:
    """Append a function of relaxed points [n, *lead, *event] and a temperature, smooth in both.

    It gives the credit [n, *lead] of the costs that are smooth there, and their total [n], in which every
    element of a cost counts once. What it captures is detached. ``label`` begins its name, and ``written``
    are the slices of nodes below.
    """
    inside = _relaxed_world(world, plan, name, lead)
    rest, via = tuple[Piece, ...](), None
    for record in plan.facts.relaxation(name).records:
        emit_record(inside, record)
        next_one = written.get(record.name)
        if next_one is not None and _goes_on(inside, name, record.name, next_one.lead):
            rest, via = next_one.pieces, f"{record.name}_relaxed"
            inside.emitter.graph.output(inside.value(record.name))
            break
    else:
        _relaxed_costs(inside, branching, name)
    written[name] = Slice((_piece(inside), *rest), inside.lead(name))
    return _bound(world, name, written[name].pieces, f"{label}_relaxed", via)


def relaxed_by_halves(
    world: World,
    plan: Plan,
    branching: Branching,
    name: str,
    label: str,
    lead: Labels,
    several: Sequence[Half],
) -> list[fx.Node]:
    """Append the same for each of several halves of a plate, at points of its elements alone."""
    inside = _relaxed_world(world, plan, name, lead)
    plate = several[0].plate
    dim = inside.lead(name).index(plate)
    inside.values[f"#size:{plate}"] = inside.emitter.method("size", inside.values[name], dim, name=plate)
    for record in plan.facts.relaxation(name).records:
        emit_record(inside, record)
    _relaxed_costs(inside, branching, name)
    module, captured = _piece(inside)
    found = []
    for half in several:
        chosen = half.all_of(world, ((value, inside.leads[value]) for value in captured))
        pieces = ((module, tuple(chosen)),)
        found.append(_bound(world, name, pieces, f"{label}{half.name}_relaxed", half=half.name))
    return found


def _relaxed_world(world: World, plan: Plan, name: str, lead: Labels) -> World:
    """Return the world below relaxed points of a node, at a temperature."""
    known, modes = plan.facts.relaxation(name), plan.relaxed_modes(name)
    inside = World(plan, Emitter(), world, "_relaxed", f"#relaxed:{name}", known.worlds[0], modes)
    _points(inside, name, lead)
    inside.temperature = inside.emitter.argument("temperature")
    return inside


def _relaxed_costs(inside: World, branching: Branching, name: str) -> None:
    """Return the credit of a node from its smooth costs, and their total."""
    smooth = inside.plan.facts.relaxation(name).smooth
    credit = Credit(inside.plan, branching, attached=True).of(inside, name, smooth)
    totals = [_total(inside, branching, name, cost) for cost in smooth]
    inside.emitter.graph.output((credit, inside.emitter.add(totals, f"{name}_total")))


def _goes_on(inside: World, name: str, via: str, lead: Labels) -> bool:
    """Say whether the slice of a node goes on as that of ``via``, which has the leading dimensions ``lead``.

    It does where the rest leads to all of its costs, and reads nothing else of what was written so far.
    """
    plan, ir, influence = inside.plan, inside.plan.ir, inside.plan.facts.influence
    whole, rest = plan.facts.relaxation(name), plan.facts.relaxation(via)
    left = [record.name for record in whole.records[len(whole.records) - len(rest.records) - 1 :]]
    if whole.smooth != rest.smooth or left != [via, *(record.name for record in rest.records)]:
        return False
    if not lead == inside.lead(via) == inside.lead(name):
        return False
    if whole.worlds[0].values[via] is not rest.worlds[0].values[via]:
        return False
    before = inside.values.keys() - {via}
    return all(
        influence.kept(ir, name, cost) == influence.kept(ir, via, cost) for cost in rest.smooth
    ) and all(before.isdisjoint(_read(plan, record)) and _is_steady(rest, record) for record in rest.records)


def _read(plan: Plan, record: Record) -> tuple[str, ...]:
    """Return the nodes whose values the lines of a node read."""
    of = record.of if isinstance(record, LogProb) else None
    return record.parents if of is None else (*record.parents, *plan.ir[of].arguments.names)


def _is_steady(known: Relaxation, record: Record) -> bool:
    """Say whether a node has the same noise in every slice: what replays a value draws it in each."""
    return not isinstance(record, Sample) or known.worlds[0].densities[record.name].law.noise != "value"


def _points(inside: World, name: str, lead: Labels) -> None:
    """Take the values of a node as an argument with a dimension of points in front."""
    inside.values[name] = inside.emitter.argument("points")
    inside.axes[name] = (POINTS, *(label for label in lead if label in inside.plan.axes))


def _piece(inside: World) -> Piece:
    """Return the function that a world of its own is, and what it captures."""
    return fx.GraphModule(torch.nn.Module(), inside.emitter.graph), tuple(inside.captured)


def _bound(
    world: World,
    name: str,
    pieces: tuple[Piece, ...],
    label: str,
    rest: str | None = None,
    half: str = "",
) -> fx.Node:
    """Append the function of points that pieces are in turn, with what they capture."""
    captured = tuple(dict.fromkeys(value for _, several in pieces for value in several))
    place = {value: index for index, value in enumerate(captured)}
    runs: list[tuple[Callable[..., Any], list[int]]] = [
        (module.forward, [place[value] for value in several]) for module, several in pieces
    ]

    def bind(*captured: Any) -> Callable[..., Any]:
        held = [output(item) for item in captured]
        parts = [(run, [held[index] for index in places]) for run, places in runs]

        def at(points: Any, *temperature: Any) -> Any:
            for run, given in parts:
                points = run(points, *temperature, *given)
            return points

        return world.plan.watch.part(label, at)

    line = world.emitter.call(named(label, bind), *captured, name=label)
    return world.emitter.part(line, Part(name, label, "", pieces, captured, rest, half))


def _total(inside: World, branching: Branching, name: str, cost: str) -> fx.Node:
    """Append the total [n] of a cost in each branch of a node, over the weight of the node's mean plates."""
    emitter, plates = inside.emitter, inside.plan.ir.plates
    own, lead = inside.plan.ir.layout[name], inside.lead(name)
    value, labels = branching.expected(inside, charged(inside, cost), inside.lead(cost), lead)
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
