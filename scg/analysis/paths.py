"""Differentiable paths: the first edge between a value and a cost through which no gradient flows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scg.analysis.calls import listed, runner, signature, user_function
from scg.analysis.influence import useful
from scg.analysis.invoke import seen
from scg.analysis.probing import undisturbed
from scg.analysis.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import STRUCTURAL, Det, LogProb, Record, Sample
from scg.probes.known import KNOWN_BROKEN, KNOWN_SMOOTH
from scg.probes.smoothness import Smoothness, Verdict, probe

SMOOTH = Verdict(Smoothness.SMOOTH, "known to be smooth")
MANY = 16
"""From more parents on, a function is probed in all of them at once, and in each only if that fails."""


@dataclass(frozen=True)
class Break:
    """The next step of a path that ends in an edge without a gradient; ``verdict`` is of that edge."""

    child: str
    verdict: Verdict
    last: bool


def breaks(ir: IR, trace: Trace) -> Mapping[str, Break]:
    """Return, for each node from which a value would flow into an edge that is not smooth, the next step.

    A path ends at the next stochastic node, whose law is smooth in its parameters; edges that lead to
    no cost do not matter.
    """
    flows = _flows(ir, trace)
    reaching = useful(ir)
    found: dict[str, Break] = {}
    known: dict[Any, Verdict] = {}
    for name in reversed(list(ir)):
        if name not in flows:
            continue
        for child in ir.children(name):
            if child not in reaching:
                continue
            verdict = edge(ir, trace, name, ir[child], known)
            if verdict.smoothness is not Smoothness.SMOOTH:
                found[name] = Break(child, verdict, last=True)
            elif child in found and not isinstance(ir[child], Sample):
                found[name] = Break(child, found[child].verdict, last=False)
            if name in found:
                break
    return found


def describe(ir: IR, found: Mapping[str, Break], name: str) -> str | None:
    """Write out the path from ``name`` to the edge that stops it, with the reason, or return None."""
    if name not in found:
        return None
    path, step = [name], found[name]
    while not step.last:
        path.append(step.child)
        step = found[step.child]
    path.append(step.child)
    culprit, end = step.child, step.child
    while ir.dag.out_degree(end) and not isinstance(ir[end], Sample):
        end = next(iter(ir.children(end)))
        path.append(end)
    shown = " -> ".join(path if len(path) < 9 else [*path[:4], "...", *path[-4:]])
    if step.verdict.smoothness is Smoothness.BROKEN:
        return f"the path {shown} is not differentiable ({culprit}: {step.verdict.reason})"
    return (
        f"the path {shown} is not known to be differentiable ({culprit}: {step.verdict.reason}); "
        f"declare '{culprit}' with differentiable=True if you know that it is"
    )


def _flows(ir: IR, trace: Trace) -> set[str]:
    """Return the names of differentiable samples and of what lies deterministically below them."""
    flows: set[str] = set()
    for record in ir.records():
        if isinstance(record, Sample):
            if trace.densities[record.name].law.pathwise is not None:
                flows.add(record.name)
        elif not flows.isdisjoint(record.parents):
            flows.add(record.name)
    return flows


def edge(ir: IR, trace: Trace, parent: str, record: Record, known: dict[Any, Verdict]) -> Verdict:
    """Judge a node as a function of one parent, at the values of a trace."""
    if not any(leaf.is_floating_point() for leaf in pytree.tensors(trace.values[parent])):
        return Verdict(Smoothness.BROKEN, f"'{parent}' is not floating point")
    if isinstance(record, Det) and record.differentiable is not None:
        declared = Smoothness.SMOOTH if record.differentiable else Smoothness.BROKEN
        return Verdict(declared, f"declared differentiable={record.differentiable}")
    if isinstance(record, LogProb) and record.value == parent:
        verdict = _density_edge(ir, trace, record)
        if verdict is not None:
            return verdict
    if isinstance(record, (Sample, LogProb)) and user_function(record) is None:
        return _parameter_edge(trace, record)
    if parent not in record.arguments.names:
        return SMOOTH
    call = record.fn.call if isinstance(record, Det) else None
    if call in STRUCTURAL or listed(call, KNOWN_SMOOTH):
        return SMOOTH
    if listed(call, KNOWN_BROKEN):
        return Verdict(Smoothness.BROKEN, f"{record.name} has no useful derivative")
    if len(record.arguments.names) > MANY:
        whole = record.name, id(call)
        if whole not in known:
            known[whole] = _probed_together(ir, trace, record)
        if known[whole].smoothness is Smoothness.SMOOTH:
            return SMOOTH
    key = signature(ir, trace, record), record.arguments.names.index(parent)
    if key not in known:
        known[key] = _probed(ir, trace, record, parent)
    return known[key]


def _density_edge(ir: IR, trace: Trace, record: LogProb) -> Verdict | None:
    """Judge the density as a function of its value: smooth inside the support of the value's own law."""
    law, source = trace.densities[record.name].law, ir[record.value]
    if law.discrete:
        return Verdict(Smoothness.BROKEN, f"the log-probability of a {law.family} at a continuous value")
    own = isinstance(source, Sample) and trace.densities[source.name].law.family == law.family
    if (
        record.of is not None
        or law.unbounded
        or (own and not law.movers(trace.densities[record.name].parameters))
    ):
        return None if record.value in record.arguments.names else SMOOTH
    return Verdict(Smoothness.UNKNOWN, f"the density of a {law.family} ends where its support does")


def _parameter_edge(trace: Trace, record: Sample | LogProb) -> Verdict:
    density = trace.densities[record.name]
    if isinstance(record, LogProb) and record.of is None and density.law.movers(density.parameters):
        return Verdict(Smoothness.UNKNOWN, f"the support of a {density.law.family} moves with its parameters")
    return SMOOTH


def _probed(ir: IR, trace: Trace, record: Record, parent: str) -> Verdict:
    """Probe the function of a node in one parent, every tensor of which must pass."""
    leaves, fn = _leaves(trace, record), _of_leaves(ir, trace, record)
    point = {str(index): leaf for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    count = len(pytree.tree_leaves(trace.values[parent]))
    start = sum(
        len(pytree.tree_leaves(trace.values[name]))
        for name in record.arguments.names[: record.arguments.names.index(parent)]
    )

    def call(at: dict[str, Tensor]) -> Any:
        return fn([at.get(str(index), leaf) for index, leaf in enumerate(leaves)])

    verdict = SMOOTH
    for index in range(start, start + count):
        leaf = leaves[index]
        is_free = isinstance(leaf, Tensor) and leaf.is_floating_point()
        if is_free and verdict.smoothness is Smoothness.SMOOTH:
            with undisturbed(ir.store.modules), torch.enable_grad():
                verdict = probe(call, point, str(index), modules=_modules(ir, record))
    return verdict


def _probed_together(ir: IR, trace: Trace, record: Record) -> Verdict:
    """Probe the function of a node in all of its parents at once."""
    leaves, fn = _leaves(trace, record), _of_leaves(ir, trace, record)
    free = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    point = {str(i): leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and i not in set(free)}
    point["all"] = torch.cat([leaves[index].reshape(-1) for index in free])
    sizes = [leaves[index].numel() for index in free]

    def call(at: dict[str, Tensor]) -> Any:
        full = [at.get(str(index), leaf) for index, leaf in enumerate(leaves)]
        for index, part in zip(free, at["all"].split(sizes), strict=True):
            full[index] = part.view(leaves[index].shape)
        return fn(full)

    with undisturbed(ir.store.modules), torch.enable_grad():
        return probe(call, point, "all", modules=_modules(ir, record))


def _leaves(trace: Trace, record: Record) -> list[Any]:
    return pytree.tree_leaves({name: trace.values[name] for name in record.arguments.names})


def _of_leaves(ir: IR, trace: Trace, record: Record) -> Callable[[list[Any]], Any]:
    """Return the function of a node as one of the tensors, and whatever else, that its parents hold."""
    fn = runner(ir, record)
    spec = pytree.tree_structure({name: trace.values[name] for name in record.arguments.names})

    def call(leaves: list[Any]) -> Any:
        values = pytree.tree_unflatten(leaves, spec)
        args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, values[name]))
        given = pytree.tree_leaves(fn(*args, **kwargs))
        return [leaf for leaf in given if isinstance(leaf, (Tensor, float, int))]

    return call


def _modules(ir: IR, record: Record) -> tuple[nn.Module, ...]:
    function = user_function(record)
    return () if function is None or function.owner is None else (ir.store.modules[function.owner],)
