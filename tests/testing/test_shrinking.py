"""A random graph that fails shrinks to a few nodes, and what the plugin prints of it fails when pasted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from scg.analysis.influence import Influence
from scg.estimators.parts import baselines
from scg.nodes.ir import IR
from tests.contract.cases import BIASED, Case, difference

pytest_plugins = ["pytester"]
NODES = 6
FILE = """
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings

from tests.contract.cases import BIASED, cases, difference
from tests.support.mean import TooManyError

torch.set_default_dtype(torch.float64)

@settings(
    max_examples=200, derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
)
@given(cases(depth=2, few=0))
def test_the_mean_gradient_is_exact(case):
    graph, policy, inputs = case.graph, case.policy, case.inputs
    try:
        assert difference(case) < BIASED, f"samples={case.samples}"
    except TooManyError:
        assume(False)
"""


def own_sample(patch: pytest.MonkeyPatch) -> None:
    """Have a leave-one-out baseline keep the one."""

    def left_out(credit: Tensor, dim: int, *, pairs: bool = False) -> Tensor:
        return credit.mean(dim, keepdim=True).expand(credit.shape)

    patch.setattr(baselines, "left_out", left_out)


def forgotten(patch: pytest.MonkeyPatch) -> None:
    """Charge a node with the first of its costs alone."""
    right = Influence.costs_of
    patch.setattr(Influence, "costs_of", lambda self, bits: list(right(self, bits))[:1])


def mixed(patch: pytest.MonkeyPatch) -> None:
    """Credit an element with its own cost where other elements' costs depend on it."""

    def kept(self: Influence, ir: IR, name: str, cost: str) -> tuple[str, ...]:
        return tuple(plate for plate in ir.layout[name] if plate in ir.layout[cost])

    patch.setattr(Influence, "kept", kept)


@pytest.mark.parametrize("broken", [own_sample, forgotten, mixed])
def test_a_failure_is_small_and_fails_again(
    broken: Callable[[pytest.MonkeyPatch], None],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(monkeypatch)
    pytester.makepyfile(FILE)
    lines = pytester.runpytest_inprocess("-p", "scg.testing.plugin").outlines
    space: dict[str, Any] = {}
    exec(printed(lines), space)
    samples = 2 if any("samples=2" in line for line in lines) else None
    case = Case(space["g"], space["policy"], samples, space.get("inputs", {}))
    assert len(case.graph) <= NODES
    assert difference(case) > BIASED
    monkeypatch.undo()
    assert difference(case) < BIASED


def printed(lines: list[str]) -> str:
    """Return the text that the plugin has printed last."""
    begin = max(place for place, line in enumerate(lines) if "Graph as code" in line)
    end = next(place for place in range(begin + 1, len(lines)) if lines[place].startswith(("---", "===")))
    return "\n".join(lines[begin + 1 : end])
