"""Baselines at sites made by hand: what each takes from the credit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

import scg
from scg.estimators.parts.memory import Memory
from scg.estimators.parts.variates import centred
from scg.estimators.protocol.facts import REPLICATES, Axis
from scg.estimators.protocol.site import Site
from tests.estimators.building import of, site

AXES = (Axis(REPLICATES, 4),)
NOISE = of(0.1, 0.9, 0.4, 0.6)


def cost(b: Tensor) -> Tensor:
    return (b - 0.3) ** 3 + 2


def bits(**changed: object) -> Site:
    logits = torch.full((4,), 0.3, dtype=torch.double)
    return site(Bernoulli, {"logits": logits}, NOISE, cost, axes=AXES, **changed)  # type: ignore[arg-type]


def others(values: Tensor) -> Tensor:
    return torch.stack([torch.cat([values[:k], values[k + 1 :]]).mean() for k in range(len(values))])


@pytest.mark.parametrize("logit, greedy", [(0.3, 1.0), (-0.3, 0.0)])
@pytest.mark.parametrize("u", [0.1, 0.9])
def test_the_self_critical_one_is_the_cost_at_the_likeliest_value(
    logit: float, greedy: float, u: float
) -> None:
    made = site(Bernoulli, {"logits": of(logit)}, of(u), cost)
    assert torch.equal(scg.SelfCritical().value(made, made.credit), cost(of(greedy)))


def test_the_self_critical_one_of_a_categorical_is_at_its_likeliest_outcome() -> None:
    made = site(
        Categorical, {"probs": of(0.2, 0.5, 0.3)}, of(0.9, 0.1, 0.1), lambda k: (k.double() - 0.4) ** 2
    )
    assert made.value == 0
    assert torch.allclose(scg.SelfCritical().value(made, made.credit), of(0.6**2))


def test_a_sum_takes_each_of_what_those_before_it_leave() -> None:
    made = bits(provided={"predict": lambda: of(1.0, 3.0, 0.5, 2.0)})
    baseline = scg.Net(torch.nn.Linear(1, 1)) + scg.LeaveOneOut()
    left = made.credit - of(1.0, 3.0, 0.5, 2.0)
    found = made.credit - baseline.value(made, made.credit)
    assert torch.allclose(found, left - others(left))


def test_a_sum_takes_the_average_of_the_past_first() -> None:
    """It is of the whole credit, and not of what another baseline leaves."""
    memory = Memory(None, deviates=False)
    memory.update(of(7.0), None)
    made = bits(controls=memory)
    for baseline in (scg.LeaveOneOut() + scg.MovingAverage(), scg.MovingAverage() + scg.LeaveOneOut()):
        assert isinstance(baseline.parts[0], scg.MovingAverage)
        assert torch.allclose(baseline.value(made, made.credit), 7.0 + others(made.credit - 7.0))


def test_a_comparison_is_made_once() -> None:
    with pytest.raises(scg.EstimatorError, match="one comparison of elements at most"):
        scg.LeaveOneOut() + scg.LeaveOneOut("batch")


def test_what_a_control_variate_leaves_is_compared_and_not_the_credit() -> None:
    made, residual = bits(), of(0.1, -0.4, 2.0, 1.0)
    assert torch.allclose(centred(made, residual, scg.LeaveOneOut()), residual - others(residual))


def test_memory_moves_in_training_alone() -> None:
    estimator = scg.Score(baseline="moving-average")
    memory = Memory(None, deviates=False)
    made = bits(controls=memory)
    estimator.remember(made)
    assert float(memory.mass) == 0
    estimator.remember(replace(made, training=True))
    assert torch.allclose(memory.mean(), made.credit.mean().to(memory.mean()))


def test_the_factor_of_a_score_is_what_the_baseline_leaves() -> None:
    made = bits()
    found = scg.Score(baseline="leave-one-out").factor(made)
    assert torch.allclose(found, made.credit - others(made.credit))
