"""LaTeX: a graph or a program in the notation of the papers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from scg.algebra.arrays import Array, flat, symbols
from scg.algebra.graphs import model
from scg.algebra.model import Model, Variable, weighted
from scg.algebra.paths import Path, UndecidedError, in_cases
from scg.errors import GraphError, UnreadableError
from scg.estimators.parts.baselines import Zero
from scg.graph import Graph
from scg.program.program import Program
from scg.symbolic.closed import in_pieces

SHORT = 100
"""Operations up to which a formula is simplified."""
ESTIMATES = {
    "score": r"\bigl({cost} - \beta\bigr)\, \nabla \log p({value})",
    "enumerate": r"\sum_{{{value}}} {cost}\, \nabla p({value})",
    "local": r"\sum_i \sum_{{{value}_i}} {cost}\, \nabla p({value}_i)",
    "reparam": r"\nabla {cost}\big|_{{{value} = {value}(\epsilon)}}",
    "rebar": r"\bigl({cost} - \eta\, {soft}(\tilde z)\bigr) \nabla \log p({value})"
    r" + \eta \nabla {soft}(z) - \eta \nabla {soft}(\tilde z)",
    "relax": r"\bigl({cost} - c_\phi(\tilde z)\bigr) \nabla \log p({value})"
    r" + \nabla c_\phi(z) - \nabla c_\phi(\tilde z)",
    "lax": r"\bigl({cost} - c_\phi({value})\bigr) \nabla \log p({value}) + \nabla c_\phi({value})",
    "coupled": r"\tfrac12 \bigl({cost}({value}) - {cost}(\tilde {value})\bigr)"
    r" \nabla \log \tfrac{{p({value})}}{{p(\tilde {value})}}"
    r"\, \tfrac{{p({value})\, p(\tilde {value})}}{{P({value}, \tilde {value})}}",
}
"""What an estimator adds to the gradient, by its name; ``f`` is what its node is charged with."""


def latex(what: Graph | Program, /, **inputs: Any) -> str:
    r"""Return a graph, or a program with what its estimators add, as LaTeX in an ``align*`` environment.

    It has the distributions, the objective, its gradient where that has a closed form, and for a program the
    estimate that each random variable adds, ``f`` being the costs that it is charged with. ``what`` is one
    of both, and ``inputs`` are taken from the examples where they are left out.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.0))
    >>> cost = g.cost("loss", b)
    >>> print(scg.symbolic.latex(g))
    \begin{align*}
    b &\sim \mathrm{Bernoulli}\left(\sigma(\theta)\right) \\
    J &= \mathbb{E}\left[ b \right] \\
    \frac{\partial J}{\partial \theta} &= \frac{1}{4 \cosh^{2}{\left(\frac{\theta}{2} \right)}}
    \end{align*}
    """
    if not isinstance(what, (Graph, Program)):
        raise GraphError(f"scg.symbolic.latex takes a scg.Graph or a program, not {type(what).__name__}")
    ir = what._ir if isinstance(what, Program) else what.freeze()
    found = model(ir, inputs)
    lines = [
        *_declared(found),
        *(_estimates(what, inputs) if isinstance(what, Program) else []),
        *_gradient(found),
    ]
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"


def _declared(found: Model) -> list[str]:
    """Return the distributions and the objective, with a symbol for all that is random."""
    values = {v.name: symbols(_symbol(v), (*v.shape, *v.event), real=True) for v in found.variables}
    try:
        costs_, parameters = found.at(values, Path())
    except (UnreadableError, UndecidedError):  # as where an outcome is an index
        names = ", ".join(_name(v.name) for v in found.variables)
        lines = [rf"{_name(v.name)} &\sim \mathrm{{{v.family}}}" for v in found.variables]
        costs = " + ".join(rf"{_name(cost)}({names})" for cost in found.weights)
        return [*lines, rf"J &= \mathbb{{E}}\left[ {costs} \right]"]
    lines = []
    for variable in found.variables:
        law = _law(variable.family, parameters[variable.name])
        lines.append(rf"{_name(variable.name)} &\sim {law}")
    total = sp.Add(*(e for cost, own in costs_.items() for e in flat(weighted(own, found.weights[cost]))))
    return [*lines, rf"J &= \mathbb{{E}}\left[ {sp.latex(total)} \right]"]


def _symbol(variable: Variable) -> str:
    """Return what a value is written as: itself, or the noise of which it is made."""
    return variable.name if variable.outcomes else f"epsilon_{variable.name}"


def _law(family: str, parameters: Mapping[str, Array]) -> str:
    shown = []
    for name, own in parameters.items():
        text = ", ".join(sp.latex(e) for e in flat(own))
        if name == "logits":
            text = rf"\sigma({text})" if family == "Bernoulli" else rf"\mathrm{{softmax}}({text})"
        shown.append(rf"({text})^2" if family == "Normal" and name == "scale" else text)
    title = r"\mathcal{N}" if family == "Normal" else rf"\mathrm{{{family}}}"
    return rf"{title}\left({', '.join(shown)}\right)"


def _estimates(program: Program, inputs: Mapping[str, Any]) -> list[str]:
    """Return what the estimator of every random variable adds to the gradient."""
    program.prepare(**{**program._ir.store.examples, **inputs})
    lines = []
    for name, estimator in program.policy.items():
        form = ESTIMATES.get(estimator.name, rf"\mathrm{{{estimator.name}}}".replace("-", r"\text{-}"))
        told = form.format(cost="f", value=_name(name), soft="f") if estimator.name in ESTIMATES else form
        if estimator.name == "score" and isinstance(getattr(estimator, "baseline", None), Zero):
            told = told.replace(r"\bigl(f - \beta\bigr)", "f")
        lines.append(rf"\hat g_{{{_name(name)}}} &= {told}")
    return lines


def _gradient(found: Model) -> list[str]:
    """Return the gradient of the objective, where there is a closed form."""
    try:
        objective = in_pieces(list(in_cases(found.objective)))
    except UnreadableError:
        return []
    return [
        rf"\frac{{\partial J}}{{\partial {sp.latex(s)}}} &= {sp.latex(_short(sp.diff(objective, s)))}"
        for own in found.parameters.values()
        for s in flat(own)
    ]


def _short(expr: sp.Expr) -> sp.Expr:
    """Simplify an expression where that does not take long."""
    return sp.simplify(expr) if sp.count_ops(expr) < SHORT and not expr.has(sp.I) else expr


def _name(name: str) -> str:
    return str(sp.latex(sp.Symbol(name)))
