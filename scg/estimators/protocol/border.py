"""The border: what is checked of an estimator, its class when it is registered and what it gives."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.protocol.asks import KINDS as NOISES
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import ANTITHETIC, Axis, NodeFacts, Refusal
from scg.estimators.protocol.kinds import KINDS, Branched, Cut, Estimator, Scored, Through


def check_kind(kind: Any) -> None:
    """Refuse a class that breaks the protocol, with the member that is wrong."""
    fault = _fault(kind)
    if fault is not None:
        raise EstimatorError(f"{getattr(kind, '__name__', kind)} is no estimator: {fault}")


def _fault(kind: Any) -> str | None:
    if not isinstance(kind, type) or not issubclass(kind, Estimator):
        return "it is no class of one of the four kinds, scg.Scored, scg.Cut, scg.Through or scg.Branched"
    own = [base for base in KINDS if issubclass(kind, base)]
    if len(own) != 1:
        return "it has to be of one of the four kinds, scg.Scored, scg.Cut, scg.Through or scg.Branched"
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        return f"it lacks the method {missing[0]}()"
    if not isinstance(getattr(kind, "name", None), str):
        return "name is the word for it in policies, a string"
    if not isinstance(kind.unbiased, bool):
        return f"unbiased is True or False, not {kind.unbiased!r}"
    if kind.tried is not None and not isinstance(kind.tried, int):
        return f"tried is a number, when automatic choice tries it, or None, not {kind.tried!r}"
    if not dataclasses.is_dataclass(kind):
        return "its options are the fields of a frozen dataclass: decorate it with @dataclass(frozen=True)"
    required = [field.name for field in dataclasses.fields(kind) if _is_required(field)]
    if required and kind.tried is not None:
        return f"automatic choice makes it without options, and its option '{required[0]}' has no default"
    if issubclass(kind, Branched) and not isinstance(kind.limit, int):
        return f"limit is the most branches, a number, not {kind.limit!r}"
    for name in ("refuses", "asks", "learns", "remember", KINDS[own[0]]):
        member = inspect.getattr_static(kind, name)
        if inspect.isfunction(member) and len(inspect.signature(member).parameters) != 2:
            return f"its method {name}() takes one argument, besides itself"
    return None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def asked(estimator: Estimator, facts: NodeFacts) -> Asks:
    """Return what an estimator asks for at a node; refuse what is no such record."""
    found = estimator.asks(facts)
    if not isinstance(found, Asks):
        raise EstimatorError(
            f"{estimator.name} at '{facts.name}': asks() returns a scg.Asks, not {type(found).__name__}"
        )
    makes = isinstance(estimator, (Through, Branched))
    if makes and dataclasses.replace(found, standard=False, branches=0, fresh=(), detached=False) != Asks():
        raise EstimatorError(
            f"{estimator.name} at '{facts.name}' makes values, before there is a site with more than "
            f"parameters and noise: it can ask for standard=True, fresh=(...) and branches=n, not for {found}"
        )
    wrong = [kind for kind in found.fresh if kind not in NOISES]
    if wrong:
        raise EstimatorError(
            f"{estimator.name} at '{facts.name}' asks for fresh noise of kind {wrong[0]!r}; "
            f"there are {', '.join(NOISES)}"
        )
    return found


def refusal(estimator: Estimator, facts: NodeFacts) -> Refusal | None:
    """Return why an estimator would be wrong at a node: what it says, or elements that it cannot compare."""
    found = estimator.refuses(facts)
    if found is not None:
        if not isinstance(found, Refusal):
            raise EstimatorError(
                f"{estimator.name} at '{facts.name}': refuses() returns a scg.Refusal or None, not {found!r}"
            )
        return found
    asks = asked(estimator, facts)
    if (facts.is_given or facts.is_followed) and (asks.downstream or isinstance(estimator, Branched)):
        what = "what follows cannot be evaluated at other actions"
        return Refusal(what, "take another baseline" if isinstance(estimator, Scored) else None)
    if facts.is_followed and asks.redraws:
        return Refusal("what is below it was drawn elsewhere, once", "leave redraws= out")
    if facts.is_given and isinstance(estimator, Through):
        return Refusal("its value was drawn elsewhere, and passes on without a derivative")
    if facts.is_given and isinstance(estimator, Cut) and not facts.law.recovers:
        return Refusal(f"it reads noise, which a value of a {facts.law.family} does not tell")
    return None if asks.independent is None else _compared(facts, asks.independent, pairs=asks.pairs)


def _compared(facts: NodeFacts, name: str, *, pairs: bool) -> Refusal | None:
    """Refuse to compare elements along an axis that is not there, or that costs or noise join."""
    axis = next((axis for axis in facts.axes if axis.name == name), None)
    if name == "replicates" and (axis is None or axis.size < 2):
        if facts.is_given or facts.is_followed:
            return Refusal(
                "leave-one-out compares replicates, and what is drawn elsewhere has none",
                'draw several there, along a plate, and write Score(baseline=scg.LeaveOneOut("plate"))',
            )
        return Refusal("leave-one-out compares replicates", "compile with samples=2 or more")
    if axis is None:
        there = ", ".join(known.name for known in facts.axes) or "none"
        return Refusal(
            f"it compares elements along '{name}', and the axes here are {there}", "name one of them"
        )
    if axis.joined or axis.discount != 1.0:
        return Refusal(
            f"it compares elements of plate '{name}', which costs below join: another element's credit "
            "depends on this one's value",
            "compare replicates",
        )
    return None if axis.coupled is None else _coupled(axis, pairs=pairs)


def _coupled(axis: Axis, *, pairs: bool) -> Refusal | None:
    """Refuse to compare replicates whose noise at the node is coupled, but for antithetic pairs."""
    if axis.coupled == ANTITHETIC and pairs:
        if axis.others > 0:
            return None
        return Refusal(
            "leave-one-out leaves out antithetic pairs, and there is no other pair",
            "compile with samples=4 or more",
        )
    return Refusal(
        f"leave-one-out compares replicates, and its own noise is coupled across them ({axis.coupled})",
        'use a baseline that compares none, as "moving-average", or give noise="independent" for it',
    )


def check_estimates(
    estimator: Estimator,
    node: str,
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    known: Sequence[str],
) -> None:
    """Hold an estimate against the ``known`` parameters: those ``wanted`` need one, in their shape."""
    who = f"{estimator.name} at '{node}'"
    if not isinstance(given, Mapping):
        raise EstimatorError(f"{who}: gradient() returns a dict by parameter, not {type(given).__name__}")
    if strange := [name for name in given if name not in set(known)]:
        raise EstimatorError(f"{who} gave '{strange[0]}' an estimate; the parameters are {', '.join(known)}")
    if missing := [name for name in wanted if name not in given]:
        raise EstimatorError(f"{who} gave parameter '{missing[0]}', which needs a gradient, no estimate")
    for name, leaf in wanted.items():
        if given[name].shape != leaf.shape:
            raise EstimatorError(
                f"{who} gave parameter '{name}' an estimate of shape {tuple(given[name].shape)}: return "
                f"one of its own shape, {tuple(leaf.shape)}"
            )
