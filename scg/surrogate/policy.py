"""Policy: which estimator each stochastic node gets, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scg.analysis.facts import Facts
from scg.errors import BiasedEstimatorError, EstimatorError, PolicyError
from scg.nodes.ir import IR
from scg.nodes.records import Cost
from scg.surrogate.describe import node_facts
from scg.surrogate.estimators.base import Action, Estimator, NodeFacts, Remedy
from scg.surrogate.estimators.registry import by_name, registry

AUTO = "auto"
AFFORDABLE = 64
"""The most evaluations, or joint branches of all nodes it enumerates, that automatic choice pays."""

PolicyEntry = str | Estimator
Policy = PolicyEntry | Mapping[str, PolicyEntry]


@dataclass(frozen=True)
class Choice:
    """The estimator of one node, and the reason it was chosen."""

    estimator: Estimator
    reason: str


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
            choices[name] = Choice(entry, "asked for")
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
    reason = estimator.refuses(facts)
    if reason is None:
        return None
    ending = "" if isinstance(reason, Remedy) else f". Use {_alternatives(facts)}"
    return EstimatorError(f"{estimator.name} cannot estimate '{facts.name}': {reason}{ending}")


def _alternatives(facts: NodeFacts) -> str:
    able = sorted(
        (kind for kind in registry().values() if kind.unbiased and kind().refuses(facts) is None),
        key=lambda kind: kind.preference,
    )
    return " or ".join(f'"{kind.name}"' for kind in able) or "another distribution: no estimator can carry it"


def _automatic(facts: NodeFacts, joint: int) -> Choice:
    """Return the first estimator, by declared preference, that is unbiased, right and affordable.

    ``joint`` counts the outcomes of all finite nodes left to automatic choice: they are enumerated
    together or not at all.
    """
    passed: list[tuple[str, str]] = []
    for kind in sorted(registry().values(), key=lambda kind: kind.preference):
        estimator = kind.automatic(facts)
        if not estimator.unbiased:
            continue
        reason = estimator.passed_over(facts) or estimator.refuses(facts)
        if reason is None and facts.reaches_cost:
            paid = joint if estimator.action is Action.BRANCHES else estimator.evaluations(facts)
            if paid > AFFORDABLE:
                reason = f"it takes more than {AFFORDABLE} evaluations"
        if reason is None:
            why = "; ".join(f"{name}: {found}" for name, found in passed)
            return Choice(estimator, f"automatic{', since ' + why if why else ''}")
        passed.append((kind.name, reason))
    found = "; ".join(f"{name}: {reason}" for name, reason in passed)
    raise EstimatorError(f"no estimator can carry '{facts.name}': {found}")


def check_branches(facts: Facts, choices: Mapping[str, Choice]) -> None:
    """Refuse enumerated nodes whose joint outcomes, multiplied, are over their limit at some cost.

    ``met[name]`` are the enumerated nodes whose branches meet at a node: those it reads, and those on
    which their probabilities depend.
    """
    met: dict[str, frozenset[str]] = {}
    counted: dict[frozenset[str], int] = {}
    empty: frozenset[str] = frozenset()
    for record in facts.ir.records():
        name = record.name
        above = empty.union(*(met[parent] for parent in record.parents)) if record.parents else empty
        branches = name in choices and choices[name].estimator.action is Action.BRANCHES
        met[name] = above | {name} if branches else above
        if len(above) > 1 and name in facts.useful and not branches:
            if above not in counted:
                counted[above] = math.prod(node_facts(facts, other, None).branches or 1 for other in above)
            limit = max(choices[other].estimator.limit for other in above)
            if counted[above] > limit:
                raise EstimatorError(
                    f"the branches of {', '.join(sorted(above))} meet at '{name}': "
                    f"{counted[above]} joint outcomes are over the limit of {limit}. "
                    'Use scg.Enumerate(local=True) or "score" for some of them, or raise limit='
                )
