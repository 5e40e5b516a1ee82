"""Providing: the lines of what an estimator asks for at its node, besides what every site has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from scg.choosing.bounded import bounds_of
from scg.choosing.choice import View
from scg.errors import EstimatorError
from scg.nodes.plates import positions, trimmed
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.halves import Half, halves
from scg.surrogate.lowering.noises import base_noise, standard_noise
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.slices import Slice, downstream, redrawn, relaxed, relaxed_by_halves
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.randomness import fresh_key


class Provider:
    """Writes what estimators ask for; slices of nodes below, once written, serve those above."""

    def __init__(self, inside: World, branching: Branching) -> None:
        """Start with no slice; ``inside`` is the world with all branches of enumerated nodes."""
        self.plan = inside.plan
        self.inside = inside
        self.branching = branching
        self._slices: dict[str, Slice] = {}

    def by_halves(
        self, world: World, name: str, lead: Labels, view: View
    ) -> Iterator[tuple[Half, dict[str, Any]]]:
        """Yield each half of a plate with what an estimator asks for there."""
        plan, both = self.plan.of(view), halves(world, name, view)
        plain = replace(view.choice, asks=replace(view.choice.asks, relaxed=0))
        found = self.of(world, name, lead, replace(view, choice=plain))
        slices: Sequence[fx.Node | None] = (None, None)
        if view.choice.asks.relaxed:
            slices = relaxed_by_halves(self.inside, plan, self.branching, name, view.label, lead, both)
        for half, relaxed_costs in zip(both, slices, strict=True):
            own: dict[str, Any] = {} if relaxed_costs is None else {"relaxed": relaxed_costs}
            if "context" in found:
                names = plan.controls[view.key].context
                leads = [self._seen(world, other, lead).lead(other) for other in names]
                kept = [lead if half.plate in have else () for have in leads]
                own["context"] = tuple(half.all_of(world, zip(found["context"], kept, strict=True)))
            yield half, {**found, **own}

    def of(self, world: World, name: str, lead: Labels, view: View) -> dict[str, Any]:
        """Return what an estimator asks for besides what every site has."""
        plan, asks, found = self.plan.of(view), view.choice.asks, dict[str, Any]()
        if view.key in plan.controls:
            found["controls"] = world.held(f"controls.{view.key}")
            if plan.controls[view.key].context:
                found["context"] = self._context(world, plan.controls[view.key].context, lead)
        if asks.downstream:
            found["downstream"] = downstream(self.inside, plan, self.branching, name, view.label, lead)
        if asks.redraws:
            found["redrawn"] = redrawn(self.inside, self.branching, view, name, lead)
        if asks.relaxed:
            written = self._slices if plan is self.plan else {}
            found["relaxed"] = relaxed(self.inside, plan, self.branching, name, view.label, lead, written)
        if asks.terms:
            found["terms"] = self._terms(world, name, bounds_of(plan.facts, name)[0].terms, lead, view)
        axes = world.axes_of(name)
        if asks.standard:
            found["standard"] = standard_noise(world, name, axes)
        if asks.fresh:
            found["fresh"] = tuple(
                base_noise(world, name, fresh_key(name, index), f"{name}_fresh_{index + 1}", axes)
                for index in range(view.fresh, view.fresh + len(asks.fresh))
            )
        return found

    def _terms(self, world: World, name: str, terms: str, lead: Labels, view: View) -> fx.Node:
        """Return the terms of a bound; refuse to weigh the slopes of a bound that has more branches."""
        if view.choice.asks.relaxed and not {*world.axes_of(terms)} <= {*lead}:
            raise EstimatorError(
                f"{view.choice.estimator.name} at '{name}': the terms '{terms}' have branches of enumerated "
                f'nodes that are not above it: use "score" there, or "reparam" here'
            )
        (found,) = self._context(world, [terms], lead)
        return found

    def _context(self, world: World, names: Iterable[str], lead: Labels) -> tuple[fx.Node, ...]:
        """Return what an estimator reads of other nodes, with size-1 dimensions where they lack one."""
        found = []
        for other in names:
            seen = self._seen(world, other, lead)
            have, value = seen.lead(other), seen.value(other)
            found.append(world.emitter.index(value, trimmed(positions(have, lead))))
        return tuple(found)

    def _seen(self, world: World, other: str, lead: Labels) -> World:
        """Return where a node is read: an enumerated sibling, which is not above this one, at its sample."""
        return world if world.outer is None or {*world.axes_of(other)} <= {*lead} else world.outer
