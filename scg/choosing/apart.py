"""Apart: the graph of a node that passes its value on with a gradient to the costs of one part alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import networkx as nx
import torch

from scg.analysis.influence import below, influence
from scg.choosing.parts import Part, Parts
from scg.errors import PolicyError
from scg.estimators.protocol.kinds import Branched, Through
from scg.nodes.arguments import Arguments, Ref
from scg.nodes.ir import IR
from scg.nodes.records import Det, Function, LogProb, Record, Sample


def apart(ir: IR, policy: Mapping[str, object]) -> IR:
    """Return the graph in which the costs of other parts read a node's value without its gradient.

    The path derivative of one part would otherwise be that of all costs, which the other parts estimate
    as well. What leads to their costs alone reads a node ``<name>_detached`` instead.
    """
    for name, entry in policy.items():
        if isinstance(entry, Parts):
            ir = _apart(ir, name, entry)
    return ir


def _apart(ir: IR, name: str, entry: Parts) -> IR:
    found = influence(ir)
    parts = entry.shared_out(name, list(found.costs_of(found.reached[name])), ir.costs)
    _check_kinds(name, parts)
    attached = {cost for part in parts if isinstance(part.estimator, Through) for cost in part.costs}
    if not attached or len(parts) == 1:
        return ir
    led = {
        other: (nx.descendants(ir.dag, other) | {other}).intersection(ir.costs) for other in below(ir, name)
    }
    others = {other for other, costs in led.items() if costs and costs.isdisjoint(attached)}
    for other, costs in led.items():
        if other not in others and not costs <= attached and not _is_blind(ir, ir[other], others):
            raise PolicyError(
                f"the parts of '{name}' pass its value on with a gradient to {_listed(attached)} alone, but "
                f"'{other}' ({ir[other].where}) leads to {_listed(costs)}: declare it once for each part, as "
                f"by giving the same function to two nodes, or give '{name}' one estimator"
            )
    return _rewired(ir, name, others)


def _check_kinds(name: str, parts: list[Part]) -> None:
    for part in parts:
        if isinstance(part.estimator, Branched) and len(parts) > 1:
            raise PolicyError(
                f"the parts of '{name}' cannot have '{part.estimator.name}', which evaluates all that lies "
                f"below '{name}' at its outcomes: give it every cost, without scg.Parts"
            )


def _is_blind(ir: IR, record: Record, others: Collection[str]) -> bool:
    """Say whether no gradient of the ``others`` comes back through a node that leads to both kinds."""
    if not isinstance(record, Det):
        return False
    children = [ir[child] for child in ir.children(record.name) if child in others]
    is_read_blindly = all(isinstance(child, Det) and child.differentiable is False for child in children)
    return record.differentiable is False or (record.name not in ir.costs and is_read_blindly)


def _rewired(ir: IR, name: str, readers: Collection[str]) -> IR:
    """Return the graph in which the readers of a node read its detached value."""
    detached = f"{name}_detached"
    while detached in ir:
        detached += "_"
    dag = nx.DiGraph()
    for record in ir.records():
        changed = _reading(ir, record, name, detached) if record.name in readers else record
        several = [changed]
        if record.name == name:
            function = Function(torch.Tensor.detach, label=detached)
            arguments = Arguments((Ref(name),))
            several.append(Det(name=detached, where=record.where, arguments=arguments, fn=function))
        for one in several:
            dag.add_node(one.name, record=one)
            dag.add_edges_from((parent, one.name) for parent in one.parents)
    layout = {**ir.layout, detached: ir.layout[name]}
    return replace(ir, dag=dag, layout=layout, detached=(*ir.detached, detached))


def _reading(ir: IR, record: Record, name: str, other: str) -> Record:
    """Return a record that reads another node in the place of one."""
    args, kwargs = record.arguments.substitute(lambda parent: Ref(other if parent == name else parent))
    changed = replace(record, arguments=Arguments(args, kwargs))
    if not isinstance(changed, LogProb) or changed.value != name:
        return changed
    if changed.of is None:
        return replace(changed, value=other)
    sampled = ir[changed.of]
    assert isinstance(sampled, Sample)
    return replace(changed, value=other, of=None, dist=sampled.dist, arguments=sampled.arguments)


def _listed(costs: Collection[str]) -> str:
    return ", ".join(sorted(costs))
