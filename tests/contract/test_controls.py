"""Control parameters descend V = sum of weight |estimate|^2, and the model learns nothing from that.

Every leaf is a parameter of one distribution at one element, so that its gradient is that element's weight
times its estimate: what V is can be read off the gradients of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from tests.contract.instances import Odd, itself, stirred
from tests.contract.shapes import low
from tests.selection import EVERYTHING
from tests.support.points import joined, legendre, product

STEP = 1e-5
ESTIMATORS: Mapping[str, tuple[type, Callable[[], scg.Estimator]]] = {
    "rebar": (Bernoulli, lambda: scg.REBAR(temperature=0.6, eta=1.3)),
    "relax": (Bernoulli, scg.RELAX),
    "relax-net": (Bernoulli, lambda: scg.RELAX(Odd(), relaxed_cost=False)),
    "relax-both": (Bernoulli, lambda: scg.RELAX(Odd())),
    "lax": (Normal, scg.LAX),
    "lax-net": (Normal, lambda: scg.LAX(Odd(itself))),
}


@dataclass
class Leaves:
    """A graph whose parameters are distribution parameters, each with the weight of its elements."""

    law: type
    g: scg.Graph
    weights: dict[str, Tensor]

    def leaf(self, name: str, value: list[float] | float, weight: Tensor | float, *plates: str) -> scg.Node:
        start = torch.tensor(value)
        self.weights[name] = torch.as_tensor(weight).expand(start.shape)
        return self.g.param(name, start, plates=plates)

    def draw(
        self, name: str, value: list[float] | float, weight: Tensor | float, *plates: str, above: object = 0.0
    ) -> scg.Node:
        """A stochastic node with leaves of its own; ``above`` is added to the first."""
        first = self.leaf(f"{name}_first", value, weight, *plates) + above
        if self.law is Bernoulli:
            return self.g.sample(name, Bernoulli, logits=first)
        scale = self.leaf(
            f"{name}_scale", torch.full_like(torch.tensor(value), 0.7).tolist(), weight, *plates
        )
        return self.g.sample(name, Normal, loc=first, scale=scale)


def one(d: Leaves) -> None:
    d.g.cost("cost", lambda b: (b - 0.4) ** 3 + b, d.draw("b", 0.3, 1.0))


def event(d: Leaves) -> None:
    """Two variables in one node, whose estimates are added in one |estimate|^2."""
    b = d.draw("b", [0.3, -0.8], 1.0)
    d.g.cost("cost", lambda b: (b[..., 0] - 0.4) * (b[..., 1] + 0.7) ** 2, b)


def aligned(d: Leaves, reduce: str = "mean") -> None:
    d.g.plate("p", size=3, reduce=reduce)
    b = d.draw("b", [0.3, -0.8, 0.1], 1 / 3 if reduce == "mean" else 1.0, "p")
    d.g.cost("cost", (b - 0.4) ** 3 + b)


def summed(d: Leaves) -> None:
    aligned(d, "sum")


def aligned_and_aggregate(d: Leaves) -> None:
    d.g.plate("p", size=3)
    b = d.draw("b", [0.3, -0.8, 0.1], 1 / 3, "p")
    d.g.cost("aligned", (b - 0.4) ** 3 + b)
    d.g.cost("aggregate", d.g.det("whole", lambda b: 0.3 * (b.sum(-1) - 0.8) ** 2, b, plates=()))


def ordered(d: Leaves) -> None:
    d.g.plate("t", size=3, ordered=True, discount=0.6)
    b = d.draw("b", [0.3, -0.8, 0.1], 0.6 ** torch.arange(3.0) / 3, "t")
    past = d.g.det("past", lambda b: b.cumsum(-1), b)
    d.g.cost("cost", lambda past: (past - 0.4) ** 2, past)
    d.g.cost("last", d.g.det("end", lambda past: torch.sin(past[..., -1]), past, plates=()))


def chain(d: Leaves) -> None:
    x = d.draw("x", 0.3, 1.0)
    y = d.draw("y", -0.2, 1.0, above=0.7 * x)
    d.g.cost("cost", low, x, y)
    d.g.cost("own", 0.3 * y * y)


def added(d: Leaves) -> None:
    """A plate that only the lower node has."""
    d.g.plate("p", size=2)
    x = d.draw("x", 0.3, 1.0)
    y = d.draw("y", [-0.2, 0.6], 0.5, "p", above=0.7 * x)
    d.g.cost("cost", low, x, y)


def below_branches(d: Leaves) -> None:
    """A leaf for each branch of an enumerated node: the weight of its estimate is that branch's chance."""
    x = d.g.sample("x", Bernoulli, logits=d.g.param("above", torch.tensor(0.5)))
    chances = torch.sigmoid(torch.tensor([-0.5, 0.5]))
    leaves = [d.leaf(f"first{k}", value, chances[k]) for k, value in enumerate((-0.2, 0.6))]
    first = d.g.det("first", lambda x, *both: torch.where(x > 0, both[1], both[0]), x, *leaves)
    if d.law is Bernoulli:
        y = d.g.sample("y", Bernoulli, logits=first)
    else:
        scales = [d.leaf(f"scale{k}", value, chances[k]) for k, value in enumerate((0.7, 0.9))]
        scale = d.g.det("scale", lambda x, *both: torch.where(x > 0, both[1], both[0]), x, *scales)
        y = d.g.sample("y", Normal, first, scale)
    d.g.cost("cost", low, x, y)


PLAIN = ("rebar", "relax", "lax")
"""What meets every graph; others meet SOME, and under HYPOTHESIS_PROFILE=fuzz all but that of an event."""
GRAPHS = (one, event, aligned, summed, aligned_and_aggregate, ordered, chain, added, below_branches)
SOME = (one, aligned_and_aggregate, chain)
Make = Callable[[Leaves], None]
cases = pytest.mark.parametrize(
    ("make", "name"),
    [
        (make, name)
        for make in GRAPHS
        for name in ESTIMATORS
        if name in PLAIN or (make is not event and (EVERYTHING or make in SOME))
    ],
    ids=lambda item: getattr(item, "__name__", item),
)


def built(make: Make, name: str) -> tuple[Leaves, scg.Program]:
    law, estimator = ESTIMATORS[name]
    d = Leaves(law, scg.Graph(), {})
    make(d)
    enumerated = make is below_branches
    chosen = {node: estimator() for node in d.g.freeze().samples if not (enumerated and node == "x")}
    program = scg.compile(d.g, {"x": "enumerate", **chosen} if enumerated else chosen)
    return d, stirred(program)


def gradients(d: Leaves, program: scg.Program, noise: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what one backward leaves in the model; the controls keep theirs."""
    program.zero_grad()
    program(noise=noise).loss.backward()
    found = {}
    for name, parameter in d.g.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
    return found


def variance(d: Leaves, program: scg.Program, noise: dict[str, Tensor]) -> float:
    """V, from the gradients of the model: that of an element is its weight times its estimate."""
    found = gradients(d, program, noise)
    return sum(float((found[name] ** 2 / weight).sum()) for name, weight in d.weights.items())


def slope(parameter: Tensor, index: int, fn: Callable[[], float]) -> float:
    """Return the derivative in one entry, by central differences."""
    flat, ends = parameter.data.view(-1), []
    before = flat[index].item()
    for sign in (1.0, -1.0):
        flat[index] = before + sign * STEP
        ends.append(fn())
    flat[index] = before
    return (ends[0] - ends[1]) / (2 * STEP)


@cases
def test_controls_get_the_gradient_of_the_variance(make: Make, name: str) -> None:
    d, program = built(make, name)
    for seed in range(3):
        noise = dict(program.draw_noise(seed))
        gradients(d, program, noise)
        taught = {key: p.grad.clone() for key, p in program.controls.named_parameters() if p.grad is not None}
        controls = dict(program.controls.named_parameters())
        assert taught.keys() == controls.keys()
        size = max(float(part.abs().max()) for part in taught.values())
        assert size > 1e-5
        for key, parameter in controls.items():
            numbers = range(0, parameter.numel(), max(1, parameter.numel() // 4))
            for index in numbers:
                numeric = slope(parameter, index, partial(variance, d, program, noise))
                assert float(taught[key].view(-1)[index]) == pytest.approx(numeric, rel=1e-4, abs=1e-6 * size)


@cases
def test_training_controls_changes_no_gradient_of_the_model(make: Make, name: str) -> None:
    """Bit by bit."""
    d, program = built(make, name)
    noise = dict(program.draw_noise(5))
    first = gradients(d, program, noise)
    controls = list(program.control_parameters())
    for frozen in (controls, controls[:1]):
        for parameter in frozen:
            parameter.requires_grad_(False)
        again = gradients(d, program, noise)
        assert all(again[key].equal(part) for key, part in first.items())
        assert all(parameter.grad is None for parameter in frozen)
        for parameter in frozen:
            parameter.requires_grad_(True)


def by_hand(
    logit: Tensor, noise: Tensor, fresh: Tensor, temperature: Tensor, eta: Tensor
) -> tuple[Tensor, Tensor]:
    """The residual and the path derivative of REBAR at a Bernoulli, as published, at each replicate."""
    l = logit.expand(noise.shape).clone().requires_grad_()  # noqa: E741
    z = l + torch.log(noise) - torch.log1p(-noise)
    b = (z > 0).double().detach()
    sign = 2 * b - 1
    tied = sign * (torch.nn.functional.softplus(sign * l + torch.log(fresh)) - torch.log1p(-fresh))
    soft, soft_tied = (eta * hand_cost(torch.sigmoid(point / temperature)) for point in (z, tied))
    (path,) = torch.autograd.grad((soft - soft_tied).sum(), l, create_graph=True)
    return torch.stack((hand_cost(b) - soft_tied, b - torch.sigmoid(logit))), path


def hand_cost(b: Tensor) -> Tensor:
    return (b - 0.4) ** 3 + b


@pytest.mark.parametrize("baseline", [None, "leave-one-out"])
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_replicates_are_what_is_written_by_hand(samples: int, baseline: str | None) -> None:
    """The estimate, and the gradient of the mean over replicates of its square."""
    if baseline is not None and samples == 1:
        return
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3))
    g.cost("cost", hand_cost, g.sample("b", Bernoulli, logits=theta))
    program = scg.compile(g, scg.REBAR(temperature=0.6, eta=1.3, baseline=baseline), samples=samples)
    noise = dict(program.draw_noise(3))
    program(noise=noise).loss.backward()
    logs = [torch.tensor(value).log().requires_grad_() for value in (0.6, 1.3)]
    (residual, score), path = by_hand(
        theta.value.detach(), noise["b"], noise["b.1"], *(log.exp() for log in logs)
    )
    if baseline is not None:
        residual = residual - (residual.sum() - residual) / (samples - 1)
    estimate = residual * score + path
    assert float(theta.value.grad) == pytest.approx(float(estimate.mean().detach()), abs=1e-12)
    taught = torch.autograd.grad(estimate.square().mean(), logs)
    controls = program.controls["b"]
    for part, found in zip(taught, (controls.temperature.log, controls.eta.log), strict=True):
        assert float(found.grad) == pytest.approx(float(part), abs=1e-12)


@pytest.mark.parametrize("estimator", [scg.REBAR(temperature=1.0, eta=1.3), scg.RELAX(Odd())], ids=str)
def test_the_expected_gradient_of_controls_is_that_of_the_variance(estimator: scg.Estimator) -> None:
    """At one Bernoulli, whose variance is integrated over all noise, in many copies at once."""
    g = scg.Graph()
    g.plate("copy", reduce="sum")
    theta = g.input("theta", plates="copy", example=torch.full((2,), 0.3))
    g.cost("cost", hand_cost, g.sample("b", Bernoulli, logits=theta))
    program = stirred(scg.compile(g, estimator))
    cut = 1 - float(torch.sigmoid(torch.tensor(0.3)))

    def grid(count: int) -> tuple[Tensor, list[Tensor]]:
        return product([joined([legendre(count, 0.0, cut), legendre(count, cut, 1.0)]), legendre(count)])

    def run(u: Tensor, v: Tensor) -> Tensor:
        program.zero_grad()
        live = torch.full_like(u, 0.3).requires_grad_()
        program(theta=live, noise={"b": u, "b.1": v}).loss.backward()
        assert live.grad is not None
        return live.grad

    def variance() -> float:
        weights, points = grid(30)
        estimates = run(*points)
        return float(weights @ estimates**2 - (weights @ estimates) ** 2)

    taught = {key: torch.zeros_like(p) for key, p in program.controls.named_parameters()}
    weights, points = grid(12)
    for weight, u, v in zip(weights, *points, strict=True):
        run(u[None], v[None])
        for key, parameter in program.controls.named_parameters():
            assert parameter.grad is not None
            taught[key] += weight * parameter.grad
    for key, parameter in program.controls.named_parameters():
        for index in range(parameter.numel()):
            numeric = slope(parameter, index, variance)
            assert float(taught[key].view(-1)[index]) == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_a_network_that_captures_a_parameter_adds_nothing_to_its_gradient() -> None:
    """A control variate is no part of the loss, whatever it is made of."""
    found = []
    for attached in (True, False):
        g = scg.Graph()
        theta = g.param("theta", torch.tensor(0.3))
        value = theta.value

        def net(z: Tensor, value: Tensor = value, attached: bool = attached) -> Tensor:
            return torch.tanh(z) * (value if attached else value.detach()) + (
                value if attached else value.detach()
            )

        g.cost("cost", hand_cost, g.sample("b", Bernoulli, logits=theta))
        program = scg.compile(g, scg.RELAX(net))
        program(noise=4).loss.backward()
        found.append(theta.value.grad)
    assert found[0].equal(found[1])
