"""Branches of enumerated nodes: their outcomes and masses, and expectations over them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.kinds import Branched, Branches
from scg.estimators.protocol.site import Apart, Provided, Site
from scg.laws import Law
from scg.nodes.records import Sample
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.marginals import Factor, Marginals, merged
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import possible, share


class Branching:
    """The probability of every branch: a weighted plate for each enumerated node.

    ``masses[axis]`` is the attached probability of the outcomes along an axis, given the branches of
    enumerated nodes above, with its leading dimensions.
    """

    def __init__(self, inside: World) -> None:
        """Start without enumerated nodes; ``inside`` is the world with all of their branches."""
        self.plan = inside.plan
        self.masses: dict[str, Factor] = {}
        self.marginals = Marginals(inside, self.masses)
        self._detached: dict[fx.Node, fx.Node] = {}

    def weight(self, world: World, axes: Labels, *, attached: bool) -> Factor | None:
        """Return the probability of the branches along several axes, or None along none of them."""
        found = self.marginals.of(axes)
        if found is None or attached:
            return found
        return self._seen(world, found)

    def fitted(self, world: World, mass: Factor, lead: Labels) -> fx.Node:
        """Align a probability to a lead, without plates of size 1 that the lead does not have."""
        value, labels = mass.value, mass.labels
        gone = [dim for dim, label in enumerate(labels) if label not in lead]
        if gone:
            value = world.emitter.method("sum", value, gone, name=value.name)
        return world.aligned(value, tuple(label for label in labels if label in lead), lead)

    def weighed(self, world: World, value: fx.Node, labels: Labels, mass: Factor) -> tuple[fx.Node, Labels]:
        """Multiply a value by the probability of its branches, where impossible ones count as 0.

        Plates of size 1 that only the probability has are gone.
        """
        both, name = merged(world, labels, mass.labels), value.name
        shown = world.emitter.shown("possible", None, possible)
        left, right = world.aligned(value, labels, both), world.aligned(mass.value, mass.labels, both)
        finite = world.emitter.call(shown, left, right, name=f"{name}_possible")
        product = world.emitter.call(operator.mul, finite, right, name=f"{name}_weighted")
        return _without(world, product, both, _lacking(world, both, labels))

    def expected(self, world: World, value: fx.Node, labels: Labels, lead: Labels) -> tuple[fx.Node, Labels]:
        """Return the expectation of a value over the branches that are no dimension of ``lead``."""
        extra = frozenset(labels).intersection(self.masses).difference(lead)
        if not extra:
            return value, labels
        joint, whole = (
            found and self._seen(world, found) for found in self.marginals.given(extra, frozenset(lead))
        )
        assert joint is not None
        value, labels = self.weighed(world, value, labels, joint)
        value, labels = _without(world, value, labels, [label for label in labels if label in extra])
        if whole is None:
            return value, labels
        shown = world.emitter.shown("share", None, share)
        both = merged(world, labels, whole.labels)
        left, right = world.aligned(value, labels, both), world.aligned(whole.value, whole.labels, both)
        value = world.emitter.call(shown, left, right, name=value.name)
        return _without(world, value, both, _lacking(world, both, labels))

    def _seen(self, world: World, factor: Factor) -> Factor:
        """Return a probability as it is seen in a world, detached."""
        value = world.capture(factor.value, factor.labels)
        if value not in self._detached:
            self._detached[value] = world.emitter.method("detach", value, name=factor.value.name)
        return Factor(self._detached[value], factor.labels)


def _lacking(world: World, both: Labels, labels: Labels) -> list[str]:
    """Return the plates among ``both`` that are not among ``labels``: they are 1 long."""
    return [label for label in both if label in world.plan.ir.plates and label not in labels]


def _without(world: World, value: fx.Node, labels: Labels, gone: Sequence[str]) -> tuple[fx.Node, Labels]:
    """Add up along some dimensions."""
    if not gone:
        return value, labels
    value = world.emitter.method("sum", value, [labels.index(label) for label in gone], name=value.name)
    return value, tuple(label for label in labels if label not in gone)


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
    law, label = density.law, f"{name}_{estimator.name}"

    def outcomes() -> fx.Node:
        made = partial(branched, estimator, law, tuple(map(plan.axis, axes)))
        shown = emitter.shown(label, (name,), plan.watch.detail(label, made))
        line = emitter.call(shown, given, sizes, event, name=f"{name}_outcomes")
        return emitter.part(emitter.placed(name, line), Part(name, label))

    # Steps of a chain that are alike are written once: equal lines, and outcomes that no parameter moves. One
    # line stands for nodes of the same plates alone, as what reads it may take some elements of one.
    alike = (_key(estimator), _key(law), plates, tuple(sizes), tuple(event))
    found = emitter.once("outcomes", (*alike, len(axes), tuple(given.items())), outcomes)

    def at(index: int, line: str) -> fx.Node:
        return emitter.once(
            "at", (found, index), lambda: emitter.call(operator.getitem, found, index, name=line)
        )

    support = law.support(density.parameters)
    fixed = (*alike, tuple(support.shape), support.dtype) if law.has_fixed_support else found
    values = emitter.once("support", fixed, lambda: emitter.placed(name, at(0, world.called(name))))
    return values, at(1, f"{name}_mass"), (*axes, axis, *plates)


def _key(held: Any) -> Any:
    """Return what stands for an estimator or a law in a key: itself, or its place where it has no hash."""
    try:
        hash(held)
    except TypeError:
        return id(held)
    return held


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
