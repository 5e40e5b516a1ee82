"""Lowering: from facts and choices to one torch.fx graph, the surrogate loss of a whole graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, fx

from scg.analysis.facts import Facts
from scg.choosing.choice import Choice
from scg.choosing.controls import Controlled
from scg.estimators.protocol.kinds import Branched
from scg.laws import Law
from scg.nodes.records import Input, Param, Sample
from scg.surrogate.lowering.boxes import Boxes
from scg.surrogate.lowering.branching import Branching, branches
from scg.surrogate.lowering.emitter import Emitter, Part
from scg.surrogate.lowering.marginals import Factor
from scg.surrogate.lowering.plan import NOISE, REPLICATES, Labels, make_plan
from scg.surrogate.lowering.slices import emit_record
from scg.surrogate.lowering.terms import Terms
from scg.surrogate.lowering.totals import branched_total, total
from scg.surrogate.lowering.watch import UNWATCHED, Watch
from scg.surrogate.lowering.weighing import charged
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import output

Lead = tuple[str, Labels]


@dataclass(frozen=True, eq=False)
class Lowered:
    """An emitted program: its graph, and the tensors it holds besides those of the user's graph.

    ``nodes`` maps lines to the nodes they evaluate, ``places`` also those of a node's branches and estimator,
    ``draws`` each line that draws to the node and its law, ``modes`` each node to its run mode. ``leads`` has
    the node and the leading dimensions of each line, "" for one that is 1 long,
    ``relaxed`` the run modes of every relaxed part. ``parts`` has what each line calls that is a slice, or
    what an estimator computes.
    """

    graph: fx.Graph
    constants: Mapping[str, Tensor]
    nodes: Mapping[str, str]
    places: Mapping[str, str]
    draws: Mapping[str, tuple[str, Law]]
    modes: Mapping[str, str]
    leads: Mapping[str, Lead]
    relaxed: Sequence[Mapping[str, str]]
    parts: Mapping[str, Part]

    @property
    def used_modes(self) -> frozenset[tuple[str, str]]:
        """Every node with a run mode in which its function is called."""
        return frozenset(pair for modes in (self.modes, *self.relaxed) for pair in modes.items())


def lower(
    facts: Facts,
    choices: Mapping[str, Choice],
    *,
    samples: int | None,
    keep: Sequence[str],
    controls: Mapping[str, Controlled],
    constants: Mapping[str, Tensor],
    looped: frozenset[str] = frozenset(),
    gradients: bool = True,
    order: int = 1,
    watch: Watch = UNWATCHED,
) -> Lowered:
    """Emit the program: the sampled objective, and with ``gradients`` a backward that is unbiased.

    From an ``order`` of 2 on, so is every derivative of that.

    The loss is J + (s - sg s), where s holds the score terms; below enumerated nodes the derivative
    flows through the expectation over their branches instead of through J. ``constants`` are the numbers
    that the program holds already, and ``watch`` sees the calls that it makes.
    """
    plan = make_plan(facts, choices, samples, controls, constants, looped, watch)
    emitter = Emitter()
    world = World(plan, emitter)
    _arguments(world)
    _evaluate(world, keep)
    costs = {
        name: total(world, charged(world, name), world.lead(name), f"{name}_total") for name in plan.ir.costs
    }
    loss = emitter.add(list(costs.values()), "objective") if costs else None
    leads = _leads(world)
    if loss is not None and gradients:
        loss = _surrogate(world, loss, leads, order)
    _output(world, loss, keep)
    nodes = _lines(world)
    places = {**emitter.places, **nodes}
    return Lowered(
        emitter.graph,
        plan.constants,
        nodes,
        places,
        world.draws,
        plan.modes,
        leads,
        plan.relaxed_parts,
        emitter.parts,
    )


def _leads(world: World) -> dict[str, Lead]:
    """Return the leading dimensions of the lines that evaluate nodes in a world, and the node of each."""
    ir, found = world.plan.ir, dict[str, Lead]()
    for name in (name for name in world.values if name in ir):
        repeating = world.repeats(name)
        labels = tuple("" if label in repeating else label for label in world.lead(name))
        found.setdefault(world.values[name].name, (name, labels))
    return found


def _lines(world: World) -> dict[str, str]:
    """Return the node of each line; where several share one, that of which most is known to hold."""
    ir, names = world.plan.ir, dict[str, str]()
    for name in (name for name in world.values if name in ir):
        line = world.values[name].name
        if line not in names or not isinstance(ir[names[line]], (Sample, Param)):
            names[line] = name
    return names


def _arguments(world: World) -> None:
    for name in world.plan.ir.inputs:
        world.values[name] = world.emitter.argument(name)
    world.values[NOISE] = world.emitter.argument("noise")


def _evaluate(world: World, keep: Sequence[str]) -> None:
    """Append every node that leads to a cost, to a sample, to what a network reads or to what is kept."""
    ir = world.plan.ir
    wanted = {*ir.costs, *ir.samples, *keep}
    wanted.update(*(known.context for known in world.plan.controls.values()))
    for name in reversed(list(ir)):
        if name in wanted:
            wanted.update(ir[name].parents)
    for record in ir.records():
        if record.name in wanted and not isinstance(record, Input):
            emit_record(world, record)


def _surrogate(world: World, objective: fx.Node, leads: dict[str, Lead], order: int) -> fx.Node:
    """Append what turns the objective's value into a loss whose backward is the estimate."""
    plan, emitter = world.plan, world.emitter
    inside = World(plan, emitter, world, "_branches", "#branches")
    branching = _branch(inside)
    leads.update(_leads(inside))
    if order > 1:
        return _valued(emitter, objective, Boxes(inside, branching).total())
    terms = Terms(inside, branching)
    for name in reversed(plan.ir.samples):
        terms.visit(name)
    surrogate = terms.total()
    if not branching.masses:
        if surrogate is None:
            return objective
        return emitter.call(operator.add, objective, _no_value(emitter, surrogate), name="loss")
    paths = [
        branched_total(
            inside, branching, charged(inside, name), inside.lead(name), f"{name}_expected", attached=True
        )
        for name in plan.ir.costs
    ]
    surrogate = emitter.add([*paths, *([surrogate] if surrogate is not None else [])], "surrogate")
    return _valued(emitter, objective, surrogate)


def _valued(emitter: Emitter, objective: fx.Node, surrogate: fx.Node) -> fx.Node:
    """Append a loss with the value of the objective and the derivative of the surrogate."""
    value = emitter.method("detach", objective, name="objective")
    return emitter.call(operator.add, value, _no_value(emitter, surrogate), name="loss")


def _no_value(emitter: Emitter, surrogate: fx.Node) -> fx.Node:
    """Append a zero that has the derivative of the surrogate."""
    value = emitter.method("detach", surrogate, name="surrogate_value")
    return emitter.call(operator.sub, surrogate, value, name="surrogate_gradient")


def _branch(inside: World) -> Branching:
    """Evaluate what lies below enumerated nodes once more, in all of their branches."""
    plan, branching = inside.plan, Branching(inside)
    for name in plan.ir:
        record = plan.ir[name]
        if name not in plan.useful:
            continue
        if isinstance(record, Sample) and isinstance(plan.choices[name].estimator, Branched):
            axis = f"#{name}"
            values, mass, lead = branches(inside, record, axis)
            inside.values[name], inside.axes[name] = values, (axis,)
            inside.repeating[name] = frozenset(plan.facts.together(name))
            branching.masses[axis] = Factor(mass, lead, axis)
        elif any(parent in inside.values for parent in record.parents):
            emit_record(inside, record)
    return branching


def _output(world: World, loss: fx.Node | None, keep: Sequence[str]) -> None:
    plan, emitter = world.plan, world.emitter

    def detached(name: str) -> fx.Node:
        value, record = world.value(name), plan.ir[name]
        shown = emitter.shown("output", plan.samples, partial(output, replicates=plan.samples))
        if plan.samples is not None and REPLICATES not in world.axes_of(name):
            return emitter.call(shown, value, name=f"{name}_value")
        if isinstance(record, Sample):
            cut = plan.choices[name].through is None
            return value if cut else emitter.method("detach", value, name=f"{name}_value")
        if isinstance(plan.facts.trace.values[name], Tensor):
            return emitter.method("detach", value, name=f"{name}_value")
        return emitter.call(emitter.shown("output", None, output), value, name=f"{name}_value")

    kept = {name: detached(name) for name in keep}
    costs = {name: detached(name) for name in plan.ir.costs}
    drawn = {name: detached(name) for name in plan.ir.samples}
    emitter.graph.output({"loss": loss, "costs": costs, "samples": drawn, "kept": kept})
