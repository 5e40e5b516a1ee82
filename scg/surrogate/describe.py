"""Describing a stochastic node to estimators: what they are told when they are chosen."""

from __future__ import annotations

import torch

from scg.analysis.calls import user_function
from scg.analysis.facts import Facts
from scg.laws import bind
from scg.nodes.arguments import Ref
from scg.nodes.records import Sample
from scg.surrogate.estimators.base import NodeFacts


def node_facts(facts: Facts, name: str, samples: int | None) -> NodeFacts:
    """Return what an estimator is told of one stochastic node."""
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
        samples=samples,
        moving=_moving(facts, record),
        obstacle=lambda: facts.obstacle(name),
        reaches_cost=bool(facts.influence.reached[name]),
        dtype=value.dtype if value.is_floating_point() else torch.float32,
    )


def _moving(facts: Facts, record: Sample) -> str | None:
    """Name a parameter that moves the support of a node and is not a constant of the graph."""
    density = facts.trace.densities[record.name]
    movers = density.law.movers(density.parameters)
    if not movers or not record.parents:
        return None
    cls = record.dist.call
    if isinstance(cls, type) and user_function(record) is None:
        bound = bind(cls, record.arguments.args, record.arguments.kwargs)
        movers = tuple(name for name in movers if isinstance(bound.get(name), Ref))
    return movers[0] if movers else None
