"""Unmoved: costs that read a stochastic node and do not change with it, as those of recorded numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from scg.analysis.crossing import outputs
from scg.evaluation.calls import is_elementwise, signature, user_function
from scg.evaluation.probing import sampled
from scg.evaluation.trace import Trace
from scg.nodes.ir import IR
from scg.nodes.records import Det

OUTCOMES = 4
"""How many outcomes of a finite law are tried at most."""


def unmoved(ir: IR, worlds: Sequence[Trace], moved: Callable[[], Sequence[Trace]]) -> list[str]:
    """Return a warning for every node drawn here that some cost reads, on every way, without changing.

    Values of it are exchanged in several evaluations, of which ``moved`` gives those with other inputs.
    """
    known: dict[Any, bool] = {}
    found = []
    for name in ir.samples:
        if name in ir.given:
            continue
        blind = [child for child in ir.children(name) if _is_blind(ir, worlds, moved, name, child, known)]
        if not blind:
            continue
        seeing = set(ir.children(name)) - set(blind)
        reached = seeing.union(*(nx.descendants(ir.dag, child) for child in seeing))
        costs = [cost for cost in ir.costs if nx.has_path(ir.dag, name, cost) and cost not in reached]
        found += [_warning(ir, name, cost, blind) for cost in costs]
    return found


def _is_blind(
    ir: IR,
    worlds: Sequence[Trace],
    moved: Callable[[], Sequence[Trace]],
    name: str,
    child: str,
    known: dict[Any, bool],
) -> bool:
    """Say whether a function reads a node, and gives the same bits whatever that is."""
    record = ir[child]
    if not isinstance(record, Det) or user_function(record) is None or is_elementwise(record):
        return False
    key = signature(ir, worlds[0], record), record.arguments.names.index(name)
    if key not in known:
        known[key] = not any(_moves(ir, trace, name, child) for trace in worlds[:2])
        known[key] = known[key] and not any(_moves(ir, trace, name, child) for trace in moved())
    return known[key]


def _moves(ir: IR, trace: Trace, name: str, child: str) -> bool:
    """Say whether a function gives other bits for other values of a node, or nothing but zeros."""
    try:
        before = outputs(ir, trace, ir[child], {})
        several = [outputs(ir, trace, ir[child], {name: value}) for value in _others(ir, trace, name)]
    except Exception:  # noqa: BLE001 - of an arbitrary function, at values that it may not be made for
        return True
    is_off = not any(bool(tensor.any()) for tensor in before)  # as with a weight of 0, which is meant
    return is_off or any(
        not torch.equal(a, b) for after in several for a, b in zip(before, after, strict=True)
    )


def _others(ir: IR, trace: Trace, name: str) -> Iterator[Tensor]:
    """Yield other values of a sample: of a finite law outcomes, as many as are tried."""
    density, value = trace.densities[name], trace.values[name]
    parameters = dict(density.parameters)
    if density.law.finite:
        for outcome in density.law.support(parameters)[:OUTCOMES]:
            yield outcome.to(value.dtype).expand(value.shape)
        return
    for _ in range(3):
        yield sampled(density.law, parameters, trace.event_batch(name))


def _warning(ir: IR, name: str, cost: str, blind: Sequence[str]) -> str:
    by = "" if cost in blind else f", by way of '{blind[0]}'"
    return (
        f"cost '{cost}' ({ir[cost].where}) reads '{name}'{by}, and does not change with it, bit for bit: its "
        f"gradient by '{name}' is 0. What was recorded elsewhere goes to g.rollout, or to "
        f'g.sample("{name}", ..., value=) and what follows it'
    )
