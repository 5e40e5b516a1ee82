"""Explaining a program in words: what was chosen for each node, why, and what is assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from scg.analysis.captured import captures
from scg.analysis.facts import Facts
from scg.analysis.relaxation import Relaxation
from scg.choosing.choice import Choice, View, views
from scg.choosing.controls import Controlled
from scg.choosing.describe import node_facts
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.kinds import Branched, Cut, Estimator, Scored
from scg.nodes.ir import CAPTURED, IR
from scg.nodes.records import Sample
from scg.program.assumptions import assumptions, counted
from scg.program.prepare import Prepared

MANY = 8
COUPLED = {
    "antithetic": "replicates in antithetic pairs",
    "sobol": "replicates are the points of a scrambled Sobol' sequence",
}


def explain(ir: IR, prepared: Prepared | None, samples: int | None) -> str:
    """Return the explanation as text, a few lines for each stochastic node."""
    return "\n".join(_lines(ir, prepared, samples))


def _lines(ir: IR, prepared: Prepared | None, samples: int | None) -> Iterator[str]:
    yield f"{_count(len(ir), 'node')}, {len(ir.samples)} stochastic, {_count(len(ir.costs), 'cost')}"
    if samples is not None:
        yield f"{samples} replicates of every stochastic node"
    if prepared is None:
        yield "pending: everything else is found at the first call, or by program.prepare(**inputs)"
        return
    for name in ir.samples:
        yield from _node(ir, prepared, name)
    yield from _costs(ir, prepared)
    modes = prepared.modes
    shown = {name: mode for name, mode in modes.items() if mode != "elementwise"}
    if shown:
        yield "added dimensions: " + ", ".join(f"{name} by {mode}" for name, mode in shown.items())
    for plate in prepared.facts.assumed:
        yield f"assumed: plate '{plate}' has one element in the example, and was probed with more"
    facts = assumptions(prepared)
    if facts:
        yield f"rests on {_count(len(facts), 'fact')}: {counted(facts)}; program.assumptions() lists them"
    found = prepared.facts.hidden
    for assumption in found.assumptions:
        yield f"assumed: {assumption}"
    for warning in found.warnings:
        yield f"warning: {warning}"
    for name, keys in ir.store.reached.items():
        for key in keys:
            if key.startswith(f"{CAPTURED}.{name}."):
                kind = "module" if key in ir.store.modules else "parameter"
                short = key.rpartition(".")[2]
                yield f"'{name}' captures the {kind} '{short}', which the program holds as '{key}'"
    for fault in ir.store.lost:
        yield f"warning: {fault}"


def _node(ir: IR, prepared: Prepared, name: str) -> Iterator[str]:
    choice, facts = prepared.choices[name], prepared.facts
    density = facts.trace.densities[name]
    plates = f" in plates {', '.join(ir.layout[name])}" if ir.layout[name] else ""
    yield f"{name}: {choice.estimator.name} ({choice.reason}); {density.law.family}{plates}"
    if choice.coupled is not None:
        yield f"    noise: {COUPLED[choice.coupled]}"
    if not facts.influence.reached[name]:
        yield "    reaches no cost, so it needs no gradient"
        return
    for view in views(facts, name, choice):
        if choice.parts:
            yield f"  {view.last}: {view.choice.estimator.name}"
        yield from _view(ir, prepared, name, view)


def _view(ir: IR, prepared: Prepared, name: str, view: View) -> Iterator[str]:
    """Say what one estimator of a node is charged with, and what that takes."""
    choice, facts, estimator = view.choice, view.facts, view.choice.estimator
    charged = list(facts.influence.costs_of(facts.influence.reached[name]))
    shown = [f"{cost}{_kept(ir, facts, name, cost)}" for cost in charged[:6]]
    more = f" and {len(charged) - 6} more" if len(charged) > 6 else ""
    if isinstance(estimator, (Scored, Cut)):
        paid = _count(choice.asks.evaluations, "evaluation")
        yield f"    charged with {', '.join(shown)}{more}; {paid} below"
        if view.key in prepared.expenses:
            yield f"    warning: {prepared.expenses[view.key]}"
        if choice.asks.relaxed:
            yield from _relaxed(facts, name, _points(choice.asks))
        elif choice.asks.standard and (found := facts.known_relaxation(name)) is not None:
            yield from _obstacles(found, "is left to the network")
        known = prepared.controls.get(view.key)
        if known is not None and known.caller is not None:
            yield f"    its network reads {_read(name, choice, known)}"
            yield from _untrained(choice)
    elif isinstance(estimator, Branched):
        branches = node_facts(facts, name, prepared.samples).branches or 1
        times = ", times those of other enumerated nodes that it meets" if _others(prepared, name) else ""
        paid = f"{_count(branches, 'branch', 'branches')}{times}"
        yield f"    reaches {', '.join(shown)}{more}; {paid}, besides the sample"
    else:
        its = (
            "its gradient" if all(e.unbiased for e in choice.estimators) else "a gradient that is not its own"
        )
        yield f"    reaches {', '.join(shown)}{more}; the value passes on with {its}"
    if isinstance(estimator, Estimator) and not estimator.unbiased:
        yield f"    biased{' by ' if estimator.biased_by else ''}{' and '.join(estimator.biased_by)}"


def _relaxed(facts: Facts, name: str, points: str) -> Iterator[str]:
    """Say what is evaluated at relaxed values, what cannot be, and when that is much."""
    found = facts.relaxation(name)
    draws = [record.name for record in found.records if isinstance(record, Sample)]
    below = f", through {_listed(draws)}" if draws else ""
    each = _count(len(found.records), "node")
    yield f"    {points}: {_listed(found.smooth)}{below}; {each}{' each' if 'z~' in points else ''}"
    yield from _obstacles(found, "keeps the plain score")
    if len(draws) >= MANY:
        yield (
            f"    {_count(len(draws), 'stochastic node')} below are evaluated twice more: in long chains "
            "scg.RELAX(relaxed_cost=False) is cheaper"
        )


def _points(asks: Asks) -> str:
    """Say at which values of a node what lies below is evaluated with its derivative."""
    if not asks.standard:
        return "differentiated at one value"
    return "relaxed at z and z~" if asks.fresh else "relaxed at z"


def _obstacles(found: Relaxation, fate: str) -> Iterator[str]:
    for cost, reason in list(found.obstacles.items())[:6]:
        yield f"    {cost} {fate}: {reason}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _untrained(choice: Choice) -> Iterator[str]:
    """Warn of a network that is a plain function and captures what it should learn."""
    net = getattr(choice.estimator, "net", None)
    names = [] if net is None or isinstance(net, nn.Module) else captures(net)
    if names:
        yield f"    warning: its network captures {names}, which is not trained: give an nn.Module"


def _read(name: str, choice: Choice, known: Controlled) -> str:
    own = [f"'{name}'"] if choice.asks.points else []
    assert known.caller is not None
    added = f"; added dimensions by {known.caller.mode}"
    return ", ".join([*own, *known.context]) + added


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _others(prepared: Prepared, name: str) -> bool:
    return any(
        other != name and isinstance(choice.estimator, Branched) for other, choice in prepared.choices.items()
    )


def _kept(ir: IR, facts: Facts, name: str, cost: str) -> str:
    kept = facts.influence.kept(ir, name, cost)
    lost = [plate for plate in ir.layout[name] if plate not in kept]
    return f" (all of {', '.join(lost)})" if lost else ""


def _costs(ir: IR, prepared: Prepared) -> Iterator[str]:
    stochastic = prepared.facts.influence.stochastic
    for name in ir.costs:
        if name not in stochastic:
            yield f"{name}: a cost that no stochastic node reaches; it is differentiated as it is"
