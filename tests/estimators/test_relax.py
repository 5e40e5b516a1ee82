"""RELAX under given noise: the estimate of the paper's formula, with both variates, number by number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg


def cost(b: Tensor) -> Tensor:
    return (b - 0.3) ** 3 + b


class Net(nn.Module):
    """A network with nothing to learn."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(z) + 0.2 * z


@pytest.mark.parametrize("u", [0.2, 0.7])
@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_one_estimate_is_that_of_the_formula(u: float, eta: float) -> None:
    g, net = scg.Graph(), Net()
    start = torch.tensor(0.3, dtype=torch.double)
    g.cost("c", cost, g.sample("b", Bernoulli, logits=g.param("theta", start)))
    noise = {"b": torch.tensor(u).double(), "b.1": torch.tensor(0.35).double()}
    program = scg.compile(g, scg.RELAX(net=net))
    with torch.no_grad():
        program.get_parameter("controls.b.eta.log").fill_(eta).log_()
    program(noise=noise).loss.backward()

    theta = start.clone().requires_grad_()
    z = theta + noise["b"].logit()
    b = (z > 0).double()
    sign, w = 2 * b - 1, noise["b.1"]
    again = sign * (torch.log1p(w * torch.exp(sign * theta)) - torch.log1p(-w))
    soft, soft_again = (net(x) + eta * cost(torch.sigmoid(x / 0.5)) for x in (z, again))
    (path,) = torch.autograd.grad(soft - soft_again, theta, retain_graph=True)
    expected = (cost(b) - soft_again) * (b - torch.sigmoid(theta)) + path
    torch.testing.assert_close(program.theta.grad, expected.detach(), rtol=1e-9, atol=1e-12)
