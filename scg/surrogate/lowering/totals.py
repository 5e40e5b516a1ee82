"""Totals: values with leading dimensions, weighted once for each element, as a scalar."""

from __future__ import annotations

from torch import fx

from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.plan import REPLICATES, Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import discounted, discounted_sum


def total(world: World, value: fx.Node, labels: Labels, name: str) -> fx.Node:
    """Return sum_e lambda[e] value[e]: means over mean plates and replicates, sums over all else."""
    emitter, plates = world.emitter, world.plan.ir.plates
    last = plates.get(labels[-1]) if labels else None
    if last is not None and last.discount != 1.0 and last.reduce == "sum":
        op = emitter.shown("discounted_sum", None, discounted_sum)
        value = emitter.call(op, value, last.discount, name=f"{name}_discounted")
        labels = labels[:-1]
    for dim, label in enumerate(labels):
        if label in plates and plates[label].discount != 1.0:
            op = emitter.shown("discounted", None, discounted)
            value = emitter.call(op, value, dim, plates[label].discount, name=f"{name}_discounted")
    if not labels:
        return value
    mean = [label == REPLICATES or (label in plates and plates[label].reduce == "mean") for label in labels]
    if all(mean) or not any(mean):
        return emitter.method("mean" if all(mean) else "sum", value, name=name)
    summed = [dim for dim, is_mean in enumerate(mean) if not is_mean]
    value = emitter.method("sum", value, summed, name=name)
    return emitter.method("mean", value, name=name)


def branched_total(
    world: World, branching: Branching, value: fx.Node, labels: Labels, name: str, *, attached: bool
) -> fx.Node:
    """Return the total of a value over all branches, each with its probability."""
    weight = branching.weight(world, labels, attached=attached)
    if weight is not None:
        value, labels = branching.weighed(world, value, labels, weight)
    return total(world, value, labels, name)
