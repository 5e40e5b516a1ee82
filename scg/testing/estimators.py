"""Checking an estimator: every check in one line, or one test for each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from scg.estimators.protocol.kinds import Estimator
from scg.testing.checks import Check, RefusedError, checks


@dataclass(frozen=True)
class Outcome:
    """What became of one check: "passed", "refused" where the estimator refuses its graph, or "failed"."""

    check: str
    status: str
    detail: str = ""


class CheckFailedError(AssertionError):
    """An estimator does not satisfy some of the checks; ``outcomes`` has all of them."""

    def __init__(self, estimator: Estimator, outcomes: list[Outcome], wrong: list[str]) -> None:
        """Say which, and why."""
        super().__init__(
            f"{estimator!r} fails {len(wrong)} of {len(outcomes)} checks\n\n" + "\n\n".join(wrong)
        )
        self.outcomes = outcomes


def check_estimator(
    estimator: Estimator,
    *,
    only: Collection[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Run every check on an ``estimator``, or ``only`` some, and raise ``CheckFailedError`` if any fails.

    What it refuses is not held against it. ``expected_failures`` names checks that are known to fail, each
    with the reason; one of them that passes is told as well. Returns the outcome of every check.
    """
    known, several = dict(expected_failures or {}), checks()
    if strange := {*known, *(only or ())} - several.keys():
        raise ValueError(f"there are no checks {sorted(strange)}; there are {', '.join(several)}")
    outcomes = [_outcome(estimator, several[name]) for name in several if only is None or name in only]
    wrong = []
    for found in outcomes:
        if found.status == "failed" and found.check not in known:
            wrong.append(f"{found.check}: {found.detail}")
        if found.status == "passed" and found.check in known:
            wrong.append(f"{found.check} passes, though it is expected to fail: {known[found.check]}")
    if wrong:
        raise CheckFailedError(estimator, outcomes, wrong)
    return outcomes


def _outcome(estimator: Estimator, check: Check) -> Outcome:
    try:
        check.run(estimator)
    except RefusedError as error:
        return Outcome(check.name, "refused", str(error))
    except AssertionError as error:
        return Outcome(check.name, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - of an estimator that may do anything
        return Outcome(check.name, "failed", f"{type(error).__name__}: {error}")
    return Outcome(check.name, "passed")


def parametrize_with_checks(
    estimators: Iterable[Estimator], *, expected_failures: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a test of ``(estimator, check)`` one test for each estimator and check.

    Its body is ``check.run(estimator)``. A check that an estimator refuses is skipped by ``scg.testing.run``.
    """
    known = expected_failures or {}
    rows = [
        pytest.param(
            estimator,
            check,
            id=f"{estimator.name}-{name}",
            marks=[pytest.mark.xfail(reason=known[name], strict=True)] if name in known else [],
        )
        for estimator in estimators
        for name, check in checks().items()
    ]
    return pytest.mark.parametrize(("estimator", "check"), rows)


def run(estimator: Estimator, check: Check) -> None:
    """Run one check as a test, which is skipped where the estimator refuses its graph."""
    try:
        check.run(estimator)
    except RefusedError as error:
        pytest.skip(str(error))
