"""Alone: a plate of which some elements can be evaluated without the rest, below a node at relaxed values."""

from __future__ import annotations

from scg.analysis.facts import Facts
from scg.analysis.many import takes_any_number
from scg.estimators.protocol.facts import Refusal
from scg.evaluation.calls import listed, user_function
from scg.evaluation.probing import undisturbed
from scg.nodes.records import STRUCTURAL, Sample


def alone(facts: Facts, name: str, *, relaxed: bool) -> str | Refusal:
    """Return the plate of a node that can be evaluated in part, or why none can.

    One that costs average over is taken before one that they add up, whose elements may be problems of their
    own, and the larger before the smaller. Steps of an ordered plate read each other. At ``relaxed`` values
    every cost that is smooth there has to keep the plate, and every function to treat its elements alike,
    however many there are.
    """
    plates = [p for p in facts.ir.layout[name] if not facts.ir.plates[p].ordered]
    if not plates:
        return Refusal("it has no plate but ordered ones, whose steps follow each other")
    faults = []
    ranks = {plate: (facts.ir.plates[plate].reduce == "mean", facts.trace.sizes[plate]) for plate in plates}
    for plate in sorted(plates, key=ranks.__getitem__, reverse=True):
        fault = _fault(facts, name, plate) if relaxed else None
        if fault is None:
            return plate
        faults.append(fault)
    return Refusal(faults[0])


def _fault(facts: Facts, name: str, plate: str) -> str | None:
    """Return why what lies below a node cannot be evaluated for some elements of a plate alone."""
    ir, known = facts.ir, facts.relaxation(name)
    for cost in known.smooth:
        if plate not in facts.influence.kept(ir, name, cost):
            return f"'{cost}' reads several elements of plate '{plate}' at once"
    with undisturbed(ir.store.modules):
        for record in known.records:
            if isinstance(record, Sample) and known.worlds[0].densities[record.name].law.noise == "value":
                return f"'{record.name}' is drawn for all of plate '{plate}' at once"
            function = user_function(record)
            if function is None or listed(function.call, STRUCTURAL):
                continue
            if not takes_any_number(ir, known.worlds[0], record, (plate,), even_one=True):
                return f"'{record.name}' is not known to treat the elements of plate '{plate}' alike"
    return None
