"""Stages: a program as declared, analysed, chosen, lowered and traced, each to be printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scg.nodes.ir import IR
from scg.program.assumptions import assumptions
from scg.program.prepare import Prepared

NOTHING = "no stochastic nodes"


@dataclass(frozen=True)
class Stage:
    """One stage of the compiler as text."""

    name: str
    text: str

    def __str__(self) -> str:
        """The text."""
        return self.text


@dataclass(frozen=True)
class Stages:
    """What a graph becomes on its way to a program.

    ``declared`` has its nodes, ``analysed`` what was found out about them, ``chosen`` their estimators,
    ``lowered`` the emitted code, and ``traced`` the calls of torch that a run makes.
    """

    declared: Stage
    analysed: Stage
    chosen: Stage
    lowered: Stage
    traced: Stage

    def __str__(self) -> str:
        """All stages, each under its name."""
        several = (self.declared, self.analysed, self.chosen, self.lowered, self.traced)
        return "\n\n".join(f"# {stage.name}\n{stage}" for stage in several)


def stages(ir: IR, prepared: Prepared, code: str, traced: str) -> Stages:
    """Return the stages of a program."""
    return Stages(
        Stage("declared", "\n".join(_declared(ir))),
        Stage("analysed", "\n".join(_analysed(ir, prepared)) or NOTHING),
        Stage("chosen", "\n".join(_chosen(prepared)) or NOTHING),
        Stage("lowered", code.rstrip()),
        Stage("traced", traced),
    )


def _declared(ir: IR) -> Iterator[str]:
    for record in ir.records():
        kind = type(record).__name__.lower()
        plates = f"[{', '.join(ir.layout[record.name])}]" if ir.layout[record.name] else ""
        yield f"{kind} {record.name}{plates} = {kind}({', '.join(record.parents)})"


def _analysed(ir: IR, prepared: Prepared) -> Iterator[str]:
    facts = prepared.facts
    for name in ir.samples:
        density = facts.trace.densities[name]
        costs = list(facts.influence.costs_of(facts.influence.reached[name]))
        yield f"{name}: {density.law.family}, event {list(facts.trace.event_shape(ir, name))}"
        for cost in costs:
            kept = facts.influence.kept(ir, name, cost)
            shown = f" element by element in {', '.join(kept)}" if kept else ""
            yield f"    reaches {cost}{shown}"
    yield from (str(assumption) for assumption in assumptions(prepared))


def _chosen(prepared: Prepared) -> Iterator[str]:
    for name, choice in prepared.choices.items():
        yield f"{name}: {choice.estimator.name} ({choice.reason}); {choice.asks}"
        for part, own in choice.parts.items():
            yield f"    {', '.join(part.costs)}: {own.estimator.name}; {own.asks}"
