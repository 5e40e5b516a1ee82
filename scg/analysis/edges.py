"""Edges: whether a node is a smooth function of one parent, asked once for all nodes that call it alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scg.evaluation.calls import leaves_of, listed, of_leaves, signature, user_function
from scg.evaluation.moved import Around, kind
from scg.evaluation.probing import undisturbed
from scg.evaluation.trace import Trace
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


def edge(ir: IR, around: Around, parent: str, record: Record, known: dict[Any, Verdict]) -> Verdict:
    """Judge a node as a function of one parent, at the values of a trace and, where need be, around it."""
    trace = around.first
    if not any(leaf.is_floating_point() for leaf in pytree.tensors(trace.values[parent])):
        return Verdict(Smoothness.BROKEN, f"'{parent}' is not floating point", "structural")
    if isinstance(record, Sample) and parent in record.besides:
        return Verdict(Smoothness.BROKEN, "what was drawn elsewhere passes on detached", "structural")
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


def _once(ir: IR, around: Around, record: Record, parent: str, known: dict[Any, Any]) -> Verdict:
    """Probe a function once for all nodes that call it alike.

    Their arguments have equal shapes and, unless operations alone decide, the others have equal signs, for
    which the graph is evaluated at further values.
    """
    key: tuple[Any, ...] = signature(ir, around.first, record), record.arguments.names.index(parent)
    if key not in known:
        verdict = _probed(ir, around, record, parent)
        known[key] = verdict if verdict.standing == "structural" else None
        if known[key] is None:
            known[_signed(ir, around, record, parent, key)] = verdict
        return verdict
    if known[key] is not None:
        return known[key]  # type: ignore[no-any-return]
    signed = _signed(ir, around, record, parent, key)
    if signed not in known:
        known[signed] = _probed(ir, around, record, parent)
    return known[signed]  # type: ignore[no-any-return]


def _signed(ir: IR, around: Around, record: Record, parent: str, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what nodes share that call a function alike at arguments of equal signs and supports."""
    others = [name for name in record.arguments.names if name != parent]
    supports = [around.first.densities[name].law for name in _finite(ir, around, others)]
    return *key, *(_signs(around, name) for name in others), repr(supports)


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
    leaves, fn = leaves_of(trace.values, record), numbers_of(ir, trace, record)
    count = len(pytree.tree_leaves(trace.values[parent]))
    start = sum(
        len(pytree.tree_leaves(trace.values[name]))
        for name in record.arguments.names[: record.arguments.names.index(parent)]
    )

    def call(at: dict[str, Tensor]) -> Any:
        return fn([at.get(str(index), leaf) for index, leaf in enumerate(leaves)])

    def points() -> list[dict[str, Tensor]]:
        return [point_of(leaves_of(values, record)) for values in _elsewhere(ir, around, record)]

    point, verdict = point_of(leaves), SMOOTH
    for index in range(start, start + count):
        leaf = leaves[index]
        is_free = isinstance(leaf, Tensor) and leaf.is_floating_point()
        if is_free and verdict.smoothness is Smoothness.SMOOTH:
            with undisturbed(ir.store.modules), torch.enable_grad():
                verdict = _weaker(
                    verdict,
                    probe(call, point, str(index), modules=modules_of(ir, record), elsewhere=points),
                )
    return verdict


def _weaker(one: Verdict, other: Verdict) -> Verdict:
    """Return the verdict of two smooth functions together: what was probed rests on less."""
    return one if other.smoothness is Smoothness.SMOOTH and one.standing == "probed" else other


def point_of(leaves: Sequence[Any]) -> dict[str, Tensor]:
    """Return the tensors among leaves, each by its place."""
    return {str(index): leaf for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}


def _probed_together(ir: IR, around: Around, record: Record) -> Verdict:
    """Probe the function of a node in all of its parents at once."""
    leaves, fn = leaves_of(around.first.values, record), numbers_of(ir, around.first, record)
    free = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    sizes = [leaves[index].numel() for index in free]

    def joined(leaves: Sequence[Any]) -> dict[str, Tensor]:
        fixed = {name: leaf for name, leaf in point_of(leaves).items() if int(name) not in set(free)}
        return {**fixed, "all": torch.cat([leaves[index].reshape(-1) for index in free])}

    def call(at: dict[str, Tensor]) -> Any:
        full = [at.get(str(index), leaf) for index, leaf in enumerate(leaves)]
        for index, part in zip(free, at["all"].split(sizes), strict=True):
            full[index] = part.view(leaves[index].shape)
        return fn(full)

    def points() -> list[dict[str, Tensor]]:
        return [joined(leaves_of(values, record)) for values in _elsewhere(ir, around, record)]

    with undisturbed(ir.store.modules), torch.enable_grad():
        return probe(call, joined(leaves), "all", modules=modules_of(ir, record), elsewhere=points)


def numbers_of(ir: IR, trace: Trace, record: Record) -> Callable[[list[Any]], Any]:
    """Return the function of a node as one of what its parents hold, flat, that gives numbers alone."""
    fn = of_leaves(ir, trace, record)

    def call(leaves: list[Any]) -> Any:
        return [leaf for leaf in pytree.tree_leaves(fn(leaves)) if isinstance(leaf, (Tensor, float, int))]

    return call


def modules_of(ir: IR, record: Record) -> tuple[nn.Module, ...]:
    """Return the module that a node's function is, if it is one."""
    function = user_function(record)
    return () if function is None or function.owner is None else (ir.store.modules[function.owner],)
