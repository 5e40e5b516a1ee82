"""Surrogate terms: what each stochastic node adds to the loss besides the costs themselves."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import fx

from scg.choosing.bounded import bounds_of
from scg.choosing.choice import View
from scg.errors import EstimatorError
from scg.estimators.protocol.kinds import Cut, Estimator, Scored, Through
from scg.nodes.plates import positions, trimmed
from scg.nodes.records import Sample
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.credit import Credit
from scg.surrogate.lowering.draws import own_log_prob
from scg.surrogate.lowering.elsewhere import exists
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.halves import Half, halves
from scg.surrogate.lowering.made import seen_by
from scg.surrogate.lowering.noises import base_noise, noise_of, standard_noise
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import Labels, Plan
from scg.surrogate.lowering.slices import Slice, downstream, redrawn, relaxed, relaxed_by_halves
from scg.surrogate.lowering.totals import branched_total
from scg.surrogate.lowering.weighing import ratio
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.estimation import Estimation
from scg.surrogate.runtime.ops import first_order, named
from scg.surrogate.runtime.randomness import fresh_key
from scg.surrogate.runtime.sites import Blueprint


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
        self._credits: dict[tuple[tuple[str, ...], bool], Credit] = {}
        self._slices: dict[str, Slice] = {}
        self._scores: dict[tuple[fx.Node, Labels], list[fx.Node]] = {}
        self._scalars: list[fx.Node] = []
        self._names: dict[tuple[fx.Node, Labels], str] = {}

    def visit(self, name: str) -> None:
        """Take in one stochastic node; nodes are visited from the costs upwards."""
        if name in self.plan.learnable and self.plan.facts.influence.reached[name]:
            for view in self.plan.views(name):
                self._view(name, view)

    def _view(self, name: str, view: View) -> None:
        """Take in a stochastic node as one of its estimators sees it."""
        outer, estimator = self.inside.outer, view.choice.estimator
        assert outer is not None
        if isinstance(estimator, Through):
            self._remember(name, view, estimator)
        if not isinstance(estimator, (Scored, Cut)):
            return
        world = self.inside if name in self.inside.values else outer
        lead = world.lead(name)
        credit = self._credit(self.plan.of(view), by_step=view.choice.asks.by_step).of(self.inside, name)
        is_attached = self.plan.choices[name].through is not None  # and so is log p of the value
        if not view.choice.asks.site and not is_attached:
            self._score(world, name, credit, lead)
            return
        known = self.plan.controls.get(view.key)
        is_learned = known is not None and known.is_learned
        if is_learned and view.choice.asks.block is not None:
            self._by_halves(world, name, credit, lead, view)
            return
        estimation = Estimation(name, estimator, self._blueprint(world, name, lead, view))
        site = self._site(world, name, credit, lead, estimation.blueprint, view)
        if is_attached or is_learned or view.choice.asks.restarts or isinstance(estimator, Cut):
            given = parameters(world, self._record(name), world.axes_of(name))
            line = self._line(world, name, view, estimator.name, estimation.surrogate, site, given)
            self._scalars.append(line)
            return
        factor = self._line(world, name, view, "factor", estimation.factor, site)
        self._score(world, name, factor, lead)

    def _by_halves(self, world: World, name: str, credit: fx.Node, lead: Labels, view: View) -> None:
        """Take in a node whose control variate trains on a block of a plate, and is only used on the rest."""
        estimator, given = view.choice.estimator, parameters(world, self._record(name), world.axes_of(name))
        assert isinstance(estimator, Cut)
        for half, extra in self._provided_by_halves(world, name, lead, view):
            blueprint = replace(
                self._blueprint(world, name, lead, view), blocked=lead.index(half.plate), trains=half.train
            )
            estimation = Estimation(name, estimator, blueprint)
            site = self._site(world, name, credit, lead, blueprint, view, half, extra)
            arguments = (site, given, half.places, half.size)
            line = self._line(
                world, name, view, estimator.name, estimation.surrogate, *arguments, half=half.name
            )
            self._scalars.append(line)

    def baseline(self, name: str) -> tuple[fx.Node, Labels] | None:
        """Append the baseline of a node with its leading dimensions, or nothing where it has none."""
        (view,), outer = self.plan.views(name), self.inside.outer
        assert outer is not None and isinstance(view.choice.estimator, Scored)
        if not view.choice.asks.site:
            return None
        world = self.inside if name in self.inside.values else outer
        lead = world.lead(name)
        credit = self._credit(self.plan, by_step=False).of(self.inside, name)
        estimation = Estimation(name, view.choice.estimator, self._blueprint(world, name, lead, view))
        site = self._site(world, name, credit, lead, estimation.blueprint, view)
        return self._line(world, name, view, "baseline", estimation.baseline, site), lead

    def _remember(self, name: str, view: View, estimator: Through) -> None:
        """Append a line in which an estimator that made the value remembers the run, where it does."""
        if view.key in self.plan.controls and type(estimator).remember is not Estimator.remember:
            emitter, label = self.inside.emitter, f"{view.label}_remembered"
            seen = partial(seen_by, estimator, self.plan.facts.trace.densities[name].law)
            emitter.placed(
                name, emitter.call(named(label, seen), self.inside.held(f"controls.{view.key}"), name=label)
            )

    def _credit(self, plan: Plan, *, by_step: bool) -> Credit:
        """Return what writes credit from the costs of a view, shared by those that have the same."""
        key = (plan.ir.costs, by_step)
        if key not in self._credits:
            self._credits[key] = Credit(plan, self.branching, is_weighed=not by_step)
        return self._credits[key]

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

    def _line(
        self,
        world: World,
        name: str,
        view: View,
        label: str,
        fn: Callable[..., Any],
        *arguments: Any,
        half: str = "",
    ) -> fx.Node:
        """Append what the estimator of a node computes."""
        emitter, shown = world.emitter, f"{view.label}{half}_{label}"
        line = emitter.call(named(shown, self.plan.watch.part(shown, fn)), *arguments, name=shown)
        return emitter.placed(name, emitter.part(line, Part(name, shown, view.key, half=half)))

    def _blueprint(self, world: World, name: str, lead: Labels, view: View) -> Blueprint:
        plan, coupled = self.plan.of(view), self.plan.choices[name].coupled
        together = frozenset(plan.facts.together(name))
        return Blueprint(
            law=plan.facts.trace.densities[name].law,
            axes=tuple(plan.axis(label, together, coupled) for label in lead),
            caller=plan.controls[view.key].caller if view.key in plan.controls else None,
            by_step=view.choice.asks.by_step,
            restarts=view.choice.asks.restarts,
            bound=bounds_of(plan.facts, name)[0] if view.choice.asks.terms else None,
        )

    def _site(
        self,
        world: World,
        name: str,
        credit: fx.Node,
        lead: Labels,
        blueprint: Blueprint,
        view: View,
        half: Half | None = None,
        provided: Mapping[str, Any] | None = None,
    ) -> fx.Node:
        emitter, ending = world.emitter, "" if half is None else half.name
        record, axes = self._record(name), world.axes_of(name)
        given, noise = parameters(world, record, axes), noise_of(world, record, axes)
        known = self.branching.weight(world, lead, attached=False)
        weight = None if known is None else self.branching.fitted(world, known, lead)
        provided = self._provided(world, name, lead, view) if provided is None else provided
        extra = {**provided, **self._elsewhere(world, record, lead, view)}
        if half is not None:
            extra["places"] = half.places
        label = f"{view.label}{ending}_site"
        shown = named(label, self.plan.watch.detail(label, blueprint.site))
        arguments = (given, noise, world.value(name), credit, weight)
        line = emitter.placed(name, emitter.call(shown, *arguments, name=label, **extra))
        return emitter.part(line, Part(name, label, view.key, half=ending))

    def _elsewhere(self, world: World, record: Sample, lead: Labels, view: View) -> dict[str, Any]:
        """Return which elements exist, and the ratios of what was drawn from another law."""
        found = dict[str, Any]()
        mask = exists(world, record, tuple(label for label in lead if label in self.plan.axes))
        if mask is not None:
            found["exists"] = mask
        weight = ratio(world, record.name, lead, by_step=view.choice.asks.by_step)
        return found if weight is None else {**found, "ratio": weight}

    def _provided_by_halves(
        self, world: World, name: str, lead: Labels, view: View
    ) -> Iterator[tuple[Half, dict[str, Any]]]:
        """Yield each half of a plate with what an estimator asks for there."""
        plan, both = self.plan.of(view), halves(world, name, view)
        plain = replace(view.choice, asks=replace(view.choice.asks, relaxed=0))
        found = self._provided(world, name, lead, replace(view, choice=plain))
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

    def _provided(self, world: World, name: str, lead: Labels, view: View) -> dict[str, Any]:
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
