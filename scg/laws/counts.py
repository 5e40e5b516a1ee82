"""Bounds of live counts: a number of trials that is a tensor makes a finite law where it has a bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

from torch import Tensor

from scg.laws.count import COUNTED_BINOMIAL, Binomial
from scg.laws.elementary import Elementary
from scg.laws.independent import Independent
from scg.laws.law import Law, Parameters
from scg.laws.mixture import Mixture
from scg.laws.transformed import Transformed

INSIDE: dict[type, tuple[str, str]] = {
    Independent: ("base", ""),
    Transformed: ("base", "base."),
    Mixture: ("component", "component."),
}
"""Laws made of another: the field that holds it, and what its parameters' names begin with."""


def unbounded_count(law: Law) -> str | None:
    """Return the parameter that is a number of trials without a bound, if there is one.

    >>> unbounded_count(Elementary(COUNTED_BINOMIAL, ("total_count", "probs")))
    'total_count'
    """
    prefix, inner = _innermost(law)
    return f"{prefix}total_count" if _is_counted(inner) else None


def bound_of(law: Law) -> tuple[str, int] | None:
    """Return the parameter that is a number of trials with a bound, and that, if there is one."""
    prefix, inner = _innermost(law)
    if not isinstance(inner, Binomial) or not inner.is_live:
        return None
    return f"{prefix}total_count", inner.total_count


def trials(law: Law, parameters: Parameters) -> Tensor:
    """Return the number of trials of a law of successes among them, a parameter or not."""
    if "total_count" in parameters:
        return parameters["total_count"].detach()
    assert isinstance(law, Binomial)
    return parameters[law.given].new_tensor(float(law.total_count))


def bounded(law: Law, bound: int) -> Law:
    """Return the finite law of which a number of trials is at most ``bound``."""

    def leaf(inner: Law) -> Law:
        assert isinstance(inner, Elementary)
        return Binomial(cast(Literal["probs", "logits"], inner.names[-1]), bound, is_live=True)

    return _rewritten(law, leaf)


def unbounded(law: Law) -> Law:
    """Return the law without its bound: what ``law_of`` makes of a live distribution."""
    if bound_of(law) is None:
        return law
    return _rewritten(law, lambda inner: Elementary(COUNTED_BINOMIAL, inner.parameters))


def _is_counted(law: Law) -> bool:
    return isinstance(law, Elementary) and law.formulas is COUNTED_BINOMIAL


def _innermost(law: Law) -> tuple[str, Law]:
    start = ""
    while type(law) in INSIDE:
        field, prefix = INSIDE[type(law)]
        law, start = getattr(law, field), start + prefix
    return start, law


def _rewritten(law: Law, leaf: Callable[[Law], Law]) -> Law:
    if type(law) not in INSIDE:
        return leaf(law)
    field, _ = INSIDE[type(law)]
    made: Any = replace(cast(Any, law), **{field: _rewritten(getattr(law, field), leaf)})
    return cast(Law, made)
