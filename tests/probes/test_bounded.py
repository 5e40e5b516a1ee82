"""Calls at values that functions were not made for end, whatever loops they have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.probes.bounded import MANY, Bounded, RanOnError
from scg.probes.replay import Replay
from tests.selection import by_turns, some


def for_ever() -> None:
    while True:
        pass


def test_a_loop_that_does_not_end_is_stopped() -> None:
    before = sys.gettrace()
    with pytest.raises(RanOnError, match="more than 1000 lines"), Bounded(1000):
        for_ever()
    assert sys.gettrace() is before


def test_lines_of_functions_are_counted_and_those_of_libraries_are_not() -> None:
    def ten() -> Tensor:
        total = torch.zeros(())
        for _ in range(4):
            total = torch.nn.functional.softplus(total)
        return total

    with Bounded(20) as counted:
        ten()
    assert 10 <= counted.lines <= 11
    with Bounded(None) as uncounted:
        ten()
    assert uncounted.lines == 0


def test_what_only_begins_like_a_library_is_none() -> None:
    space: dict[str, Any] = {}
    file = f"{Path(torch.__file__).parent}vision/models.py"
    exec(compile("def loop():\n while True:\n  pass\n", file, "exec"), space)
    with pytest.raises(RanOnError), Bounded(1000):
        space["loop"]()


def test_a_function_of_many_lines_is_judged_as_any() -> None:
    def long(at: dict[str, Tensor]) -> Tensor:
        count = 0
        for _ in range(MANY):
            count += 1
        return at["x"] ** 2 + count if float(at["x"].sum()) > -1e9 else at["x"]

    assert Replay(long, {"x": torch.zeros(2)}, "x", 0, ()).bounded().glance(torch.ones(2)).values is not None


def by_steps(row: Tensor) -> Tensor:
    total = torch.zeros(())
    while total < 2:
        total = total + 0.4 + row.sum()
    return total


def in_python(row: Tensor) -> Tensor:
    total, count, step = 0.0, 0, float(row.sum())
    while total < 2:
        total, count = total + 0.4 + step, count + 1
    return row.sum() * 0.1 + count


POLICIES = ["rebar", "auto", "relax", "enumerate", "lax", "reparam"]


@pytest.mark.parametrize(("policy", "fn"), by_turns(some(POLICIES, 2), [by_steps, in_python]))
def test_programs_with_loops_that_end_on_their_support_compile(
    policy: str, fn: Callable[[Tensor], Tensor]
) -> None:
    for law in ({"logits": torch.full((4,), 0.3)}, {"loc": torch.full((4,), 0.6), "scale": 0.01}):
        g = scg.Graph()
        first, *others = law.items()
        parameters = {first[0]: g.param("theta", first[1]), **dict(others)}
        z = g.sample("z", Bernoulli if "logits" in law else Normal, **parameters)
        g.cost("c", fn, z)
        try:
            program = scg.compile(g, policy)
        except scg.EstimatorError:
            continue
        assert program(seed=0).loss.isfinite()
