"""Automatic choice: the first estimator, by declared preference, that is right and affordable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

from scg.analysis.facts import Facts
from scg.choosing.choice import Choice, recovers
from scg.choosing.meeting import meeting
from scg.choosing.parts import Parts
from scg.choosing.refusing import AFFORDABLE, NAMED, able
from scg.errors import EstimatorError
from scg.estimators.protocol.border import asked, refusal
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Branched, Estimator
from scg.estimators.registry import in_turn

AUTO = "auto"


def dear_sums(
    facts: Facts, told: Mapping[str, NodeFacts], wanted: Mapping[str, str | Estimator | Parts]
) -> dict[str, str]:
    """Return why the sums over finite nodes left to automatic choice cost too much, where they do.

    Nodes whose branches meet are enumerated together or not at all.
    """
    outcomes = {
        name: told[name].branches or 1
        for name, entry in wanted.items()
        if told[name].branches is not None and (entry == AUTO or isinstance(entry, Branched))
    }
    automatic = frozenset(name for name in outcomes if wanted[name] == AUTO)
    if not automatic:
        return {}
    found, reasons = meeting(facts, outcomes), dict[str, str]()
    for group in found.groups:
        count = found.widest(group)
        if found.evaluations(group & automatic) > AFFORDABLE:
            reason = f"it takes more than {AFFORDABLE} evaluations"
        elif count > Branched.limit:
            reason = f"{count} joint outcomes would be summed over at once"
        else:
            continue
        reasons.update(dict.fromkeys(group, reason))
    return reasons


def automatic(facts: NodeFacts, dear: str | None, further: Callable[[Estimator], str | None]) -> Choice:
    """Return the first estimator, by declared preference, that is unbiased, right and affordable.

    ``dear`` says why enumerating it, with what it meets, is not, if so. ``further`` says what is wrong with
    one beyond the first derivative.
    """
    passed: list[tuple[str, str]] = []
    for kind in in_turn():
        estimator = kind.automatic(facts)
        reason = _passes(estimator, facts, dear)
        if reason is None and isinstance(estimator, Estimator):
            reason = further(estimator)
        if isinstance(estimator, Estimator) and reason is None:
            why = "; ".join(f"{name}: {found}" for name, found in passed)
            chosen = f"automatic{', since ' + why if why else ''}"
            asks = asked(estimator, facts)
            return Choice(estimator, chosen, asks, recovers=recovers(estimator, facts))
        passed.append((kind.name, str(reason)))
    found = "; ".join(f"{name}: {reason}" for name, reason in passed)
    by_name = [f'"{name}"' for name in islice(able(facts, ""), NAMED)]
    if by_name:
        use = " or ".join(by_name)
        raise EstimatorError(f"no estimator is chosen for '{facts.name}': {found}. Use {use}, by its name")
    raise EstimatorError(f"no estimator can carry '{facts.name}': {found}")


def _passes(estimator: Estimator | Refusal, facts: NodeFacts, dear: str | None) -> str | None:
    """Return why automatic choice passes over an estimator, or None."""
    if isinstance(estimator, Refusal):
        return str(estimator)
    if not estimator.unbiased:
        return "it is biased"
    found = refusal(estimator, facts)
    if found is not None or not facts.reaches_cost:
        return None if found is None else str(found)
    if isinstance(estimator, Branched):
        return dear
    paid = asked(estimator, facts).evaluations
    return f"it takes more than {AFFORDABLE} evaluations" if paid > AFFORDABLE else None
