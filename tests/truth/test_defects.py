"""Whatever defect a program has and however its example hides it: it is refused, or its gradient is right."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings

from tests.truth.defects import SEEN, Defect, defects
from tests.truth.judge import verdict

MANY = max(60, settings.default.max_examples if settings.default is not None else 0)


@settings(max_examples=MANY, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(defects())
def test_a_defect_is_refused_or_harmless(defect: Defect) -> None:
    found = verdict(defect.case)
    assume(found.kind not in ("void", "unresolved"))
    SEEN[f"{defect.kind}, {found.kind}"] += 1
    assert found.kind in ("right", "refused", "warned"), f"{defect} is {found}"
