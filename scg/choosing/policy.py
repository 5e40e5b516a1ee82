"""Policy: which estimator each stochastic node gets, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scg.analysis.facts import Facts
from scg.choosing.describe import node_facts
from scg.errors import BiasedEstimatorError, EstimatorError, PolicyError
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.border import asked, check_kind, refusal
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Branched, Estimator
from scg.estimators.registry import by_name, in_turn
from scg.nodes.ir import IR
from scg.nodes.records import Cost

AUTO = "auto"
AFFORDABLE = 64
"""The most evaluations, or joint branches of all nodes it enumerates, that automatic choice pays."""

NAMED = 2
"""How many alternatives a refusal names."""

PolicyEntry = str | Estimator
Policy = PolicyEntry | Mapping[str, PolicyEntry]


@dataclass(frozen=True)
class Choice:
    """The estimator of one node, the reason it was chosen, and what it asks for."""

    estimator: Estimator
    reason: str
    asks: Asks


def match(ir: IR, policy: Policy) -> dict[str, PolicyEntry]:
    """Return what the policy says of each stochastic node; the later of several matching keys wins.

    Exact names win over globs.
    """
    samples = ir.samples
    if not isinstance(policy, Mapping):
        return {name: _known(policy) for name in samples}
    wanted: dict[str, PolicyEntry] = dict.fromkeys(samples, AUTO)
    for key in sorted(policy, key=lambda key: key in ir):
        matching = [name for name in samples if fnmatchcase(name, key)]
        if not matching:
            kind = (
                f"'{key}' is a {type(ir[key]).__name__.lower()}" if key in ir else f"'{key}' matches nothing"
            )
            hint = ": costs have no estimator" if key in ir and isinstance(ir[key], Cost) else ""
            raise PolicyError(
                f"policy key {kind}{hint}; the stochastic nodes are {', '.join(samples) or 'none'}"
            )
        wanted.update({name: _known(policy[key]) for name in matching})
    return wanted


def _known(entry: PolicyEntry) -> PolicyEntry:
    """Return the instance that an entry asks for; a name asks for a new one at every node."""
    if isinstance(entry, Estimator):
        check_kind(type(entry))
        return entry
    if not isinstance(entry, str):
        raise PolicyError(f"a policy gives names or instances of estimators, not {type(entry).__name__}")
    return entry if entry == AUTO else by_name(entry)


def choose(
    ir: IR, policy: Policy, facts: Callable[[str], NodeFacts], *, allow_biased: bool
) -> dict[str, Choice]:
    """Return the choice for every stochastic node; all refusals are reported together."""
    wanted = match(ir, policy)
    choices: dict[str, Choice] = {}
    faults: list[EstimatorError] = []
    told = {name: facts(name) for name in wanted}
    automatic = [told[name] for name, entry in wanted.items() if not isinstance(entry, Estimator)]
    joint = 1
    for known in automatic:
        joint *= (known.branches or 1) if known.reaches_cost and joint <= AFFORDABLE else 1
    for name, entry in wanted.items():
        known = told[name]
        if isinstance(entry, Estimator):
            fault = _refusal(entry, known, allow_biased)
            if fault is not None:
                faults.append(fault)
            choices[name] = Choice(entry, "asked for", Asks() if fault else asked(entry, known))
        else:
            choices[name] = _automatic(known, joint)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        kind = (
            BiasedEstimatorError
            if all(isinstance(f, BiasedEstimatorError) for f in faults)
            else EstimatorError
        )
        raise kind("\n".join(str(fault) for fault in faults))
    return choices


def _refusal(estimator: Estimator, facts: NodeFacts, allow_biased: bool) -> EstimatorError | None:
    if not estimator.unbiased and not allow_biased:
        return BiasedEstimatorError(
            f"'{estimator.name}' at '{facts.name}' is biased: compile with allow_biased=True to accept that, "
            f"or use {_alternatives(facts)}"
        )
    found = refusal(estimator, facts)
    if found is None:
        return None
    ending = "" if found.instead is not None else f". Use {_alternatives(facts)}"
    return EstimatorError(f"{estimator.name} cannot estimate '{facts.name}': {found}{ending}")


def _alternatives(facts: NodeFacts) -> str:
    """Name the best estimators that a node can have."""
    able = [kind for kind in in_turn() if kind.unbiased and refusal(kind(), facts) is None]
    best = [f'"{kind.name}"' for kind in able[:NAMED]]
    return " or ".join(best) or "another distribution: no estimator can carry it"


def _automatic(facts: NodeFacts, joint: int) -> Choice:
    """Return the first estimator, by declared preference, that is unbiased, right and affordable.

    ``joint`` counts the outcomes of all finite nodes left to automatic choice: they are enumerated
    together or not at all.
    """
    passed: list[tuple[str, str]] = []
    for kind in in_turn():
        estimator = kind.automatic(facts)
        reason = _passes(estimator, facts, joint)
        if isinstance(estimator, Estimator) and reason is None:
            why = "; ".join(f"{name}: {found}" for name, found in passed)
            chosen = f"automatic{', since ' + why if why else ''}"
            return Choice(estimator, chosen, asked(estimator, facts))
        passed.append((kind.name, str(reason)))
    found = "; ".join(f"{name}: {reason}" for name, reason in passed)
    raise EstimatorError(f"no estimator can carry '{facts.name}': {found}")


def _passes(estimator: Estimator | Refusal, facts: NodeFacts, joint: int) -> str | None:
    """Return why automatic choice passes over an estimator, or None."""
    if isinstance(estimator, Refusal):
        return str(estimator)
    if not estimator.unbiased:
        return "it is biased"
    found = refusal(estimator, facts)
    if found is not None or not facts.reaches_cost:
        return None if found is None else str(found)
    paid = joint if isinstance(estimator, Branched) else asked(estimator, facts).evaluations
    return f"it takes more than {AFFORDABLE} evaluations" if paid > AFFORDABLE else None


def check_branches(facts: Facts, choices: Mapping[str, Choice]) -> None:
    """Refuse enumerated nodes whose joint outcomes, multiplied, are over their limit at some cost.

    ``met[name]`` are the enumerated nodes whose branches meet at a node: those it reads, and those on
    which their probabilities depend.
    """
    met: dict[str, frozenset[str]] = {}
    counted: dict[frozenset[str], int] = {}
    limits = {n: c.estimator.limit for n, c in choices.items() if isinstance(c.estimator, Branched)}
    empty: frozenset[str] = frozenset()
    for record in facts.ir.records():
        name = record.name
        above = empty.union(*(met[parent] for parent in record.parents)) if record.parents else empty
        branches = name in choices and isinstance(choices[name].estimator, Branched)
        met[name] = above | {name} if branches else above
        if len(above) > 1 and name in facts.useful and not branches:
            if above not in counted:
                counted[above] = math.prod(node_facts(facts, other, None).branches or 1 for other in above)
            limit = max(limits[other] for other in above)
            if counted[above] > limit:
                raise EstimatorError(
                    f"the branches of {', '.join(sorted(above))} meet at '{name}': "
                    f"{counted[above]} joint outcomes are over the limit of {limit}. "
                    'Use scg.Enumerate(local=True) or "score" for some of them, or raise limit='
                )
