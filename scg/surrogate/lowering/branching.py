"""Branches of enumerated nodes: their outcomes and masses, and expectations over them."""

from __future__ import annotations

import operator
from functools import partial

import torch
from torch import Tensor, fx

from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.kinds import Branched, Branches
from scg.estimators.protocol.site import Apart, Provided, Site
from scg.laws import Law
from scg.nodes.records import Sample
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import Labels, Plan
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import possible


class Branching:
    """The probability of every branch: a weighted plate for each enumerated node.

    ``masses[axis]`` is the attached probability of the outcomes along an axis, given the branches of
    enumerated nodes above, with its leading dimensions.
    """

    def __init__(self, plan: Plan) -> None:
        """Start without enumerated nodes."""
        self.plan = plan
        self.masses: dict[str, tuple[fx.Node, Labels]] = {}
        self._products: dict[tuple[fx.Graph, Labels, bool], tuple[fx.Node, Labels]] = {}

    def closed(self, axes: Labels) -> Labels:
        """Return axes together with those on which the masses along them depend."""
        found, waiting = set(axes), list(axes)
        while waiting:
            _, lead = self.masses.get(waiting.pop(), (None, ()))
            fresh = [label for label in lead if label in self.plan.axes and label not in found]
            found.update(fresh)
            waiting += fresh
        return axes if len(found) == len(axes) else self.plan.ordered(found)

    def lead(self, world: World, name: str) -> Labels:
        """Return the leading dimensions of what is said of a node: closed axes, then plates."""
        return self.closed(world.axes_of(name)) + self.plan.ir.layout[name]

    def merged(self, one: Labels, other: Labels) -> Labels:
        """Return the union of two sets of leading dimensions, in order."""
        if one == other:
            return one
        both = {*one, *other}
        return self.plan.ordered(both) + tuple(plate for plate in self.plan.ir.plates if plate in both)

    def times(
        self, world: World, one: tuple[fx.Node, Labels], other: tuple[fx.Node, Labels], name: str
    ) -> tuple[fx.Node, Labels]:
        """Multiply two values with their leading dimensions."""
        labels = self.merged(one[1], other[1])
        left, right = (world.aligned(value, have, labels) for value, have in (one, other))
        return world.emitter.call(operator.mul, left, right, name=name), labels

    def weighed(
        self, world: World, value: tuple[fx.Node, Labels], mass: tuple[fx.Node, Labels], name: str
    ) -> tuple[fx.Node, Labels]:
        """Multiply a value by the probability of its branches, where impossible ones count as 0."""
        labels = self.merged(value[1], mass[1])
        shown = world.emitter.shown("possible", None, possible)
        left, right = (world.aligned(item, have, labels) for item, have in (value, mass))
        finite = world.emitter.call(shown, left, right, name=f"{name}_possible")
        return world.emitter.call(operator.mul, finite, right, name=name), labels

    def product(self, world: World, axes: Labels, *, attached: bool) -> tuple[fx.Node, Labels] | None:
        """Return the probability of the branches along several axes, or None along none of them."""
        axes = tuple(axis for axis in axes if axis in self.masses)
        if not axes:
            return None
        key = (world.emitter.graph, axes, attached)
        if key not in self._products:
            mass, labels = self.masses[axes[-1]]
            mass = world.capture(mass)
            if not attached:
                mass = world.emitter.method("detach", mass, name=mass.name)
            above = self.product(world, axes[:-1], attached=attached)
            last = (mass, labels)
            self._products[key] = last if above is None else self.times(world, above, last, "branch_mass")
        return self._products[key]

    def fitted(self, world: World, mass: tuple[fx.Node, Labels], lead: Labels) -> fx.Node:
        """Align a probability to a lead, without plates of size 1 that the lead does not have."""
        value, labels = mass
        gone = [dim for dim, label in enumerate(labels) if label not in lead]
        if gone:
            value = world.emitter.method("sum", value, gone, name=value.name)
        return world.aligned(value, tuple(label for label in labels if label in lead), lead)

    def expected(self, world: World, value: fx.Node, labels: Labels, lead: Labels) -> tuple[fx.Node, Labels]:
        """Return the expectation of a value over the branches that are no dimension of ``lead``."""
        axes = self.closed(tuple(label for label in labels if label in self.plan.axes))
        extra = tuple(axis for axis in axes if axis not in lead)
        weights = self.product(world, extra, attached=False)
        if weights is None:
            return value, labels
        plates = tuple(label for label in labels if label in self.plan.ir.plates)
        value, merged = self.weighed(world, (value, labels), weights, f"{value.name}_branches")
        gone = [
            d
            for d, label in enumerate(merged)
            if label in extra or (label in self.plan.ir.plates and label not in plates)
        ]
        value = world.emitter.method("sum", value, gone, name=value.name)
        return value, tuple(label for d, label in enumerate(merged) if d not in gone)


def branches(world: World, record: Sample, axis: str) -> tuple[fx.Node, fx.Node, Labels]:
    """Append the outcomes of a node that its estimator gives; return them, their masses and the masses' lead.

    Plates that every reached cost keeps are set together, in which outcomes are 1 long; the rest and
    the event one by one.
    """
    name, plan, emitter = record.name, world.plan, world.emitter
    estimator, density = plan.choices[name].estimator, world.trace.densities[name]
    assert isinstance(estimator, Branched)
    plates, together = plan.ir.layout[name], plan.facts.together(name)
    axes = world.union(record.arguments.names)
    given = parameters(world, record, axes)
    sizes = [1 if plate in together else world.size(plate) for plate in plates]
    event = list(world.trace.event_shape(plan.ir, name)[: density.inner])
    made = partial(branched, estimator, density.law, tuple(map(plan.axis, axes)))
    label = f"{name}_{estimator.name}"
    shown = emitter.shown(label, (name,), plan.watch.detail(label, made))
    found = emitter.placed(name, emitter.call(shown, given, sizes, event, name=f"{name}_outcomes"))
    emitter.part(found, Part(name, label))
    values = emitter.placed(name, emitter.call(operator.getitem, found, 0, name=world.called(name)))
    masses = emitter.call(operator.getitem, found, 1, name=f"{name}_mass")
    return values, masses, (*axes, axis, *plates)


def branched(
    estimator: Branched,
    law: Law,
    axes: tuple[Axis, ...],
    parameters: dict[str, Tensor],
    plates: list[int],
    event: list[int],
) -> Branches:
    """Return the branches that an estimator makes of attached parameters."""
    shape = torch.Size()
    for leaf in parameters.values():
        shape = leaf.shape if leaf.dim() > len(shape) else shape
    sized = tuple(axis._replace(size=size) for axis, size in zip(axes, shape, strict=False))
    none, places = torch.empty(0), Apart(tuple(plates), tuple(event))
    return estimator.branches(Site(law, parameters, none, sized, Provided(), apart=places))
