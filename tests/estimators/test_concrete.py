"""Concrete: the derivative at relaxed values, by hand; values stay those of the graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, OneHotCategorical

import scg
from tests.estimators.building import of
from tests.estimators.relaxing import LOGITS, SLOPE, gradient, graph, quadratic

NOISE = of(0.3, 0.6, 0.8)


def soft(logits: Tensor, temperature: Tensor | float) -> Tensor:
    return ((logits.log_softmax(-1) - torch.log(-torch.log(NOISE))) / temperature).softmax(-1)


def test_it_is_the_derivative_at_the_relaxed_value() -> None:
    program = scg.compile(
        graph(quadratic, "logits", LOGITS), scg.Concrete(temperature=0.7), allow_biased=True
    )
    leaf = LOGITS.clone().requires_grad_()
    quadratic(soft(leaf, 0.7)).backward()
    assert torch.allclose(gradient(program, z=NOISE), leaf.grad, rtol=1e-12)


def test_an_index_is_relaxed_to_a_point_of_the_simplex() -> None:
    g = scg.Graph()
    z = g.sample("z", Categorical, logits=g.param("theta", LOGITS.clone()))
    g.cost("c", g.det("v", lambda k: SLOPE[k], z, relaxed=lambda p: p @ SLOPE) ** 2)
    program = scg.compile(g, scg.Concrete(temperature=0.7), allow_biased=True)
    leaf = LOGITS.clone().requires_grad_()
    ((soft(leaf, 0.7) @ SLOPE) ** 2).backward()
    assert torch.allclose(gradient(program, z=NOISE), leaf.grad, rtol=1e-12)


@pytest.mark.parametrize("samples", [None, 3])
def test_plates_and_branches_above_weigh_it(samples: int | None) -> None:
    """An enumerated bit above, a plate with a cost of each element and a cost that joins them."""
    x = of(0.3, -0.8)
    g = scg.Graph()
    a = g.sample("a", Bernoulli, logits=g.param("u", torch.tensor(0.3).double()))
    theta = g.param("theta", torch.tensor(0.4).double())
    z = g.sample("z", Bernoulli, logits=g.input("x", plates="batch", example=x) * theta + a)
    g.cost("c", (z - 0.3) ** 2 * (a + 1))
    g.cost("d", lambda z: z.sum(-1) ** 2, z, plates=())
    program = scg.compile(
        g, {"a": "enumerate", "z": scg.Concrete(temperature=0.7)}, samples=samples, allow_biased=True
    )
    noise = program.draw_noise(0, x=x)
    program(noise=noise, x=x).loss.backward()
    leaf = torch.tensor(0.4).double().requires_grad_()
    p = torch.tensor(0.3).sigmoid().double()
    total = torch.zeros(()).double()
    for value, mass in ((0.0, 1 - p), (1.0, p)):
        relaxed = ((x * leaf + value + noise["z"].logit()) / 0.7).sigmoid()
        costs = ((relaxed - 0.3) ** 2 * (value + 1)).mean(-1) + relaxed.sum(-1) ** 2
        total = total + mass * costs.mean()
    total.backward()
    assert torch.allclose(theta.value.grad, leaf.grad, rtol=1e-6)


def test_discounted_steps_count_as_their_costs_do() -> None:
    x = of(0.3, -0.8, 0.5)
    g = scg.Graph()
    g.plate("time", reduce="sum", ordered=True, discount=0.7)
    theta = g.param("theta", torch.tensor(0.4).double())
    z = g.sample("z", Bernoulli, logits=g.input("x", plates="time", example=x) * theta)
    g.cost("c", lambda z: torch.cumsum(z, -1) ** 2, z)
    program = scg.compile(g, scg.Concrete(temperature=0.7), allow_biased=True)
    noise = program.draw_noise(0, x=x)
    program(noise=noise, x=x).loss.backward()
    leaf = torch.tensor(0.4).double().requires_grad_()
    relaxed = ((x * leaf + noise["z"].logit()) / 0.7).sigmoid()
    (relaxed.cumsum(-1) ** 2 * 0.7 ** torch.arange(3)).sum().backward()
    assert torch.allclose(theta.value.grad, leaf.grad, rtol=1e-10)


def test_a_learned_temperature_descends_the_relaxed_costs() -> None:
    program = scg.compile(
        graph(quadratic, "logits", LOGITS), scg.Concrete(temperature="learned"), allow_biased=True
    )
    gradient(program, z=NOISE)
    log = torch.tensor(0.5).double().log().requires_grad_()
    quadratic(soft(LOGITS, log.exp())).backward()
    (found,) = program.control_parameters()
    assert torch.allclose(found.grad, log.grad, rtol=1e-12)


def test_what_lies_below_gets_the_gradient_at_the_hard_value() -> None:
    """The weights of a decoder: no relaxed value is in their gradient."""
    g = scg.Graph()
    z = g.sample("z", OneHotCategorical, logits=g.param("theta", LOGITS.clone()))
    w = g.param("w", SLOPE.clone())
    g.cost("c", lambda z, w: (z * w).sum(-1) ** 2, z, w)
    program = scg.compile(g, "concrete", allow_biased=True)
    estimate = program(noise={"z": NOISE})
    estimate.loss.backward()
    hard = estimate.samples["z"]
    assert torch.allclose(program.w.grad, 2 * (hard * SLOPE).sum() * hard)


def test_costs_that_are_not_smooth_at_relaxed_values_are_refused() -> None:
    g = graph(lambda z: (z[..., 0] > 0.5).double(), "logits", LOGITS)
    with pytest.raises(scg.EstimatorError, match="every cost at relaxed values, and the path z -> c"):
        scg.compile(g, "concrete", allow_biased=True)
