"""Exact: the objective of a graph and its gradient, without sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scg.analysis.check import accept, check
from scg.errors import GraphError
from scg.graph import Graph
from scg.nodes.ir import IR, hold
from scg.oracle.cases import TOGETHER, cases_of, check_count, terms
from scg.oracle.eliminated import Elimination


def exact_objective(graph: Graph, /, *, points: int = 32, limit: int = 2**20, **inputs: Tensor) -> Tensor:
    """Return ``J = sum_c sum_e lambda_c[e] E c[e]`` of a ``graph``, a scalar with exact derivatives.

    Every stochastic ancestor of a cost takes every value of its finite support, jointly, but together
    along plates that keep their elements apart. Where there are many, nodes are summed out in turn from
    tables of those that meet; more than ``limit`` assignments at once are refused.
    A Normal takes ``points`` Gauss-Hermite nodes for each element, exact for polynomials of degree below
    2 ``points`` and as good as exact for smooth costs, but only approximate where what is downstream
    has a kink or a step. ``inputs`` that are missing are taken from the examples. A function that is declared
    differentiable=False counts as constant in the parameters that enter it.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.0))
    >>> cost = g.cost("loss", (b - 0.45) ** 2)
    >>> round(exact_objective(g).item(), 4)
    0.2525
    """
    ir = graph.freeze()
    with _restored(ir):
        return torch.stack(list(_terms(ir, inputs, points, limit))).sum()


def exact_gradient(
    graph: Graph, /, *, points: int = 32, limit: int = 2**20, **inputs: Tensor
) -> dict[str, Tensor]:
    """Return ``dJ/dtheta`` for every parameter of a ``graph`` by its name, and leave ``.grad`` as it is.

    The objective, ``points``, ``limit`` and ``inputs`` are those of ``exact_objective``; parameters without
    influence have zeros.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.0))
    >>> cost = g.cost("loss", (b - 0.45) ** 2)
    >>> round(exact_gradient(g)["theta"].item(), 4)
    0.025
    """
    return gradient_of(graph.freeze(), inputs, points=points, limit=limit)


def gradient_of(ir: IR, inputs: Mapping[str, Tensor], *, points: int, limit: int) -> dict[str, Tensor]:
    """Return the gradient of a frozen graph."""
    holder = nn.Module()
    hold(holder, ir.store)
    parameters = dict(holder.named_parameters())
    gradient = {name: torch.zeros_like(parameter).detach() for name, parameter in parameters.items()}
    live = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    with torch.enable_grad(), _restored(ir):
        for term in _terms(ir, inputs, points, limit):
            if live and term.requires_grad:
                parts = torch.autograd.grad(term, list(live.values()), retain_graph=True, allow_unused=True)
                for name, part in zip(live, parts, strict=True):
                    gradient[name] += 0 if part is None else part
    return gradient


def _terms(ir: IR, inputs: Mapping[str, Tensor], points: int, limit: int) -> Iterator[Tensor]:
    """Yield the objective in parts, each attached to the parameters."""
    if not ir.costs:
        raise GraphError('the graph has no costs, hence no objective: declare one with g.cost("name", node)')
    ir.drawn_here("an exact objective")
    given = accept(ir, {**ir.store.examples, **inputs})
    check(ir, given)
    every = [cases_of(ir, cost, given, points=points) for cost in ir.costs]
    held = dict[Any, Tensor]()
    several = [Elimination(cases, held) if cases.count > TOGETHER else None for cases in every]
    for cases, sums in zip(every, several, strict=True):
        check_count(cases, limit, None if sums is None else min(sums.largest, cases.count))
    for cases, sums in zip(every, several, strict=True):
        if sums is not None and sums.largest < cases.count:
            yield sums.total()
        else:
            yield from terms(cases)


@contextmanager
def _restored(ir: IR) -> Iterator[None]:
    """Leave the buffers of modules, such as running statistics, as they were."""
    modules: Mapping[str, nn.Module] = ir.store.modules
    saved = [(buffer, buffer.detach().clone()) for m in modules.values() for buffer in m.buffers()]
    try:
        yield
    finally:
        for buffer, old in saved:
            if not torch.equal(buffer, old):
                buffer.data.copy_(old)  # unlike buffer.copy_, leaves a backward pass that saved it valid
