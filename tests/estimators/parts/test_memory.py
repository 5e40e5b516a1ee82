"""Memory of past credit: what it is a mean of, and what normalising divides by."""

from __future__ import annotations

import math

import pytest
import torch

from scg.estimators.parts.memory import Memory
from tests.estimators.building import of


def test_the_mean_is_that_of_the_past_from_the_first_step_on() -> None:
    memory = Memory(None, deviates=False, decay=0.9)
    assert float(memory.mean()) == 0
    for credit in (of(3.0, 5.0), of(8.0, 8.0)):
        memory.update(credit, None)
    assert float(memory.mean()) == pytest.approx((0.9 * 0.1 * 4 + 0.1 * 8) / (0.9 * 0.1 + 0.1))


def test_branches_count_by_their_probability() -> None:
    memory = Memory(None, deviates=True)
    memory.update(of(1.0, 100.0), of(0.75, 0.0))
    assert float(memory.mean()) == pytest.approx(1.0)
    memory = Memory(None, deviates=True)
    memory.update(of(1.0, 5.0), of(0.75, 0.25))
    assert float(memory.mean()) == pytest.approx(2.0)


def test_the_deviation_is_about_the_mean_and_at_least_1() -> None:
    memory = Memory(None, deviates=True)
    memory.update(of(2.0, 8.0), None)
    assert float(memory.deviation()) == pytest.approx(3.0)
    memory = Memory(None, deviates=True)
    memory.update(of(2.0, 2.5), None)
    assert float(memory.deviation()) == 1.0
    assert math.isclose(float(Memory(None, deviates=True).deviation()), 1.0)


def test_what_is_remembered_is_new_each_step() -> None:
    """A backward that waits may still read what was remembered before."""
    memory = Memory(None, deviates=True)
    before = (memory.mass, memory.first)
    memory.update(of(2.0), None)
    assert [float(value) for value in before] == [0.0, 0.0]
    assert torch.is_tensor(memory.first) and memory.first is not before[1]
