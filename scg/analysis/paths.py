"""Differentiable paths: the first edge between a value and a cost through which no gradient flows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scg.analysis.absorbed import absorbed
from scg.analysis.calls import listed, runner, signature, user_function
from scg.analysis.influence import useful
from scg.analysis.invoke import seen
from scg.analysis.moved import Around, kind
from scg.analysis.probing import undisturbed
from scg.analysis.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import STRUCTURAL, Det, LogProb, Record, Sample
from scg.probes.known import KNOWN_BROKEN, KNOWN_SMOOTH
from scg.probes.smoothness import Smoothness, Verdict, probe

SMOOTH = Verdict(Smoothness.SMOOTH, "known to be smooth", "structural")
MANY = 16
"""From more parents on, a function is probed in all of them at once, and in each only if that fails."""
JOINTLY, OUTCOMES = 8, 12
"""So many joint outcomes of finite parents are all tried; of more, so many at least."""


@dataclass(frozen=True)
class Break:
    """The next step of a path that ends in an edge without a gradient; ``verdict`` is of that edge."""

    child: str
    verdict: Verdict
    last: bool


@dataclass(frozen=True)
class Paths:
    """Where values would flow into edges that are not smooth, and the verdicts of the edges looked at."""

    breaks: Mapping[str, Break]
    edges: Mapping[tuple[str, str], Verdict]


def paths(ir: IR, around: Around) -> Paths:
    """Return, for each node from which a value would flow into an edge that is not smooth, the next step.

    A path ends at the next stochastic node, whose law is smooth in its parameters; edges that lead to
    no cost do not matter.
    """
    flows = _flows(ir, around.first)
    reaching = useful(ir)
    found: dict[str, Break] = {}
    edges: dict[tuple[str, str], Verdict] = {}
    blind = absorbed(ir, around, flows)
    known: dict[Any, Verdict] = {}
    for name in reversed(list(ir)):
        if name not in flows:
            continue
        for child in ir.children(name):
            if child not in reaching:
                continue
            verdict = blind.get((name, child)) or edge(ir, around, name, ir[child], known)
            edges[name, child] = verdict
            if verdict.smoothness is not Smoothness.SMOOTH:
                found[name] = Break(child, verdict, last=True)
            elif child in found and not isinstance(ir[child], Sample):
                found[name] = Break(child, found[child].verdict, last=False)
            if name in found:
                break
    return Paths(found, edges)


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


def edge(ir: IR, around: Around, parent: str, record: Record, known: dict[Any, Verdict]) -> Verdict:
    """Judge a node as a function of one parent, at the values of a trace and, where need be, around it."""
    trace = around.first
    if not any(leaf.is_floating_point() for leaf in pytree.tensors(trace.values[parent])):
        return Verdict(Smoothness.BROKEN, f"'{parent}' is not floating point", "structural")
    if isinstance(record, Det) and record.differentiable is not None:
        declared = Smoothness.SMOOTH if record.differentiable else Smoothness.BROKEN
        return Verdict(declared, f"declared differentiable={record.differentiable}", "declared")
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
        return Verdict(Smoothness.BROKEN, f"{record.name} has no useful derivative", "structural")
    if len(record.arguments.names) > MANY:
        whole = record.name, id(call)
        if whole not in known:
            known[whole] = _probed_together(ir, around, record)
        if known[whole].smoothness is Smoothness.SMOOTH:
            return SMOOTH
    return _once(ir, around, record, parent, known)


def _once(ir: IR, around: Around, record: Record, parent: str, known: dict[Any, Verdict]) -> Verdict:
    """Probe a function once for all nodes that call it alike.

    Their arguments have equal shapes and, unless operations alone decide, the others have equal signs.
    """
    key: tuple[Any, ...] = signature(ir, around.first, record), record.arguments.names.index(parent)
    if key in known:
        return known[key]
    others = [name for name in record.arguments.names if name != parent]
    supports = [around.first.densities[name].law for name in others if name in _finite(ir, around, others)]
    signed = *key, *(_signs(around, name) for name in others), repr(supports)
    if signed not in known:
        verdict = _probed(ir, around, record, parent)
        if verdict.standing == "structural":
            known[key] = verdict
        known[signed] = verdict
    return known[signed]


def _signs(around: Around, name: str) -> tuple[bool, bool]:
    """Say whether a node is nowhere negative, and whether it is nowhere positive."""
    leaves = [leaf for trace in around.every for leaf in pytree.tensors(trace.values[name]) if leaf.numel()]
    numbers = [leaf for leaf in leaves if not leaf.is_complex()]
    return not any(bool((x < 0).any()) for x in numbers), not any(bool((x > 0).any()) for x in numbers)


def _finite(ir: IR, around: Around, names: Sequence[str]) -> list[str]:
    """Return which nodes are samples of finitely many values."""
    laws = around.first.densities
    return [name for name in names if isinstance(ir[name], Sample) and laws[name].law.finite]


def _elsewhere(ir: IR, around: Around, record: Record) -> Iterator[Mapping[str, Any]]:
    """Yield values of a node's parents around an evaluation, with all outcomes of those that are finite."""
    names = record.arguments.names
    here = [kind(around.first.values[name]) for name in names]
    traces = [t.values for t in around.rest if [kind(t.values[name]) for name in names] == here]
    yield from ({name: values[name] for name in names} for values in traces)
    base = traces[0] if traces else around.first.values
    finite = _finite(ir, around, names)
    laws = [around.first.densities[name] for name in finite]
    supports = [density.law.support(dict(density.parameters)) for density in laws]
    for atoms in _outcomes([len(support) for support in supports]):
        chosen = {
            name: support[atom].expand_as(base[name]).contiguous()
            for name, support, atom in zip(finite, supports, atoms, strict=True)
        }
        yield {name: chosen.get(name, base[name]) for name in names}


def _outcomes(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return places in several supports: every joint one if they are few, else each place at least once."""
    if not sizes:
        return []
    if math.prod(sizes) <= JOINTLY:
        return list(itertools.product(*map(range, sizes)))
    count = min(max(sizes), OUTCOMES)
    return [tuple(step * max(size // count, 1) % size for size in sizes) for step in range(count)]


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


def _probed(ir: IR, around: Around, record: Record, parent: str) -> Verdict:
    """Probe the function of a node in one parent, every tensor of which must pass."""
    trace = around.first
    leaves, fn = _leaves(trace.values, record), _of_leaves(ir, trace, record)
    count = len(pytree.tree_leaves(trace.values[parent]))
    start = sum(
        len(pytree.tree_leaves(trace.values[name]))
        for name in record.arguments.names[: record.arguments.names.index(parent)]
    )

    def call(at: dict[str, Tensor]) -> Any:
        return fn([at.get(str(index), leaf) for index, leaf in enumerate(leaves)])

    def points() -> list[dict[str, Tensor]]:
        return [_point(_leaves(values, record)) for values in _elsewhere(ir, around, record)]

    point, verdict = _point(leaves), SMOOTH
    for index in range(start, start + count):
        leaf = leaves[index]
        is_free = isinstance(leaf, Tensor) and leaf.is_floating_point()
        if is_free and verdict.smoothness is Smoothness.SMOOTH:
            with undisturbed(ir.store.modules), torch.enable_grad():
                verdict = _weaker(
                    verdict,
                    probe(call, point, str(index), modules=_modules(ir, record), elsewhere=points),
                )
    return verdict


def _weaker(one: Verdict, other: Verdict) -> Verdict:
    """Return the verdict of two smooth functions together: what was probed rests on less."""
    return one if other.smoothness is Smoothness.SMOOTH and one.standing == "probed" else other


def _point(leaves: Sequence[Any]) -> dict[str, Tensor]:
    return {str(index): leaf for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}


def _probed_together(ir: IR, around: Around, record: Record) -> Verdict:
    """Probe the function of a node in all of its parents at once."""
    leaves, fn = _leaves(around.first.values, record), _of_leaves(ir, around.first, record)
    free = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    sizes = [leaves[index].numel() for index in free]

    def joined(leaves: Sequence[Any]) -> dict[str, Tensor]:
        fixed = {name: leaf for name, leaf in _point(leaves).items() if int(name) not in set(free)}
        return {**fixed, "all": torch.cat([leaves[index].reshape(-1) for index in free])}

    def call(at: dict[str, Tensor]) -> Any:
        full = [at.get(str(index), leaf) for index, leaf in enumerate(leaves)]
        for index, part in zip(free, at["all"].split(sizes), strict=True):
            full[index] = part.view(leaves[index].shape)
        return fn(full)

    def points() -> list[dict[str, Tensor]]:
        return [joined(_leaves(values, record)) for values in _elsewhere(ir, around, record)]

    with undisturbed(ir.store.modules), torch.enable_grad():
        return probe(call, joined(leaves), "all", modules=_modules(ir, record), elsewhere=points)


def _leaves(values: Mapping[str, Any], record: Record) -> list[Any]:
    return pytree.tree_leaves({name: values[name] for name in record.arguments.names})


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
