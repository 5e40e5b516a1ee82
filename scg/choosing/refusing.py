"""Refusing: an estimator that is not right at a node, or biased, and what serves in its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from scg.errors import BiasedEstimatorError, EstimatorError
from scg.estimators.protocol.border import asked, refusal
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.kinds import Estimator
from scg.estimators.registry import has_defaults, in_turn, registry

AFFORDABLE = 64
"""The most evaluations, or joint branches of all nodes it enumerates, that automatic choice pays."""

NAMED = 2
"""How many alternatives a refusal names."""


def refused(estimator: Estimator, facts: NodeFacts, allow_biased: bool) -> EstimatorError | None:
    """Return the error of an estimator that was asked for at a node and is not right there, or None."""
    if not estimator.unbiased and not allow_biased:
        options = " and ".join(estimator.biased_by)
        told = f" with {options}" if options else ""
        other = f"leave {options} out" if options else f"use {_alternatives(facts, estimator.name)}"
        return BiasedEstimatorError(
            f"'{estimator.name}'{told} at '{facts.name}' is biased: compile with allow_biased=True to accept "
            f"that, or {other}"
        )
    found = refusal(estimator, facts)
    if found is None:
        return None
    ending = "" if found.instead is not None else f". Use {_alternatives(facts, estimator.name)}"
    return EstimatorError(f"{estimator.name} cannot estimate '{facts.name}': {found}{ending}")


def _alternatives(facts: NodeFacts, refused: str) -> str:
    """Name the best estimators that a node can have, but the one that was refused."""
    best = [f'"{name}"' for name in islice(able(facts, refused), NAMED)]
    if best:
        return " or ".join(best)
    known = registry().get(refused)
    is_able = known is not None and has_defaults(known) and refusal(known(), facts) is None
    return "it with other options" if is_able else "another distribution: no estimator can carry it"


def able(facts: NodeFacts, refused: str) -> Iterator[str]:
    """Yield what is unbiased and not refused at a node, as by automatic choice, then what it leaves out.

    What takes more evaluations than automatic choice pays comes last.
    """
    dear = []
    others = [kind for name, kind in sorted(registry().items()) if kind.tried is None]
    for kind in (*in_turn(), *others):
        if not kind.unbiased or kind.name == refused or not has_defaults(kind):
            continue
        estimator = kind()
        if not estimator.unbiased or refusal(estimator, facts) is not None:
            continue
        if asked(estimator, facts).evaluations > AFFORDABLE:
            dear.append(kind.name)
        else:
            yield kind.name
    yield from dear
