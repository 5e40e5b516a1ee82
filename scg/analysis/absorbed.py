"""Absorbed: NaN or infinity that a function turns into numbers, while autograd's derivative stays NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from scg.evaluation.calls import held_by, leaves_of, of_leaves, signature, user_function
from scg.evaluation.moved import Around
from scg.evaluation.probing import spread, undisturbed
from scg.evaluation.trace import Trace, valued
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Det, LogProb, Record, Sample, identity
from scg.probes.bounded import MANY, Bounded
from scg.probes.held import SCALES, holding, moved, moved_parameters
from scg.probes.smoothness import Smoothness, Verdict
from scg.probes.twice import attached, is_attached

EXTREMES, FLAT = (*SCALES, 1e4, -1e4), (0.0, 1.0)
"""Scales of arguments, and numbers in all places, at which functions that leave the finite numbers do:
exponentials, logarithms, quotients."""


def absorbed(ir: IR, around: Around, flows: Set[str]) -> Mapping[tuple[str, str], Verdict]:
    """Return a verdict for each edge, of those along which values flow, over which NaN does not travel.

    Each of two functions may be smooth wherever it is defined, and their composition have a value, but no
    derivative, where the inner one is not: ``nan_to_num(sqrt(z))`` for z < 0. Where no function of the graph
    leaves the finite numbers, there is nothing to be looked for in further evaluations.
    """
    inner = [r for r in ir.records() if r.name in flows and isinstance(r, (Det, LogProb)) and _may_absorb(r)]
    pairs = [(p, r) for r in inner for p in r.parents if p in flows and not isinstance(ir[p], Sample)]
    found: dict[tuple[str, str], Verdict] = {}
    for trace in around.every if pairs and not _stay_finite(ir, around.first) else ():
        finite = {name: _is_finite(trace.values[name]) for name in flows}
        for parent, record in pairs:
            if finite[parent] or not finite[record.name] or (parent, record.name) in found:
                continue
            if not _has_gradient(ir, trace, record, flows):
                found[parent, record.name] = Verdict(
                    Smoothness.BROKEN,
                    f"it turns NaN or infinity of '{parent}' into numbers, of which autograd's derivative is "
                    f"NaN; keep the argument of '{parent}' where that is finite",
                )
    return found


def _may_absorb(record: Record) -> bool:
    """Say whether a node may give numbers where a parent is not, other than as it is declared to."""
    return not isinstance(record, Det) or (record.differentiable is None and record.fn.call is not identity)


def _stay_finite(ir: IR, trace: Trace) -> bool:
    """Say whether the functions of a graph give finite numbers at all finite ones, each asked once."""
    records = [record for record in ir.records() if isinstance(record, (Det, LogProb))]
    if any(user_function(record) is None for record in records):
        return False  # a log-probability, infinite where its law ends
    alike = {signature(ir, trace, record): record for record in reversed(records)}
    with undisturbed(ir.store.modules):
        return all(_stays_finite(ir, trace, record) for record in alike.values())


def _stays_finite(ir: IR, trace: Trace, record: Record) -> bool:
    """Say whether the function of a node gives finite numbers at extreme arguments, where it runs there."""
    fn, held = of_leaves(ir, trace, record), held_by(ir, record)
    for scale, given in _extremes(leaves_of(trace.values, record)):
        try:
            with holding(moved_parameters(held, 0, scale)), Bounded(MANY):
                value = fn(given)
        except Exception:  # noqa: BLE001 - of an arbitrary function
            return False
        if not _is_finite(value):
            return False
    return True


def _extremes(leaves: Sequence[Any]) -> Iterator[tuple[float, list[Any]]]:
    """Yield extreme arguments, and the scale by which parameters are moved there."""
    for number in FLAT:
        yield number, [torch.full_like(x, number) if _is_real(x) else x for x in leaves]
    for scale in EXTREMES:
        generator = torch.Generator().manual_seed(0)
        yield scale, [moved(x.detach(), generator, scale) if isinstance(x, Tensor) else x for x in leaves]


def _is_real(leaf: Any) -> bool:
    """Say whether a leaf holds real numbers."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _is_finite(value: Any) -> bool:
    return all(bool(leaf.isfinite().all()) for leaf in pytree.tree_leaves(value) if _is_real(leaf))


def _has_gradient(ir: IR, trace: Trace, record: Record, flows: Set[str]) -> bool:
    """Say whether the derivative of a node in the samples above it is finite at the values of a trace."""
    above = (nx.ancestors(ir.dag, record.name) & flows) | {record.name}
    live = Trace(dict(trace.values), dict(trace.densities), trace.sizes)
    leaves = []
    with undisturbed(ir.store.modules), torch.enable_grad():
        for other in ir.records():
            if other.name in above and isinstance(other, Sample):
                live.values[other.name] = attached(trace.values[other.name])
                leaves.append(live.values[other.name])
            elif other.name in above:
                live.values[other.name] = valued(ir, live, other, {}, spread)
        outputs = [leaf for leaf in pytree.tree_leaves(live.values[record.name]) if is_attached(leaf)]
        leaves = [leaf for leaf in leaves if leaf.requires_grad]
        if not outputs or not leaves or not all(map(_is_finite, outputs)):
            return True
        total = torch.stack([output.sum() for output in outputs]).sum()
        return all(map(_is_finite, torch.autograd.grad(total, leaves, allow_unused=True)))
