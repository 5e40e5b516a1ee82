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


@pytest.mark.parametrize("control", ["eta", "temperature"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_controls_descend_the_variance_in_the_weights_of_the_objective(reduce: str, control: str) -> None:
    """V = sum of weight |estimate|^2, an estimate being what is left in a logit over its weight."""
    program = plates(reduce)
    noise, weight = program.draw_noise(3), 1 / 3 if reduce == "mean" else 1.0
    program(noise=noise).loss.backward()
    log = program.get_parameter(f"controls.b.{control}.log")
    gradient, step, found = log.grad.clone(), 1e-5, []
    for sign in (1, -1):
        program.zero_grad()
        with torch.no_grad():
            log += sign * step
        program(noise=noise).loss.backward()
        found.append(float(weight * (program.t.grad / weight).square().sum()))
        with torch.no_grad():
            log -= sign * step
    assert float(gradient) == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-6)


def test_the_past_is_remembered_once_it_was_used() -> None:
    """The first run finds nothing to take from its credit, and the second what the first left."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", 0.3))
    g.cost("c", (b - 0.3) ** 3 + 2)
    program, plain = scg.compile(g, scg.Score(baseline="moving-average")), scg.compile(g, "score")
    noise = program.draw_noise(0)
    score = []
    for one in (plain, program, program):
        one.zero_grad()
        cost = one(noise=noise)
        cost.loss.backward()
        score.append(one.t.grad.clone())
    assert torch.allclose(score[0], score[1])
    assert abs(float(score[2])) < 1e-6


@pytest.mark.parametrize("is_transformed", [False, True])
def test_the_past_is_remembered_once_beside_what_learns(is_transformed: bool) -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.tensor([[0.3], [0.8]]))
    b = g.sample("b", Bernoulli, logits=x[..., 0] + g.param("t", 0.3))
    g.cost("c", (b - 0.3) ** 3 + 2)
    baseline = scg.MovingAverage() + scg.Net(nn.Linear(1, 1), "x")
    program = scg.compile(g, scg.Score(baseline=baseline))
    given = {
        "x": torch.tensor([[0.3], [0.8]]),
        "noise": program.draw_noise(0, x=torch.tensor([[0.3], [0.8]])),
    }
    if is_transformed:
        program.compile(backend="eager")
    program(**given).loss.backward()
    assert float(program.get_buffer("controls.b.mass")) == pytest.approx(0.1)


def steps(*, discount: float) -> scg.Program:
    g = scg.Graph()
    g.plate("time", size=3, reduce="sum", ordered=True, discount=discount)
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.3, -0.4, 0.9]), plates="time"))
    g.cost("c", (b - 0.3) ** 3)
    return scg.compile(g, scg.REBAR(temperature=0.7, eta=0.8))


def test_a_discounted_step_has_its_share_of_the_estimate() -> None:
    """The last, which no later step is charged to."""
    whole, shared = steps(discount=1.0), steps(discount=0.5)
    noise = whole.draw_noise(3)
    for program in (whole, shared):
        program(noise=noise).loss.backward()
    assert torch.allclose(shared.t.grad[-1], 0.25 * whole.t.grad[-1], rtol=1e-9)


def aggregate(reduce: str) -> scg.Program:
    g = scg.Graph()
    g.plate("batch", size=3, reduce=reduce)
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.3, -0.4, 0.9]), plates="batch"))
    g.cost("c", g.det("s", lambda b: (b.sum(0) - 1.2) ** 3, b, plates=()))
    return scg.compile(g, scg.REBAR(temperature=0.7, eta=0.8))


def test_how_a_plate_is_reduced_says_nothing_of_costs_outside() -> None:
    mean, added = aggregate("mean"), aggregate("sum")
    noise = mean.draw_noise(3)
    for program in (mean, added):
        program(noise=noise).loss.backward()
    assert torch.allclose(mean.t.grad, added.t.grad, rtol=1e-9)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_network_of_a_score_descends_the_variance(is_compiled: bool) -> None:
    """Of what it leaves in the logits: sum weight ((Q - net) (b - p))^2, to the last factor."""
    net = torch.nn.Linear(1, 1).double()
    x = torch.tensor([[0.4], [-1.0], [2.0]], dtype=torch.float64)
    g = scg.Graph()
    logits = g.input("x", x, plates="batch")[..., 0] * g.param("theta", torch.tensor(0.7).double())
    b = g.sample("b", torch.distributions.Bernoulli, logits=logits)
    g.cost("loss", (b - 0.3) ** 2)
    program = scg.compile(g, scg.Score(baseline=net, context="x"))
    if is_compiled:
        program(x=x, seed=1)
        program.compile(backend="aot_eager")
    estimate = program(x=x, seed=1)
    estimate.loss.backward()
    p = torch.sigmoid(0.7 * x[:, 0])
    left = (estimate.costs["loss"] - net(x)[:, 0]) * (estimate.samples["b"] - p)
    wanted = torch.autograd.grad(left.square().mean(), list(net.parameters()))
    for parameter, gradient in zip(net.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-10)
