"""Functions of many parents are probed in all of them at once, and a rough one is still named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import scg

MANY = 40


def siblings(rough: int | None) -> scg.Graph:
    def mean(*xs: Tensor) -> Tensor:
        parts = [torch.round(x) if index == rough else x for index, x in enumerate(xs)]
        return torch.stack(parts).mean() ** 2

    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3))
    g.cost("c", mean, *(g.sample(f"x{index}", Normal, theta, 1.0) for index in range(MANY)))
    return g


def test_all_of_many_parents_are_smooth() -> None:
    program = scg.compile(siblings(None), "reparam")
    assert all(estimator.name == "reparam" for estimator in program.policy.values())


def test_the_one_that_is_not_is_named() -> None:
    with pytest.raises(scg.EstimatorError, match=r"reparam cannot estimate 'x7': the path x7 -> c"):
        scg.compile(siblings(7), "reparam")
    chosen = scg.compile(siblings(7)).policy
    assert {name for name, estimator in chosen.items() if estimator.name != "reparam"} == {"x7"}
