"""Limits: how many outcomes of enumerated nodes may be summed over at once."""

from __future__ import annotations

from collections.abc import Mapping

from scg.analysis.elimination import Scope
from scg.analysis.facts import Facts
from scg.choosing.choice import Choice
from scg.choosing.meeting import described, meeting, remedy
from scg.errors import EstimatorError
from scg.estimators.protocol.kinds import Branched


def check_branches(facts: Facts, choices: Mapping[str, Choice]) -> None:
    """Refuse enumerated nodes of which too many outcomes are summed over at once, whatever the order."""
    limits = {n: c.estimator.limit for n, c in choices.items() if isinstance(c.estimator, Branched)}
    found = meeting(facts, {name: choices[name].asks.branches for name in limits})
    charged = {name for name, choice in choices.items() if choice.is_charged}
    over = [scope for scope in found.sums(charged) if found.size(scope) > _limit(limits, scope)]
    if over:
        widest = max(over, key=found.size)
        raise EstimatorError(
            f"the branches of {described(found, widest)} are summed over at once: {found.size(widest)} joint "
            f"outcomes are over the limit of {_limit(limits, widest)}. "
            f"{remedy(found, _limit(limits, widest))}, or raise limit="
        )


def _limit(limits: Mapping[str, int], scope: Scope) -> int:
    """Return how many joint outcomes of several nodes may be summed over at once."""
    return max(limits[name] for name in scope)
