"""The objective of a graph and its gradient, in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import sympy as sp
from torch import Tensor

from scg.algebra.arrays import Array, flat
from scg.algebra.graphs import model
from scg.algebra.measure import Case
from scg.algebra.model import Model
from scg.algebra.paths import in_cases
from scg.errors import GraphError
from scg.graph import Graph

Entries: TypeAlias = sp.Expr | sp.ImmutableDenseNDimArray


def objective(graph: Graph, /, **inputs: Tensor) -> sp.Expr:
    """Return the objective of a ``graph``, sum_c sum_e lambda_c[e] E c[e], in the symbols of its parameters.

    A parameter of one number is a symbol of its name, an entry of another is ``name_i_j``. ``inputs`` that
    are missing are taken from the examples. What is random has to be finite, or Normal, LogNormal, Uniform,
    Exponential or Poisson with a mean in closed form; what cannot be read is refused by name.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.0))
    >>> cost = g.cost("loss", (b - 0.5) ** 2 + b)
    >>> scg.symbolic.objective(g)
    1/(4*(exp(theta) + 1)) + 5/(4*(1 + exp(-theta)))
    """
    found = read(graph, inputs)
    return plain(in_pieces(list(in_cases(found.objective))))


def gradient(graph: Graph, /, **inputs: Tensor) -> dict[str, Entries]:
    """Return the gradient of the objective of a ``graph`` by the names of its parameters, in closed form.

    That of a parameter of one number is an expression, that of another an array of them. ``inputs`` are those
    of ``objective``.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.0))
    >>> cost = g.cost("loss", b)
    >>> scg.symbolic.gradient(g)["theta"]
    exp(-theta)/(1 + exp(-theta))**2
    """
    found = read(graph, inputs)
    cases = list(in_cases(found.objective))
    slopes = {
        symbol: in_pieces([(case, sp.diff(expr, symbol)) for case, expr in cases])
        for own in found.parameters.values()
        for symbol in flat(own)
    }
    return by_parameter(found.parameters, slopes)


def read(graph: Graph, inputs: Mapping[str, Any]) -> Model:
    """Return a graph as mathematics."""
    if not isinstance(graph, Graph):
        raise GraphError(f"scg.symbolic takes a scg.Graph here, not {type(graph).__name__}")
    return model(graph.freeze(), inputs)


def by_parameter(parameters: Mapping[str, Array], values: Mapping[sp.Symbol, sp.Expr]) -> dict[str, Entries]:
    """Return what every entry of the parameters has, in their shapes."""
    found: dict[str, Entries] = {}
    for name, own in parameters.items():
        entries = [plain(values[symbol]) for symbol in flat(own)]
        found[name] = sp.ImmutableDenseNDimArray(entries, own.shape) if own.shape else entries[0]
    return found


def plain(expr: sp.Expr) -> sp.Expr:
    """Return an expression in symbols of which nothing is said, so that ``subs`` finds them by name."""
    return expr.xreplace({symbol: sp.Symbol(symbol.name) for symbol in expr.free_symbols})


def in_pieces(cases: list[tuple[Case, sp.Expr]]) -> sp.Expr:
    """Return one expression for what differs between cases of the parameters."""
    if len(cases) == 1:
        return cases[0][1]
    return sp.Piecewise(*((expr, _holds(case)) for case, expr in cases))


def _holds(case: Case) -> Any:
    return sp.And(*(bound > 0 if truth else bound <= 0 for bound, truth in case.items()))
