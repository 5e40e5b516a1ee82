"""Bends: where derivatives of functions and densities jump, which expectations of higher derivatives miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scg.analysis.edges import modules_of, numbers_of, point_of
from scg.evaluation.calls import leaves_of, listed, user_function
from scg.evaluation.moved import Around
from scg.evaluation.probing import undisturbed
from scg.evaluation.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import STRUCTURAL, Det, LogProb, Record, Sample
from scg.probes.known import KNOWN_ANALYTIC
from scg.probes.smoothness import Smoothness, Verdict, probe

ANALYTIC = frozenset(
    """Bernoulli Beta Binomial Categorical Cauchy Dirichlet Exponential Gamma Geometric Gumbel LogNormal
    MultivariateNormal NegativeBinomial Normal OneHotCategorical Poisson StudentT Weibull""".split()
)
"""Families whose log-probability has every derivative in its parameters, and in values inside the support."""

Fn = Callable[[Tensor], Any]


def bend(ir: IR, around: Around, useful: frozenset[str], name: str, order: int) -> str | None:
    """Return where a derivative below the order jumps on the way from a value that passes on attached."""
    flows = {name}
    for record in ir.records():
        if record.name not in useful or flows.isdisjoint(record.parents):
            continue
        for parent in (parent for parent in record.parents if parent in flows):
            fault = _edge(ir, around, parent, record, order)
            if fault is not None:
                return f"the path {name} -> ... -> {record.name} bends ({record.name}: {fault})"
        if not isinstance(record, Sample):
            flows.add(record.name)
    return None


def law_bends(trace: Trace, name: str, order: int) -> str | None:
    """Return a parameter in which a derivative of the density of a sample, below the order, jumps."""
    density = trace.densities[name]
    law, value = density.law, trace.values[name].detach()
    if law.family in ANALYTIC:
        return None
    for key, parameter in density.parameters.items():
        if not parameter.is_floating_point():
            continue

        def log_prob(at: dict[str, Tensor], key: str = key) -> Any:
            return law.log_prob({**density.parameters, key: at[key]}, value)

        fault = _jumps(log_prob, {key: parameter.detach()}, key, order)
        if fault is not None:
            return f"the density of a {law.family} bends in '{key}' ({fault})"
    return None


def _edge(ir: IR, around: Around, parent: str, record: Record, order: int) -> str | None:
    """Judge a node as a function of one parent."""
    trace = around.first
    if isinstance(record, Det) and record.differentiable is not None:
        return None
    if isinstance(record, LogProb) and record.value == parent:
        law = trace.densities[record.name].law
        if law.family in ANALYTIC:
            return None
        parameters = dict(trace.densities[record.name].parameters)
        value = {"value": trace.values[parent].detach()}
        return _jumps(lambda at: law.log_prob(parameters, at["value"]), value, "value", order)
    if isinstance(record, (Sample, LogProb)):
        fault = law_bends(trace, record.name, order) if isinstance(record, LogProb) else None
        if fault is not None or user_function(record) is None or parent not in record.arguments.names:
            return fault
    call = record.fn.call if isinstance(record, Det) else None
    if call in STRUCTURAL or listed(call, KNOWN_ANALYTIC):
        return None
    return _function(ir, around, parent, record, order)


def _function(ir: IR, around: Around, parent: str, record: Record, order: int) -> str | None:
    """Probe derivatives of a node's function in each tensor of a parent."""
    trace = around.first
    leaves, fn = leaves_of(trace.values, record), numbers_of(ir, trace, record)
    names = record.arguments.names
    before = names[: names.index(parent)]
    start = sum(len(pytree.tree_leaves(trace.values[other])) for other in before)

    def call(at: dict[str, Tensor]) -> Any:
        return fn([at.get(str(index), leaf) for index, leaf in enumerate(leaves)])

    point = point_of(leaves)
    with undisturbed(ir.store.modules), torch.enable_grad():
        for index in range(start, start + len(pytree.tree_leaves(trace.values[parent]))):
            leaf = leaves[index]
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                fault = _jumps(call, point, str(index), order, modules_of(ir, record))
                if fault is not None:
                    return fault
    return None


def _jumps(
    call: Callable[[dict[str, Tensor]], Any],
    point: dict[str, Tensor],
    wrt: str,
    order: int,
    modules: tuple[Any, ...] = (),
) -> str | None:
    """Return which derivative of a function jumps, or is not known not to."""
    for count in range(1, order):
        call = _slope(call, wrt)
        with torch.enable_grad():
            verdict: Verdict = probe(call, point, wrt, modules=modules)
        if verdict.smoothness is Smoothness.BROKEN:
            return f"derivative {count} {verdict.reason}"
        if verdict.smoothness is Smoothness.UNKNOWN:
            told = "declare it with differentiable=True if you know that it does not"
            return f"it is not known whether derivative {count} jumps: {verdict.reason}; {told}"
    return None


def _slope(call: Callable[[dict[str, Tensor]], Any], wrt: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return the derivative of what a function gives, added up with weights that no symmetry cancels."""

    def slope(at: dict[str, Tensor]) -> Tensor:
        with torch.enable_grad():
            leaf = at[wrt] if at[wrt].requires_grad else at[wrt].detach().requires_grad_()
            found = [x for x in pytree.tree_leaves(call({**at, wrt: leaf})) if isinstance(x, Tensor)]
            total = leaf.sum() * 0
            for item in (x for x in found if x.is_floating_point() and x.requires_grad):
                weights = torch.cos(torch.arange(item.numel(), dtype=item.dtype) + 1.0)
                total = total + (item.reshape(-1) * weights.to(item.device)).sum()
            (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
            return gradient + 0 * leaf

    return slope
