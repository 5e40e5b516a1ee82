"""REBAR under given noise: the estimate of the paper's formula, number by number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

import scg


def cost(b: Tensor) -> Tensor:
    return (b - 0.3) ** 3 + b


@pytest.mark.parametrize("temperature, eta", [(0.4, 1.0), (1.7, 0.6)])
@pytest.mark.parametrize("u", [0.2, 0.7])
def test_one_estimate_is_that_of_the_formula(u: float, temperature: float, eta: float) -> None:
    g = scg.Graph()
    start = torch.tensor(0.3).double()
    g.cost("c", cost, g.sample("b", Bernoulli, logits=g.param("theta", start)))
    noise = {"b": torch.tensor(u).double(), "b.1": torch.tensor(0.35).double()}
    estimate = scg.compile(g, scg.REBAR(temperature=temperature, eta=eta))(noise=noise)
    estimate.loss.backward()

    theta = start.clone().requires_grad_()
    z = theta + noise["b"].logit()
    b = (z > 0).double()
    assert estimate.samples["b"].equal(b)
    sign, w = 2 * b - 1, noise["b.1"]
    again = sign * (torch.log1p(w * torch.exp(sign * theta)) - torch.log1p(-w))
    soft, soft_again = (eta * cost(torch.sigmoid(x / temperature)) for x in (z, again))
    (path,) = torch.autograd.grad(soft - soft_again, theta, retain_graph=True)
    expected = (cost(b) - soft_again) * (b - torch.sigmoid(theta)) + path
    torch.testing.assert_close(g["theta"].value.grad, expected.detach(), rtol=1e-9, atol=1e-12)
