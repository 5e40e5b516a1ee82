"""Describing a stochastic node to estimators: what they are told when they are chosen."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scg.analysis.facts import Facts
from scg.analysis.influence import below
from scg.analysis.relaxation import ELSEWHERE
from scg.choosing.additive import added
from scg.choosing.alone import alone
from scg.choosing.bounded import bounds_of
from scg.choosing.learned import attached, learned
from scg.estimators.protocol.facts import REPLICATES, Axis, NodeFacts, Slice
from scg.evaluation.calls import user_function
from scg.laws import Relaxable, bind
from scg.nodes.arguments import Ref
from scg.nodes.records import Constant, Sample


def node_facts(facts: Facts, name: str, samples: int | None, coupled: str | None = None) -> NodeFacts:
    """Return what an estimator is told of one stochastic node, whose noise may be ``coupled``."""
    ir, trace = facts.ir, facts.trace
    density = trace.densities[name]
    law, plates = density.law, ir.layout[name]
    value = trace.values[name]
    event = tuple(value.shape[len(plates) :])
    together = facts.together(name)
    elements = 1
    for size in event[: density.inner]:
        elements *= size
    for plate in plates:
        elements *= 1 if plate in together else trace.sizes[plate]
    record = ir[name]
    assert isinstance(record, Sample)
    return NodeFacts(
        name=name,
        law=law,
        event=event,
        elements=elements,
        outcomes=len(law.support(density.parameters)) if law.finite else None,
        axes=_axes(facts, name, samples, coupled),
        moving=_moving(facts, record),
        obstacle=lambda: facts.obstacle(name),
        has_mode=_has_mode(facts, name),
        reaches_cost=bool(facts.influence.reached[name]),
        dtype=density.dtype,
        slice=lambda: _slice(facts, name),
        is_short=lambda limit: facts.is_short(name, limit),
        parents=record.arguments.names,
        is_given=record.value is not None,
        is_followed=bool(ir.given) and not {*ir.given}.isdisjoint(below(ir, name)),
        has_behaviour=record.behaviour is not None,
        is_weighed=_is_weighed(facts, name),
        bounds=bounds_of(facts, name),
        added=lambda: added(facts, name),
        shape=lambda other: _shape(facts, other),
        learned=lambda: learned(facts, record),
        drawn_below=lambda: drawn_below(facts, name),
        alone=lambda relaxed: alone(facts, name, relaxed=relaxed),
    )


def drawn_below(facts: Facts, name: str) -> tuple[str, ...]:
    """Return the stochastic nodes through which a node reaches costs."""
    several = (other for other in below(facts.ir, name) if other in facts.useful)
    return tuple(other for other in several if isinstance(facts.ir[other], Sample))


def _axes(facts: Facts, name: str, samples: int | None, coupled: str | None) -> tuple[Axis, ...]:
    """Return the axes of a node: the replicates, if there are any, and its plates."""
    replicates = () if samples is None else (Axis(REPLICATES, samples, coupled=coupled),)
    apart = facts.together(name)
    plates = (
        Axis(
            plate,
            facts.trace.sizes[plate],
            facts.ir.plates[plate].reduce == "mean",
            facts.ir.plates[plate].discount,
            plate not in apart,
            facts.ir.plates[plate].ordered,
        )
        for plate in facts.ir.layout[name]
    )
    return (*replicates, *plates)


def _is_weighed(facts: Facts, name: str) -> bool:
    """Say whether ratios weigh a cost that a node reaches."""
    reached = facts.influence.reached
    several = (other for other in facts.ir.given if reached[other] & reached[name])
    return any(getattr(facts.ir[other], "behaviour", None) is not None for other in several)


def _slice(facts: Facts, name: str) -> Slice:
    if name in facts.ir.given:
        reached = facts.influence.costs_of(facts.influence.reached[name])
        return Slice((), dict.fromkeys(reached, ELSEWHERE))
    found = facts.relaxation(name)
    draws = tuple(record.name for record in found.records if isinstance(record, Sample))
    relaxed = tuple(draw for draw in draws if isinstance(facts.trace.densities[draw].law, Relaxable))
    return Slice(found.smooth, found.obstacles, draws, relaxed)


def _shape(facts: Facts, name: str) -> tuple[int, ...] | None:
    """Return the shape of a node's value without plates, or None where a network cannot read it."""
    value = facts.trace.values[name]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    return tuple(value.shape[len(facts.ir.layout[name]) :])


def _moving(facts: Facts, record: Sample) -> str | None:
    """Name a parameter that moves the support of a node and is not a constant of the graph."""
    density = facts.trace.densities[record.name]
    movers = density.law.movers(density.parameters)
    if not movers:
        return None
    if user_function(record) is not None:
        movers = attached(facts, record, movers, lambda parent: True)
    else:
        bound = bind(record.dist.call, record.arguments.args, record.arguments.kwargs)  # type: ignore[arg-type]
        movers = tuple(name for name in movers if _varies(facts, bound.get(name)))
    return movers[0] if movers else None


def _varies(facts: Facts, template: Any) -> bool:
    """Say whether an argument of a distribution class is a node, and no constant."""
    return isinstance(template, Ref) and not isinstance(facts.ir[template.name], Constant)


def _has_mode(facts: Facts, name: str) -> bool:
    density = facts.trace.densities[name]
    try:
        density.law.mode(density.parameters)
    except NotImplementedError:
        return False
    return True
