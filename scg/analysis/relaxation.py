"""Relaxation: what lies below a stochastic node at relaxed values of it, and which costs are smooth there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scg.analysis.crossing import crossed
from scg.analysis.edges import SMOOTH, edge
from scg.analysis.influence import below, stochastic_plates
from scg.analysis.soft import Search, Softening
from scg.evaluation.calls import is_elementwise, signature
from scg.evaluation.moved import Around
from scg.evaluation.trace import Evaluations, Trace, deterministic
from scg.laws import Relaxable
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Det, Function, LogProb, Record, Sample
from scg.probes.smoothness import Smoothness, Verdict
from scg.probes.twice import Twice, attached, differentiated_twice, is_attached

ELSEWHERE = "its value was drawn elsewhere, and what follows cannot be evaluated at other actions"


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The part of a graph below one stochastic node, at relaxed values of that node.

    ``records`` are the nodes that lead to a cost in ``smooth``, in order, each with the function that it
    calls there; ``obstacles`` says of every other cost that the node reaches what stops it. ``worlds``
    are evaluations; in their densities relaxed nodes have the law that takes relaxed values. ``opaque``
    names the nodes whose functions differentiate by themselves, in an ``autograd.Function``.
    """

    smooth: tuple[str, ...]
    obstacles: Mapping[str, str]
    records: tuple[Record, ...]
    worlds: Sequence[Trace]
    opaque: tuple[str, ...]


def relaxation(
    ir: IR,
    worlds: Sequence[Trace],
    moved: Callable[[], list[Trace]],
    useful: frozenset[str],
    name: str,
    softening: Softening,
    known: dict[Any, Any],
) -> Relaxation:
    """Return what can be evaluated smoothly below a node; ``worlds`` are evaluations at hard values.

    Everything below that can be relaxed is; what is continuous is drawn with its derivative, which has to
    be right twice, since control parameters are trained through it. ``moved`` gives evaluations of which
    some may lie outside of what functions are made for. ``softening`` and ``known`` keep what was evaluated
    and judged, for the nodes that are asked for later.
    """
    lower = [ir[other] for other in below(ir, name) if other in useful]
    search = Search(ir, name, _carrying(worlds[0], name, lower))
    records = tuple(_relaxed_record(search, record) for record in lower)
    first = softening.evaluate(search, worlds[0], records)

    def tried(world: Trace) -> Trace:
        return softening.attempt(search, world, first, records)

    soft = Evaluations(len(worlds), lambda i: tried(worlds[i]) if i else first)
    around = Around(first, lambda: [*soft[1:3], *map(tried, moved())])
    for record in records:
        if not search.inherit(record) and record.name not in search.failed:
            _judge(search, soft, around, record, known)
    costs = [record.name for record in records if isinstance(record, Cost)]
    smooth = tuple(cost for cost in costs if cost not in search.origin)
    needed = set(smooth)
    for record in reversed(records):
        if record.name in needed:
            needed.update(record.parents)
    return Relaxation(
        smooth,
        {cost: search.obstacle(cost) for cost in costs if cost in search.origin},
        tuple(record for record in records if record.name in needed),
        soft,
        tuple(search.opaque),
    )


def _carrying(world: Trace, owner: str, records: Iterable[Record]) -> frozenset[str]:
    """Return the nodes with relaxed values: the owner, samples that can be relaxed, functions of either."""
    found = {owner}
    for record in records:
        if isinstance(record, Sample):
            carries = isinstance(world.densities[record.name].law, Relaxable)
        else:
            carries = isinstance(record, Det) and not found.isdisjoint(record.arguments.names)
        if carries:
            found.add(record.name)
    return frozenset(found)


def _relaxed_record(search: Search, record: Record) -> Record:
    """Return the record with the function that it calls at relaxed values."""
    if isinstance(record, Det) and record.relaxed is not None:
        if search.carrying.isdisjoint(record.arguments.names):
            return record
        return replace(record, fn=Function(record.relaxed), differentiable=record.differentiable or None)
    return record


def _judge(
    search: Search, worlds: Sequence[Trace], around: Around, record: Record, known: dict[Any, Any]
) -> None:
    """Fail a node that is not a smooth function of a parent that depends on the owner, or crosses a plate."""
    if search.ir[record.name] is not record:
        for plate, finding in crossed(search.ir, list(worlds[:3]), record, stochastic_plates(search.ir), {}):
            if finding.joint is not None:
                search.fail(record.name, f"its function of relaxed values crosses plate '{plate}'")
                return
    if isinstance(record, Sample) and record.value is not None:
        search.fail(record.name, ELSEWHERE)
        return
    for parent in record.parents:
        if parent not in search.reached:
            continue
        verdict = _verdict(search, around, parent, record, known)
        if verdict.smoothness is not Smoothness.SMOOTH:
            unknown = verdict.smoothness is Smoothness.UNKNOWN
            remedy = "; declare it with differentiable=True if you know that it is smooth" if unknown else ""
            search.fail(record.name, verdict.reason + remedy)
            return
    if isinstance(record, Det) and not is_elementwise(record):
        key = ("twice", signature(search.ir, worlds[0], record))
        if key not in known:
            known[key] = _differentiated_twice(search, worlds[0], record)
        if known[key].fault is not None:
            search.fail(record.name, known[key].fault)
        if known[key].is_opaque:
            search.opaque.append(record.name)


def _differentiated_twice(search: Search, trace: Trace, record: Det) -> Twice:
    """Differentiate a node's function in what depends on the owner, and its derivatives once more."""
    names = [parent for parent in record.parents if parent in search.reached]
    live = Trace(dict(trace.values), trace.densities, trace.sizes)
    live.values.update({name: pytree.tree_map_only(Tensor, attached, trace.values[name]) for name in names})
    leaves = [leaf for leaf in pytree.tree_leaves([live.values[name] for name in names]) if is_attached(leaf)]
    with torch.enable_grad():
        outputs = pytree.tree_leaves(deterministic(search.ir, live, record))
        return differentiated_twice([leaf for leaf in outputs if is_attached(leaf)], leaves)


def _verdict(search: Search, around: Around, parent: str, record: Record, known: dict[Any, Any]) -> Verdict:
    if isinstance(record, LogProb) and record.value == parent and parent in search.carrying:
        law = around.first.densities[record.name].law
        if isinstance(law, Relaxable):
            return SMOOTH  # linear
    return edge(search.ir, around, parent, record, known)
