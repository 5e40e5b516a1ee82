"""Random graphs under random policies: the gradient, integrated over all noise, is the exact one."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, assume, given, settings

from scg.testing import as_code
from tests.contract.cases import BIASED, Case, cases, difference
from tests.selection import EVERYTHING
from tests.support.mean import TooManyError

COUNT = 2000 if EVERYTHING else 200


def test_the_mean_gradient_is_exact(record_property: Callable[[str, object], None]) -> None:
    seen: set[str] = set()

    @settings(max_examples=COUNT, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
    @given(cases())
    def judged(case: Case) -> None:
        graph, policy, inputs = case.graph, case.policy, case.inputs  # which the plugin shows
        told = f"{as_code(graph)} {policy} {case.samples}"
        assume(told not in seen)
        try:
            assert difference(case) < BIASED, (policy, case.samples, inputs)
        except TooManyError:
            assume(False)
        seen.add(told)

    judged()
    record_property("random graphs", len(seen))
