"""Each estimator alone at each distribution that it claims: exactly where possible, else by simulation."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

import scg
from scg.analysis.facts import gather
from scg.choosing.describe import node_facts
from scg.errors import BiasedEstimatorError
from scg.estimators.registry import registry
from scg.laws import LAWS
from scg.oracle import exact_gradient
from tests.contract.instances import INSTANCES, ROWS, Instance, stirred
from tests.contract.judge import Gradient, is_exact, is_simulated
from tests.contract.nodes import MAKERS, Maker
from tests.selection import covering
from tests.support.points import Rule, both_ends, hermite, joined, legendre, product

REPLICATES = 8_000
FINE = {2: 40, 3: 24}
"""How many points for each dimension of normal noise."""
SEVERAL = ("gamma", "poisson", "mixture-normal", "multivariate-normal-scale")
"""Where options of an estimator are simulated as well; what they change does not know the law."""


def bounded(summary: Tensor, theta: Tensor) -> Tensor:
    """A cost that has an expectation under every law, however heavy its tails."""
    return (1 + 0.2 * theta) * torch.tanh((summary - 0.9) / 2)


def alone(maker: Maker, *, many: bool = False) -> scg.Graph:
    """theta -> (v) -> cost and theta -> cost, one theta for each parameter of the distribution.

    If there are ``many``, they are copies along a plate, and each theta is an input.
    """
    g = scg.Graph(maker.name)
    values = [torch.tensor(start).double() for _, start in maker.parameters.values()] or [torch.tensor(0.3)]
    names = ["theta", *(f"theta_{index}" for index in range(1, len(values)))]
    several = list(zip(names, values, strict=True))
    if many:
        g.plate("copy", reduce="sum")
        pressures = [g.input(name, plates="copy", example=value.expand(3)) for name, value in several]
    else:
        pressures = [g.param(name, value) for name, value in several]
    v = maker.declare(g, "v", *pressures[: len(maker.parameters)])
    g.cost("cost", lambda v, theta: bounded(maker.summary(v), theta), v, pressures[0])
    return g


def truth(maker: Maker, graph: scg.Graph) -> Gradient:
    if maker.is_exact:
        return exact_gradient(graph)
    parameters = dict(graph.named_parameters())
    theta = parameters["theta"]
    pressures = list(parameters.values())[: len(maker.parameters)]
    objective = maker.expect(pressures, lambda summary: bounded(summary, theta))
    return dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values())), strict=True))


@cache
def facts(maker: str, samples: int | None) -> scg.NodeFacts:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return node_facts(gather(alone(MAKERS[maker]).freeze(), {}), "v", samples)
    finally:
        torch.set_default_dtype(before)


CLAIMED = [
    (instance, maker)
    for instance in INSTANCES.values()
    for maker in MAKERS.values()
    if instance.claims(facts(maker.name, instance.samples))
]
EXACT = [
    (instance, maker)
    for instance, maker in CLAIMED
    if instance.exact and maker.is_exact and not instance.draws(facts(maker.name, instance.samples))
]
SMOOTH = [
    (instance, maker)
    for instance, maker in CLAIMED
    if instance.name.startswith(("lax", "quadratic"))
    and instance.samples is None
    and maker.parameters
    and (instance.name in ("lax", "quadratic") or ("normal" in maker.name and maker.name != "log-normal"))
]
"""Where the estimate is a smooth function of the base noise; networks that grow meet light tails."""
SIMULATED = [
    (instance, maker)
    for instance, maker in CLAIMED
    if (instance, maker) not in EXACT + SMOOTH and (instance.name in registry() or maker.name in SEVERAL)
]


def named(pairs: list[tuple[Instance, Maker]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("instance", "maker"), pairs, ids=[f"{i}-{m.name}" for i, m in pairs])


@named(EXACT)
def test_the_integrated_gradient_is_exact(instance: Instance, maker: Maker) -> None:
    graph = alone(maker)
    program = scg.compile(graph, instance.make("theta"), samples=instance.samples)
    is_exact(
        graph,
        program,
        truth(maker, graph),
        samples=instance.samples,
        points=32,
        tolerance=1e-6,
        mirrored=instance.mirrored,
    )


def rules(noise: str, dimensions: int) -> list[Rule]:
    """Points for each dimension; for one, on either side of the middle, where some densities have a kink."""
    if noise == "uniform":
        weights, points = both_ends() if dimensions == 1 else both_ends(0.15)
        inside = points.clamp(min=torch.finfo(points.dtype).eps)
        return [joined([(weights / 2, inside / 2), (weights / 2, 1 - inside / 2)])] * dimensions
    if dimensions > 1:
        return [hermite(FINE[dimensions])] * dimensions
    weights, points = joined([legendre(80, -12.0, 0.0), legendre(80, 0.0, 12.0)])
    return [(weights * (-(points**2) / 2).exp() / math.sqrt(2 * math.pi), points)]


@named(SMOOTH)
def test_the_gradient_integrated_over_smooth_noise_is_exact(instance: Instance, maker: Maker) -> None:
    """In many copies, one for each point of a rule on the base noise."""
    graph = alone(maker, many=True)
    program = stirred(scg.compile(graph, instance.make("theta")))
    examples = graph.freeze().store.examples
    shape = program.draw_noise(0, **examples)["v"].shape[1:]
    weights, points = product(rules(facts(maker.name, None).law.noise, shape.numel()))
    live = {name: value[:1].expand(len(weights)).clone().requires_grad_() for name, value in examples.items()}
    loss = program(**live, noise={"v": torch.stack(points, -1).view(-1, *shape)}).loss
    found = torch.autograd.grad(loss, list(live.values()))
    expected = truth(maker, alone(maker))
    size = max(float(part.abs().max()) for part in expected.values())
    assert size > 0.005
    for name, gradient in zip(live, found, strict=True):
        assert float(weights @ gradient) == pytest.approx(float(expected[name]), abs=1e-4 * size)


@named(covering(SIMULATED, lambda pair: pair[0].name, lambda pair: pair[1].name))
def test_the_mean_gradient_is_right(instance: Instance, maker: Maker) -> None:
    graph = alone(maker)
    is_simulated(graph, scg.compile(graph, instance.make("theta"), samples=REPLICATES), truth(maker, graph))


OPTIONS = [pair for pair in CLAIMED if pair[0].name not in registry()]


@named(
    [pair for pair in CLAIMED if pair not in OPTIONS]
    + covering(OPTIONS, lambda pair: pair[0].name, lambda pair: pair[1].name)
)
def test_what_is_claimed_runs(instance: Instance, maker: Maker) -> None:
    graph = alone(maker)
    program = scg.compile(graph, instance.make("theta"), samples=instance.samples)
    for seed in range(3):
        program(noise=seed).loss.backward()
    for parameter in graph.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


def test_every_law_has_a_node_here() -> None:
    made = {maker.dist for maker in MAKERS.values()}
    assert [cls.__name__ for cls in LAWS if cls not in made] == []


@pytest.mark.parametrize("name", MAKERS)
def test_every_distribution_is_claimed(name: str) -> None:
    assert any(instance.claims(facts(name, instance.samples)) for instance in INSTANCES.values())


def test_options_belong_to_registered_estimators() -> None:
    assert set(ROWS) <= set(registry())


@pytest.mark.parametrize("name", [name for name, kind in registry().items() if not kind.unbiased] or ["none"])
def test_what_is_biased_is_refused_unless_asked_for(name: str) -> None:
    if name == "none":
        assert all(kind.unbiased for kind in registry().values())
        return
    with pytest.raises(BiasedEstimatorError):
        scg.compile(alone(MAKERS["bernoulli-logits"]), name)
