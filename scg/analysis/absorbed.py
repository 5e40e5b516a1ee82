"""Absorbed: NaN or infinity that a function turns into numbers, while autograd's derivative stays NaN."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from scg.analysis.calls import held_by, leaves_of, of_leaves, signature, user_function
from scg.analysis.moved import Around
from scg.analysis.probing import spread, undisturbed
from scg.analysis.trace import Trace, valued
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Det, LogProb, Record, Sample, identity
from scg.probes.held import SCALES, holding, moved, moved_parameters
from scg.probes.smoothness import Smoothness, Verdict
from scg.probes.twice import attached, is_attached

EXTREMES = (0.0, *SCALES, 1e4, -1e4)
"""Of arguments, at which functions that leave the finite numbers do: logarithms, quotients, exponentials."""


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
    known: dict[Any, bool] = {}
    with undisturbed(ir.store.modules):
        for record in ir.records():
            if isinstance(record, (Det, LogProb)):
                key = None if user_function(record) is None else signature(ir, trace, record)
                if key not in known:
                    known[key] = key is not None and _stays_finite(ir, trace, record)
                if not known[key]:
                    return False
    return True


def _stays_finite(ir: IR, trace: Trace, record: Record) -> bool:
    """Say whether the function of a node gives finite numbers at extreme arguments, where it runs there."""
    leaves, fn, held = leaves_of(trace.values, record), of_leaves(ir, trace, record), held_by(ir, record)
    for scale in EXTREMES:
        generator = torch.Generator().manual_seed(0)
        given = [moved(x.detach(), generator, scale) if isinstance(x, Tensor) else x for x in leaves]
        try:
            with holding(moved_parameters(held, 0, scale)):
                value = fn(given)
        except Exception:  # noqa: BLE001 - of an arbitrary function
            return False
        if not _is_finite(value):
            return False
    return True


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
