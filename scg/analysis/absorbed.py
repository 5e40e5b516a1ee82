"""Absorbed: NaN or infinity that a function turns into numbers, while autograd's derivative stays NaN."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from scg.analysis.moved import Around
from scg.analysis.probing import spread, undisturbed
from scg.analysis.trace import Trace, valued
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Det, Record, Sample
from scg.probes.smoothness import Smoothness, Verdict
from scg.probes.twice import attached, is_attached


def absorbed(ir: IR, around: Around, flows: Set[str]) -> Mapping[tuple[str, str], Verdict]:
    """Return a verdict for each edge, of those along which values flow, over which NaN does not travel.

    Each of two functions may be smooth wherever it is defined, and their composition have a value, but no
    derivative, where the inner one is not: ``nan_to_num(sqrt(z))`` for z < 0.
    """
    inner = [r for r in ir.records() if r.name in flows and not isinstance(r, Sample)]
    pairs = [(p, r) for r in inner for p in r.parents if p in flows and not isinstance(ir[p], Sample)]
    found: dict[tuple[str, str], Verdict] = {}
    for trace in around.every if pairs else ():
        finite = {name: _is_finite(trace.values[name]) for name in flows}
        for parent, record in pairs:
            if finite[parent] or not finite[record.name] or (parent, record.name) in found:
                continue
            if not _is_declared(record) and not _has_gradient(ir, trace, record, flows):
                found[parent, record.name] = Verdict(
                    Smoothness.BROKEN,
                    f"it turns NaN or infinity of '{parent}' into numbers, of which autograd's derivative is "
                    f"NaN; keep the argument of '{parent}' where that is finite",
                )
    return found


def _is_declared(record: Record) -> bool:
    return isinstance(record, Det) and record.differentiable is not None


def _is_finite(value: Any) -> bool:
    leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return all(bool(leaf.isfinite().all()) for leaf in leaves if leaf.is_floating_point())


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
