"""Sites: what is evaluated elsewhere is detached, and controls learn under transforms as they do without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg
from tests.support.integrate import integrated_gradient


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("policy", [scg.Score(baseline="self-critical"), "disarm", "local"])
def test_costs_at_other_values_leave_no_gradient_in_what_lies_below(policy: scg.Estimator | str) -> None:
    torch.manual_seed(0)
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.3])))
    g.cost("c", g.det("h", nn.Linear(1, 1), b)[..., 0] ** 2)
    found = integrated_gradient(g, scg.compile(g, policy), mirrored=True)
    for name, value in scg.exact_gradient(g).items():
        assert torch.allclose(found[name], value, rtol=1e-9), name


def plates(reduce: str) -> scg.Program:
    g = scg.Graph()
    g.plate("batch", size=3, reduce=reduce)
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.3, -0.4, 0.9]), plates="batch"))
    g.cost("c", (b - 0.3) ** 3)
    return scg.compile(g, scg.REBAR(temperature=0.7, eta=0.8))


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_controls_learn_the_same_under_transforms(reduce: str) -> None:
    program = plates(reduce)
    noise = program.draw_noise(3)
    program(noise=noise).loss.backward()
    live = {name: p.detach() for name, p in program.named_parameters()}

    def loss(live: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(program, live, kwargs={"noise": noise}).loss
        return found

    for name, gradient in torch.func.grad(loss)(live).items():
        expected = program.get_parameter(name).grad
        assert float(expected.abs().max()) > 1e-4
        assert torch.allclose(gradient, expected, rtol=1e-9), name


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_controls_descend_the_variance_in_the_weights_of_the_objective(reduce: str) -> None:
    """V = sum of weight |estimate|^2, an estimate being what is left in a logit over its weight."""
    program = plates(reduce)
    noise, weight = program.draw_noise(3), 1 / 3 if reduce == "mean" else 1.0
    program(noise=noise).loss.backward()
    eta = program.get_parameter("controls.b.eta.log")
    gradient, step, found = eta.grad.clone(), 1e-5, []
    for sign in (1, -1):
        program.zero_grad()
        with torch.no_grad():
            eta += sign * step
        program(noise=noise).loss.backward()
        found.append(float(weight * (program.t.grad / weight).square().sum()))
        with torch.no_grad():
            eta -= sign * step
    assert float(gradient) == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-6)
