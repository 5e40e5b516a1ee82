"""Temperatures: numbers, schedules that count runs in training alone, and what is none."""

from __future__ import annotations

import math

import pytest
import torch

import scg
from tests.estimators.relaxing import LOGITS, graph, quadratic

MAKE = [scg.Concrete, scg.StraightThrough, scg.GumbelRao, scg.ReinMax]


def schedule(n: torch.Tensor) -> float:
    return max(0.5, math.exp(-0.1 * n))


def program_of(make: type) -> scg.Program:
    return scg.compile(graph(quadratic, "logits", LOGITS), make(temperature=schedule), allow_biased=True)


@pytest.mark.parametrize("make", MAKE)
def test_a_schedule_counts_runs_in_training(make: type) -> None:
    program = program_of(make)
    for count in range(3):
        assert math.isclose(float(program.controls.z.now), schedule(torch.tensor(count)))
        program(seed=count).loss.backward()
    program.eval()
    program(seed=5).loss.backward()
    program.train()
    with torch.no_grad():
        program(seed=6)
    _ = program.code
    assert int(program.controls.z.runs) == 3


@pytest.mark.parametrize("make", MAKE)
def test_a_checkpoint_goes_on_where_it_was(make: type) -> None:
    one, other = program_of(make), program_of(make)
    for seed in range(4):
        one(seed=seed).loss.backward()
    other.load_state_dict(one.state_dict())
    for program in (one, other):
        program.zero_grad()
        program(seed=9).loss.backward()
    assert torch.equal(one.theta.grad, other.theta.grad)


@pytest.mark.parametrize("make", MAKE)
def test_the_temperature_of_a_schedule_is_used(make: type) -> None:
    cold = scg.compile(graph(quadratic, "logits", LOGITS), make(temperature=0.8), allow_biased=True)
    one = scg.compile(graph(quadratic, "logits", LOGITS), make(temperature=lambda n: 0.8), allow_biased=True)
    for program in (cold, one):
        program(seed=0).loss.backward()
    assert torch.allclose(cold.theta.grad, one.theta.grad, rtol=1e-12)


@pytest.mark.parametrize("given", [0.0, -1.0, math.inf, True, "hot"])
@pytest.mark.parametrize("make", MAKE)
def test_what_is_no_temperature_is_refused(make: type, given: object) -> None:
    with pytest.raises(scg.EstimatorError, match="temperature is a positive number"):
        make(temperature=given)


def test_a_schedule_that_ends_at_0_is_refused_when_it_does() -> None:
    estimator = scg.Concrete(temperature=lambda n: 1.0 - 0.5 * n)
    program = scg.compile(graph(quadratic, "logits", LOGITS), estimator, allow_biased=True)
    program(seed=0)
    with pytest.raises(scg.EstimatorError, match="gave the temperature 0.0 after 2 runs"):
        program(seed=1)
