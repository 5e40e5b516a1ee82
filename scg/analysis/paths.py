"""Differentiable paths: the first edge between a value and a cost through which no gradient flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scg.analysis.absorbed import absorbed
from scg.analysis.edges import SMOOTH, edge
from scg.analysis.influence import useful
from scg.evaluation.moved import Around
from scg.evaluation.trace import Trace
from scg.laws import Relaxable
from scg.nodes.ir import IR
from scg.nodes.records import LogProb, Record, Sample
from scg.probes.smoothness import Smoothness, Verdict


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


def paths(ir: IR, around: Around, discrete: str | None = None) -> Paths:
    """Return, for each node from which a value would flow into an edge that is not smooth, the next step.

    A path ends at the next stochastic node, whose law is smooth in its parameters; edges that lead to
    no cost do not matter. Values flow from every sample with a derivative, or from a ``discrete`` one alone.
    """
    flows = _flows(ir, around.first, discrete)
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
            verdict = blind.get((name, child))
            if verdict is None:
                linear = discrete is not None and _is_linear(around.first, name, ir[child])
                verdict = SMOOTH if linear else edge(ir, around, name, ir[child], known)
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


def _is_linear(trace: Trace, name: str, record: Record) -> bool:
    """Say whether a node is the log-probability of a discrete value, which is linear in that."""
    if not isinstance(record, LogProb) or record.value != name:
        return False
    law = trace.densities[record.name].law
    return isinstance(law, Relaxable) and law.soft.value_rank == law.value_rank


def _flows(ir: IR, trace: Trace, discrete: str | None) -> set[str]:
    """Return the names of differentiable samples and of what lies deterministically below them."""
    flows: set[str] = set()
    for record in ir.records():
        if isinstance(record, Sample):
            has_path = record.value is None and trace.densities[record.name].law.pathwise is not None
            if has_path if discrete is None else record.name == discrete:
                flows.add(record.name)
        elif not flows.isdisjoint(record.parents):
            flows.add(record.name)
    return flows
