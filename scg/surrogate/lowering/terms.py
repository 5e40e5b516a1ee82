"""Surrogate terms: what each stochastic node adds to the loss besides the costs themselves."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import fx

from scg.choosing.bounded import bounds_of
from scg.choosing.choice import View
from scg.estimators.protocol.kinds import Cut, Estimator, Scored, Through
from scg.nodes.records import Sample
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.credit import Credit
from scg.surrogate.lowering.draws import own_log_prob
from scg.surrogate.lowering.elsewhere import exists
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.halves import Half
from scg.surrogate.lowering.made import seen_by
from scg.surrogate.lowering.noises import noise_of
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import Labels, Plan
from scg.surrogate.lowering.providing import Provider
from scg.surrogate.lowering.totals import branched_total
from scg.surrogate.lowering.weighing import ratio
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.estimation import Estimation
from scg.surrogate.runtime.ops import first_order, named
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
        self._provider = Provider(inside, branching)
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
        for half, extra in self._provider.by_halves(world, name, lead, view):
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
        provided = self._provider.of(world, name, lead, view) if provided is None else provided
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
