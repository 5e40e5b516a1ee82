"""Defects of the compiler put back on purpose: the strategy, at the class that should show it, finds each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from tests.truth.defects import defects
from tests.truth.judge import verdict

TRIES = 60


@dataclass(frozen=True)
class Fault:
    """What to disable in the compiler: an attribute by its dotted name, and what stands there instead."""

    where: str
    instead: Callable[[Any], Any]
    kind: str


FAULTS: dict[str, Fault] = {
    "crossing is not looked for": Fault(
        "scg.analysis.facts.crossings", lambda old: lambda *args, **options: [], "crossing"
    ),
}


def is_found(kind: str, tries: int) -> bool:
    """Say whether the strategy meets a program of a class that is neither right nor refused."""

    @settings(
        max_examples=tries,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(defects([kind]))
    def hold(defect: Any) -> None:
        found = verdict(defect.case)
        assume(found.kind not in ("void", "unresolved"))
        assert found.kind in ("right", "refused")

    try:
        hold()
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("name", FAULTS)
def test_a_defect_that_is_put_back_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    module, _, attribute = fault.where.rpartition(".")
    old = getattr(__import__(module, fromlist=[attribute]), attribute)
    monkeypatch.setattr(fault.where, fault.instead(old))
    assert is_found(fault.kind, TRIES)
