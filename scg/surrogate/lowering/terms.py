"""Surrogate terms: what each stochastic node adds to the loss besides the costs themselves."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.kinds import Cut, Scored
from scg.nodes.plates import insertion, positions, trimmed
from scg.nodes.records import Sample
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.credit import Credit
from scg.surrogate.lowering.draws import (
    base_noise,
    noise_of,
    own_log_prob,
    parameters,
    standard_noise,
)
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.slices import Slice, downstream, relaxed
from scg.surrogate.lowering.totals import branched_total
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import first_order, named
from scg.surrogate.runtime.randomness import fresh_key
from scg.surrogate.runtime.sites import Frame, Inquiry


class Terms:
    """Collects the terms of all stochastic nodes and writes their sum.

    Scores that share a factor are added before they are multiplied, and products of one layout before
    they are averaged.
    """

    def __init__(self, inside: World, branching: Branching) -> None:
        """Start with no term; ``inside`` is the world with all branches of enumerated nodes."""
        self.plan = inside.plan
        self.inside = inside
        self.branching = branching
        self.credit = Credit(inside.plan, branching)
        self._slices: dict[str, Slice] = {}
        self._scores: dict[tuple[fx.Node, Labels], list[fx.Node]] = {}
        self._scalars: list[fx.Node] = []
        self._names: dict[tuple[fx.Node, Labels], str] = {}

    def visit(self, name: str) -> None:
        """Take in one stochastic node; nodes are visited from the costs upwards."""
        outer = self.inside.outer
        assert outer is not None
        world = self.inside if name in self.inside.values else outer
        choice = self.plan.choices[name]
        estimator = choice.estimator
        if not isinstance(estimator, (Scored, Cut)) or not self.plan.facts.influence.reached[name]:
            return
        if name not in self.plan.learnable:
            return
        lead = self.branching.lead(world, name)
        credit = self.credit.of(self.inside, name)
        if not choice.asks.site:
            self._score(world, name, credit, lead)
            return
        inquiry = Inquiry(name, estimator, self._frame(world, name, lead))
        site = self._site(world, name, credit, lead, inquiry.frame, choice.asks)
        learns = name in self.plan.controls and self.plan.controls[name].is_learned
        if learns or isinstance(estimator, Cut):
            given = parameters(world, self._record(name), world.axes_of(name))
            self._scalars.append(self._line(world, name, estimator.name, inquiry.surrogate, site, given))
            return
        self._score(world, name, self._line(world, name, "factor", inquiry.factor, site), lead)

    def total(self) -> fx.Node | None:
        """Append the sum of all terms, or nothing if there are none."""
        world = self.inside
        products: dict[Labels, list[fx.Node]] = {}
        for (factor, lead), scores in self._scores.items():
            name = self._names[factor, lead]
            score = world.emitter.add(scores, "log_prob")
            product = world.emitter.call(operator.mul, factor, score, name=f"{name}_score")
            products.setdefault(lead, []).append(product)
        scalars = list(self._scalars)
        for lead, several in products.items():
            summed = world.emitter.add(several, "score")
            scalars.append(branched_total(world, self.branching, summed, lead, "score", attached=False))
        if not scalars:
            return None
        shown = world.emitter.shown("first_order", None, first_order)
        return world.emitter.call(shown, world.emitter.add(scalars, "surrogate"), name="surrogate")

    def _record(self, name: str) -> Sample:
        record = self.plan.ir[name]
        assert isinstance(record, Sample)
        return record

    def _score(self, world: World, name: str, factor: fx.Node, lead: Labels) -> None:
        log_prob = world.aligned(own_log_prob(world, name), world.lead(name), lead)
        self._scores.setdefault((factor, lead), []).append(log_prob)
        self._names.setdefault((factor, lead), name)

    def _line(self, world: World, name: str, label: str, fn: Callable[..., Any], *arguments: Any) -> fx.Node:
        """Append what the estimator of a node computes."""
        emitter = world.emitter
        shown = f"{name}_{label}"
        line = emitter.call(named(shown, self.plan.watch.part(shown, fn)), *arguments, name=shown)
        return emitter.placed(name, emitter.part(line, Part(name, shown)))

    def _frame(self, world: World, name: str, lead: Labels) -> Frame:
        plan = self.plan
        together = frozenset(plan.facts.together(name))
        return Frame(
            law=plan.facts.trace.densities[name].law,
            index=insertion(world.lead(name), lead),
            axes=tuple(plan.axis(label, together) for label in lead),
            caller=plan.controls[name].caller if name in plan.controls else None,
        )

    def _site(
        self, world: World, name: str, credit: fx.Node, lead: Labels, frame: Frame, asks: Asks
    ) -> fx.Node:
        emitter = world.emitter
        record, axes = self._record(name), world.axes_of(name)
        given, noise = parameters(world, record, axes), noise_of(world, record, axes)
        weights = self.branching.product(world, lead, attached=False)
        weight = None if weights is None else self.branching.fitted(world, weights, lead)
        extra = self._provided(world, name, lead, asks)
        label = f"{name}_site"
        shown = named(label, self.plan.watch.detail(label, frame.site))
        arguments = (given, noise, world.value(name), credit, weight)
        line = emitter.placed(name, emitter.call(shown, *arguments, name=label, **extra))
        return emitter.part(line, Part(name, label))

    def _provided(self, world: World, name: str, lead: Labels, asks: Asks) -> dict[str, Any]:
        """Return what an estimator asks for besides what every site has."""
        plan, found = self.plan, dict[str, Any]()
        if name in plan.controls:
            found["controls"] = world.held(f"controls.{name}")
            if plan.controls[name].context:
                found["context"] = self._context(world, name, lead)
        if asks.downstream:
            found["downstream"] = downstream(self.inside, plan, self.branching, name, lead)
        if asks.relaxed:
            found["relaxed"] = relaxed(self.inside, plan, self.branching, name, lead, self._slices)
        axes = world.axes_of(name)
        if asks.standard:
            found["standard"] = standard_noise(world, name, axes)
        if asks.fresh:
            found["fresh"] = tuple(
                base_noise(world, name, fresh_key(name, index), f"{name}_fresh_{index + 1}", axes)
                for index in range(len(asks.fresh))
            )
        return found

    def _context(self, world: World, name: str, lead: Labels) -> tuple[fx.Node, ...]:
        """Return what the estimator's network reads, with size-1 dimensions where it lacks one."""
        found = []
        for other in self.plan.controls[name].context:
            # A sibling that is enumerated, and is not above this node, is read at its sample.
            seen = world if world.outer is None or {*world.axes_of(other)} <= {*lead} else world.outer
            have, value = seen.lead(other), seen.value(other)
            found.append(world.emitter.index(value, trimmed(positions(have, lead))))
        return tuple(found)
