"""Extreme logits and probs: right values, finite gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as td

from scg.laws import Law, divisor, law_for


def scored(law: Law, parameters: dict[str, Tensor], value: Tensor) -> tuple[Tensor, Tensor]:
    live = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    log_prob = law.log_prob(live, value)
    return log_prob.detach(), torch.autograd.grad(log_prob.sum(), next(iter(live.values())))[0]


@pytest.mark.parametrize("size", [40.0, 1000.0])
def test_bernoulli_logits(size: float) -> None:
    logits, value = torch.tensor([size, size, -size, -size]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    log_prob, gradient = scored(*law_for(td.Bernoulli, {"logits": logits}), value)
    assert log_prob.tolist() == [0.0, -size, -size, 0.0] or torch.allclose(
        log_prob, torch.tensor([0, -size, -size, 0])
    )
    torch.testing.assert_close(gradient, torch.tensor([0.0, -1.0, 1.0, 0.0]))


def test_bernoulli_infinite_logits() -> None:
    logits = torch.tensor([torch.inf, torch.inf, -torch.inf, -torch.inf])
    law, parameters = law_for(td.Bernoulli, {"logits": logits})
    log_prob, gradient = scored(law, parameters, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert log_prob.tolist() == [0.0, -torch.inf, -torch.inf, 0.0]
    assert gradient.tolist() == [0.0] * 4
    assert law.draw(parameters, torch.full((4,), 0.5)).tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("size", [40.0, 1000.0, torch.inf])
def test_categorical_logits(one_hot: bool, size: float) -> None:
    cls = td.OneHotCategorical if one_hot else td.Categorical
    law, parameters = law_for(cls, {"logits": torch.tensor([[0.0, -size, 0.0]]).expand(2, 3)})
    log_prob, gradient = scored(law, parameters, law.support(parameters)[:2])
    torch.testing.assert_close(log_prob, torch.tensor([-0.6931472, -size - 0.6931472]))
    torch.testing.assert_close(gradient[0], torch.tensor([0.5, 0.0, -0.5]))
    assert gradient.isfinite().all()


def test_small_probs_are_not_clamped() -> None:
    law, parameters = law_for(td.Bernoulli, {"probs": torch.tensor(1e-9)})
    assert law.log_prob(parameters, torch.tensor(1.0)).item() == pytest.approx(-20.7232, abs=1e-3)
    law, parameters = law_for(td.Categorical, {"probs": torch.tensor([1e-9, 1.0])})
    assert law.log_prob(parameters, torch.tensor(0)).item() == pytest.approx(-20.7232, abs=1e-3)


@pytest.mark.parametrize("cls", [td.Bernoulli, td.Binomial])
def test_certain_probs(cls: Any) -> None:
    static = {"total_count": 1} if cls is td.Binomial else {}
    law, parameters = law_for(cls, {"probs": torch.tensor([0.0, 1.0, 0.0, 1.0]), **static})
    log_prob, gradient = scored(law, parameters, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert log_prob.tolist() == [0.0, 0.0, -torch.inf, -torch.inf]
    assert gradient.tolist() == [0.0] * 4
    assert law.draw(parameters, torch.rand(5, 4)).unique(dim=0).tolist() == [[0.0, 1.0, 0.0, 1.0]]


@pytest.mark.parametrize("cls", [td.Categorical, td.OneHotCategorical])
def test_certain_outcomes(cls: Any) -> None:
    law, parameters = law_for(cls, {"probs": torch.tensor([[0.0, 1.0, 0.0]]).expand(2, 3)})
    log_prob, gradient = scored(law, parameters, law.support(parameters)[[1, 0]])
    assert log_prob.tolist() == [0.0, -torch.inf]
    assert gradient.tolist() == [[0.0] * 3] * 2
    noise = torch.rand(9, 2, 3)
    assert (
        law.draw(parameters, noise).flatten(0, 1).unique(dim=0).tolist()
        == law.support(parameters)[1:2].tolist()
    )


@pytest.mark.parametrize("cls", [td.Bernoulli, td.Binomial])
def test_mass_has_the_exact_derivative_at_the_ends(cls: Any) -> None:
    static = {"total_count": 1} if cls is td.Binomial else {}
    probs = torch.tensor([0.0, 1.0], requires_grad=True)
    law, parameters = law_for(cls, {"probs": probs, **static})
    (gradient,) = torch.autograd.grad(law.mass(parameters)[1].sum(), probs)
    assert gradient.tolist() == [1.0, 1.0]


def test_log_prob_is_linear_in_relaxed_values() -> None:
    law, parameters = law_for(td.Bernoulli, {"logits": torch.tensor(0.7)})
    ends = law.log_prob(parameters, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(law.log_prob(parameters, torch.tensor(0.25)), 0.75 * ends[0] + 0.25 * ends[1])
    law, parameters = law_for(td.OneHotCategorical, {"probs": torch.tensor([0.2, 0.8])})
    value = torch.tensor([0.25, 0.75], requires_grad=True)
    log_prob = law.log_prob(parameters, value)
    expected = torch.tensor([0.2, 0.8]).log()
    torch.testing.assert_close(log_prob, (value * expected).sum())
    torch.testing.assert_close(torch.autograd.grad(log_prob, value)[0], expected)


def test_half_precision_is_widened() -> None:
    law, parameters = law_for(td.Bernoulli, {"probs": torch.tensor(0.001, dtype=torch.bfloat16)})
    torch.manual_seed(0)
    value = law.draw(parameters, torch.rand(200_000))
    assert value.dtype == torch.bfloat16
    assert value.float().mean().item() == pytest.approx(0.001, abs=3e-4)
    assert law.log_prob(parameters, value).dtype == torch.float32


SHAPES = {
    "alike": ((3, 5), (3, 5)),
    "values repeat": ((3, 5), (5,)),
    "logits repeat": ((5,), (3, 5)),
    "crossed": ((2, 1, 5), (1, 3, 5)),
    "crossed, of other ranks": ((2, 1, 5), (3, 5)),
    "crossed twice": ((2, 1, 4, 5), (2, 3, 1, 5)),
    "crossed events": ((2, 1, 5), (3, 1)),
}


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("ends", [[], [math.inf, -math.inf], [300.0, -300.0]])
@pytest.mark.parametrize("name", SHAPES)
def test_sums_over_events_are_sums_of_log_probs(name: str, ends: list[float], looks: bool) -> None:
    """Under a transform no value can be looked at, and a formula that is right for all logits is taken."""
    torch.manual_seed(0)
    law, _ = law_for(td.Bernoulli, {"logits": torch.zeros(())})
    logits, value = (torch.randn(shape, dtype=torch.float64) for shape in SHAPES[name])
    logits.view(-1)[: len(ends)] = torch.tensor(ends, dtype=torch.float64)
    value = (value > 0).to(torch.float64)
    lead = max(logits.dim(), value.dim()) - 1

    def summed(logits: Tensor) -> tuple[Tensor, Tensor]:
        log = law.log_prob_over({"logits": logits}, value, lead)
        return torch.where(log > -math.inf, log, 0.0).sum(), log

    expected = law.log_prob({"logits": logits.requires_grad_()}, value).sum(-1)
    possible = torch.where(expected > -math.inf, expected, 0.0).sum()
    (slope,) = torch.autograd.grad(possible, logits)
    if looks:
        total, found = summed(logits)
        (derivative,) = torch.autograd.grad(total, logits)
    else:
        derivative, found = torch.func.grad(summed, has_aux=True)(logits.detach())
    torch.testing.assert_close(found, expected)
    if not any(map(math.isinf, ends)):
        torch.testing.assert_close(derivative, slope)
    assert bool(derivative.isfinite().all())


def test_large_logits_take_no_digits_from_small_ones_where_shapes_cross() -> None:
    law, _ = law_for(td.Bernoulli, {"logits": torch.zeros(())})
    logits = torch.tensor([[[1e7, -1e7, 0.3]], [[1e7, -1e7, -0.3]]])
    value = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    expected = td.Bernoulli(logits=logits).log_prob(value).sum(-1)
    torch.testing.assert_close(law.log_prob_over({"logits": logits}, value, 2), expected)


def test_a_weight_that_has_vanished_divides_to_nothing() -> None:
    weights = torch.tensor([0.5, 0.0, 1e-320], dtype=torch.float64)
    assert divisor(weights).tolist() == [0.5, math.inf, math.inf]
    assert divisor(torch.tensor([1e-45, 1.0])).tolist() == [math.inf, 1.0]


@pytest.mark.parametrize(
    "dist, parameters, outside",
    [
        (td.Pareto, {"scale": 2.0, "alpha": 1.5}, [1.9]),
        (td.Uniform, {"low": -1.0, "high": 2.0}, [-1.1, 2.1]),
        (td.HalfNormal, {"scale": 2.0}, [-0.1]),
        (td.HalfCauchy, {"scale": 2.0}, [-0.1]),
        (td.GeneralizedPareto, {"loc": 1.0, "scale": 2.0, "concentration": -0.5}, [0.9, 5.1]),
    ],
)
def test_what_is_outside_of_a_support_has_no_density(
    dist: Any, parameters: dict[str, float], outside: list[float]
) -> None:
    law, tensors = law_for(dist, {k: torch.tensor(v, dtype=torch.float64) for k, v in parameters.items()})
    for value in outside:
        assert law.log_prob(tensors, torch.tensor(value, dtype=torch.float64)) == -math.inf


@pytest.mark.parametrize("logit", [9e-3, -9e-3, 1e-3, 1.1e-2])
def test_a_continuous_bernoulli_near_even_odds_integrates_to_1(logit: float) -> None:
    law, tensors = law_for(td.ContinuousBernoulli, {"logits": torch.tensor(logit, dtype=torch.float64)})
    nodes, weights = np.polynomial.legendre.leggauss(20)
    points, measure = torch.from_numpy(nodes + 1) / 2, torch.from_numpy(weights) / 2
    assert float(measure @ law.log_prob(tensors, points).exp()) == pytest.approx(1.0, abs=1e-12)


def test_a_parameter_without_its_event_dims_stays_without_them() -> None:
    arguments = {"temperature": torch.tensor(0.7), "logits": torch.zeros(2, 3)}
    law, tensors = law_for(td.RelaxedOneHotCategorical, arguments)
    full = law.expand(tensors, torch.Size([4, 2]))
    assert full["temperature"].shape == ()
    assert full["logits"].shape == (4, 2, 3)
