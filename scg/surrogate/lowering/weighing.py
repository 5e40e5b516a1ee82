"""Importance weights: what costs below values count that were drawn from other laws than their nodes have."""

from __future__ import annotations

import operator

from torch import fx

from scg.nodes.records import Sample
from scg.surrogate.lowering.draws import own_log_prob
from scg.surrogate.lowering.elsewhere import exists
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import along, likelihood, log_ratio


def charged(world: World, cost: str) -> fx.Node:
    """Return the value of a cost times the product of the ratios p / q of all that it depends on.

    A step of an ordered plate depends on those before it. Precup et al. (2000, "Eligibility traces for
    off-policy policy evaluation").
    """
    several = [name for name in world.plan.ir.given if _weighs(world, name, cost)]
    if not several:
        return world.value(cost)
    if cost not in world.values and world.outer is not None:
        return world.capture(charged(world.outer, cost), world.outer.lead(cost))
    key = f"#charged:{cost}"
    if key not in world.values:
        weight = world.capture(_weight(world.root, several, cost), world.plan.ir.layout[cost])
        lead = tuple(label for label in world.lead(cost) if label in world.plan.ir.plates)
        weight = world.aligned(weight, lead, world.lead(cost))
        value = world.emitter.call(operator.mul, world.value(cost), weight, name=f"{cost}_weighed")
        world.values[key] = value
    return world.values[key]


def ratio(world: World, name: str, lead: Labels, *, by_step: bool) -> fx.Node | None:
    """Return the ratio p / q of each element of a sample, by itself or times those of the steps before."""
    record = world.plan.ir[name]
    if not isinstance(record, Sample) or record.behaviour is None:
        return None
    root, plates = world.root, world.plan.ir.layout[name]
    log = _log_ratio(root, name)
    if not by_step:
        log = _along(root, log, plates, plates)[0]
    shown = root.emitter.shown("likelihood", None, likelihood)
    line = root.emitter.call(shown, log, name=f"{name}_ratio")
    return world.aligned(world.capture(line, plates), plates, lead)


def _weighs(world: World, name: str, cost: str) -> bool:
    """Say whether a cost depends on a value that was drawn from another law than its node has."""
    record, influence = world.plan.ir[name], world.plan.facts.influence
    is_other = isinstance(record, Sample) and record.behaviour is not None
    return is_other and cost in influence.costs_of(influence.reached[name])


def _weight(root: World, several: list[str], cost: str) -> fx.Node:
    """Return the weight of each element of a cost, [*plates of the cost]."""
    key = f"#weight:{cost}"
    if key not in root.values:
        ir, influence = root.plan.ir, root.plan.facts.influence
        total = None
        for name in several:
            kept = influence.kept(ir, name, cost)
            log, labels = _along(root, _log_ratio(root, name), ir.layout[name], kept)
            log = root.aligned(log, labels, ir.layout[cost])
            total = log if total is None else root.emitter.call(operator.add, total, log, name=log.name)
        shown = root.emitter.shown("likelihood", None, likelihood)
        root.values[key] = root.emitter.call(shown, total, name=f"{cost}_weight")
    return root.values[key]


def _along(root: World, log: fx.Node, plates: Labels, kept: Labels) -> tuple[fx.Node, Labels]:
    """Add up log-ratios: over plates that are not kept, and over steps so far along ordered ones."""
    for plate in plates:
        if plate in kept and root.plan.ir.plates[plate].ordered:
            log = _so_far(root, log, plates.index(plate))
    gone = [dim for dim, plate in enumerate(plates) if plate not in kept]
    if gone:
        log = root.emitter.method("sum", log, gone, name=log.name)
    return log, tuple(plate for plate in plates if plate in kept)


def _so_far(root: World, log: fx.Node, dim: int) -> fx.Node:
    """Add up log-ratios over each step and those before it, emitted once."""
    key = f"#so_far:{log.name}:{dim}"
    if key not in root.values:
        shown = root.emitter.shown("along", None, along)
        root.values[key] = root.emitter.call(shown, log, dim, name=f"{log.name}_so_far")
    return root.values[key]


def _log_ratio(root: World, name: str) -> fx.Node:
    """Return log p - log q of each element of a sample, 0 where it does not exist."""
    key = f"#log_ratio:{name}"
    if key not in root.values:
        record = root.plan.ir[name]
        assert isinstance(record, Sample) and record.behaviour is not None
        plates = root.plan.ir.layout[name]
        behaviour = root.aligned(root.value(record.behaviour), root.lead(record.behaviour), plates)
        shown = root.emitter.shown("log_ratio", None, log_ratio)
        found = exists(root, record, ())
        line = root.emitter.call(shown, own_log_prob(root, name), behaviour, found, name=f"{name}_log_ratio")
        root.values[key] = root.emitter.placed(name, line)
    return root.values[key]
